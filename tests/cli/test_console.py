"""Tables at terminals that are too narrow for them: nothing is cut off."""

import re

from rich.console import Console

from quantplan.cli import console
from quantplan.report.table import Table, as_rich


def test_a_log_says_once_a_minute_what_is_left(capsys):
    now = 0.0
    with console._Lines(lambda: now).stage("probe", 71) as advance:
        for _ in range(6):
            now += 25
            advance(1)
    with console._Lines(lambda: now).stage("share") as advance:
        now += 90
        advance(0.25)
        now += 90
        advance(0.75)
    assert capsys.readouterr().err.splitlines() == [
        "probe ...",
        "probe: 3/71, about 28 min left",
        "probe: 6/71, about 27 min left",
        "share ...",
        "share: 25%, about 4 min left",
    ]


NOTE = "Each interval is its candidate's own: of 41 that gain nothing about 1 lie below 0 by chance."
HEADINGS = ("Edits", "Place", "Layers", "PPL", "PPL against original, 95 %", "KLD")
ROW = ("delete 5; swap 5 6", "1", "9", "51.7 ± 1.3", "-3.51 % (-17.67 to +13.08)", "0.1229 ± 0.0094")


def printed(monkeypatch, capsys, columns, headings=HEADINGS, row=ROW):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    console.put_table(Table("model.gguf", headings, (row,), (NOTE,)))
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_a_table_folds_between_words(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, 80)
    assert max(map(len, text.splitlines())) <= 80 and "│" not in text
    assert "…" not in text and all(text.count(word) for cell in ROW for word in cell.split())
    assert " ".join(text.split()).endswith(NOTE)


def test_a_wide_terminal_has_the_frame(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, 120)
    assert "│ -3.51 % (-17.67 to +13.08) │" in text and max(map(len, text.splitlines())) <= 120


def test_what_cannot_be_folded_goes_on_in_the_next_line(monkeypatch, capsys):
    row = tuple("1" * 12 for _ in range(10))
    text = printed(monkeypatch, capsys, 80, headings=tuple("abcdefghij"), row=row)
    assert text.count("1" * 12) == 10 and max(map(len, text.splitlines())) > 80


def test_long_names_fold_anywhere(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, 80, row=("n" * 40, *ROW[1:]))
    assert max(map(len, text.splitlines())) <= 80 and text.count("n" * 12) >= 2


def test_a_table_of_exactly_the_width_stays_as_it_is(monkeypatch, capsys):
    wide = Console(width=160)
    with wide.capture() as caught:
        wide.print(as_rich(Table("model.gguf", HEADINGS, (ROW,))))
    width = max(len(line.rstrip()) for line in caught.get().splitlines())
    assert "│" in printed(monkeypatch, capsys, width)
