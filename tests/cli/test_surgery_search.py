"""`quantplan surgery search` as a person runs it: on the bundled model, killed and run again."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantplan.cli.surgery import search_options
from quantplan.cli.surgery.search_options import CandidateOptions
from quantplan.errors import BadFile, BadUsage
from quantplan.gguf.reader import read_model
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.search.evaluators import CandidateEvaluator
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS

ROOT = Path(__file__).parents[2]
RECORD = Path("reports/prose-10m-f16.surgery.json")
SHORT = ("--ctx", "64", "--chunks", "3", "--threads", "1", "--top", "2")
FAMILIES = ("--family", "delete", "--family", "repeat:4/2")


@pytest.fixture(scope="session")
def texts(tmp_path_factory, calibration_text):
    """A text to search on and an evaluation text."""
    folder = tmp_path_factory.mktemp("search-texts")
    whole = calibration_text.read_text(encoding="utf-8")
    (folder / "search.txt").write_text(whole[:3000], encoding="utf-8")
    (folder / "judge.txt").write_text(whole[50_000:53_000], encoding="utf-8")
    return folder / "search.txt", folder / "judge.txt"


@pytest.fixture
def words(reference_model, texts):
    """The command line but for families."""
    return ["surgery", "search", reference_model, "--calibration", texts[0], "--text", texts[1], *SHORT]


@pytest.fixture(scope="session")
def whole(reference_model, texts, tmp_path_factory):
    """The record of an uninterrupted search of two phases, with a cache of its own."""
    folder = tmp_path_factory.mktemp("whole-search")
    line = ["surgery", "search", reference_model, "--calibration", texts[0], "--text", texts[1], *SHORT, *TWO_PHASES]
    assert apart(line, folder).returncode == 0
    return (folder / RECORD).read_bytes()


TWO_PHASES = (*FAMILIES, "--phases", "2", "--keep", "2", "--breadth", "2")


def apart(line, folder, before=""):
    """The command in a process and a folder of its own, ``before`` run in it first."""
    script = f"import sys\n{before}\nfrom quantplan.cli.main import main\nsys.exit(main())"
    command = [sys.executable, "-c", script, *map(str, line)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def killed_at(reading, how="SIGKILL"):
    """Code that ends the process when it is about to make its so-and-so-manieth reading."""
    return (
        "import os, signal\nfrom quantplan.surgery.search.evaluators import CandidateEvaluator\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs start with it ignored
        "real, count = CandidateEvaluator.evaluate, []\n"
        "def read(self, made):\n    count.append(made)\n"
        f"    if len(count) == {reading}:\n        os.kill(os.getpid(), signal.{how})\n"
        "    return real(self, made)\nCandidateEvaluator.evaluate = read\n"
    )


def test_a_search_says_and_writes_what_it_found(command, workplace, words):
    done = command(*words, *FAMILIES, "--out", "champion.gguf")
    assert done.code == 0
    board = LEADERBOARDS.read(workplace / RECORD)
    best = board.standings[0]
    assert "phase 1 ..." in done.err and f"best so far {best.edits}: perplexity" in done.err
    assert best.edits in done.out and "(the original)" in done.out and "On the evaluation text" in done.out
    assert f"written: champion.gguf ({best.edits})" in done.err
    champion = read_model(workplace / "champion.gguf")
    assert champion.blocks == len(best.layer_map)
    assert json.loads((workplace / "champion.layers.json").read_text())["edits"] == best.edits

    again = command(*words, *FAMILIES, "--json")
    figures = json.loads(again.out)
    assert figures["standings"][0]["edits"] == best.edits and len(figures["judgement"]["standings"]) == 2
    assert figures["verdict"] and "models read" not in again.err
    assert LEADERBOARDS.read(workplace / RECORD) == board


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_after_kill_9_the_same_command_ends_with_the_same_leaderboard(tmp_path, reference_model, texts, whole):
    line = ["surgery", "search", reference_model, "--calibration", texts[0], "--text", texts[1], *SHORT, *TWO_PHASES]
    for reading in (2, 8, 9):
        assert apart(line, tmp_path, killed_at(reading)).returncode == -signal.SIGKILL
    board = LEADERBOARDS.read(tmp_path / RECORD)
    assert len(board.standings) == 1 + 7 + 8 - 1 and board.judgement is None  # the original is read first
    (journal,) = tmp_path.rglob("surgery-*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])  # as if the disk had not got all of it
    done = apart(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RECORD).read_bytes() == whole
    assert not list(tmp_path.rglob("hosts/*"))


@pytest.mark.llamacpp
def test_ctrl_c_keeps_what_is_done(tmp_path, reference_model, texts, whole):
    line = ["surgery", "search", reference_model, "--calibration", texts[0], "--text", texts[1], *SHORT, *TWO_PHASES]
    ended = apart(line, tmp_path, killed_at(6, "SIGINT"))
    assert ended.returncode == 130 and "the same command resumes" in ended.stderr and "Traceback" not in ended.stderr
    assert len(LEADERBOARDS.read(tmp_path / RECORD).standings) == 4
    assert apart(line, tmp_path).returncode == 0
    assert (tmp_path / RECORD).read_bytes() == whole


@pytest.mark.llamacpp
def test_several_processes_end_with_the_same_leaderboard(tmp_path, reference_model, texts, whole):
    line = ["surgery", "search", reference_model, "--calibration", texts[0], "--text", texts[1], *SHORT, *TWO_PHASES]
    done = apart([*line, "--jobs", "2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RECORD).read_bytes() == whole


def test_budgets_say_what_they_left_out(command, workplace, words):
    few = command(*words, *FAMILIES, "--max-candidates", "3")
    assert "--max-candidates 3 is reached: 11 candidates were left out" in few.err
    assert len(LEADERBOARDS.read(workplace / RECORD).standings) == 3
    short = command(*words, *FAMILIES, "--max-time", "0.001s", "--record", "short.json")
    assert "--max-time of 0.001 seconds is over" in short.err
    assert 0 < len(LEADERBOARDS.read(workplace / "short.json").standings) < 14


def test_candidates_given_by_their_edits(command, workplace, words):
    (workplace / "mine.txt").write_text("# two of mine\ndelete 4; swap 5 6\n\nrepeat 2-3  # the last\n")
    done = command(*words, "--edits", "delete 4", "--edits-file", "mine.txt", "--by", "kld")
    assert done.code == 0
    board = LEADERBOARDS.read(workplace / RECORD)
    assert {each.edits for each in board.standings} == {"delete 4", "delete 4; swap 5 6", "repeat 2-3"}
    assert board.by == "kld" and board.standings[0].edits == "delete 4"


def test_a_suite_ranks_too(command, workplace, words):
    (workplace / "suite.yaml").write_text(SUITE, encoding="utf-8")
    done = command(*words, "--edits", "delete 0", "--edits", "swap 6 7", "--by", "score", "--suite", "suite.yaml")
    assert done.code == 0, done.err
    board = LEADERBOARDS.read(workplace / RECORD)
    assert board.by == "score" and board.suite == "small"
    for each in (board.original, *board.standings):
        assert 0 <= each.score.value <= 100 and set(each.scores) == {"facts", "text"}
    assert [each.edits for each in board.standings] == ["swap 6 7", "delete 0"]  # without its first layer it is a wreck
    assert board.original.scores["text"] == 1
    assert "Score" in done.out and "directional, not definitive" in done.out
    dry = command(*words, "--edits", "delete 0", "--by", "score", "--suite", "suite.yaml", "--dry-run")
    assert "suite       small: 2 items a candidate" in dry.out


SUITE = """\
format: quantplan-suite
version: 1
name: small
parts:
  - name: facts
    kind: facts
    weight: 1
    max_tokens: 4
    items:
      - {name: gold, question: "What is the chemical symbol of gold?", accept: [Au]}
      - {name: leap, question: "How many days does a leap year have?", accept: ["366"]}
  - {name: text, kind: perplexity, weight: 9}
"""


def test_a_dry_run_reads_nothing(command, workplace, words, monkeypatch):
    monkeypatch.setattr(CandidateEvaluator, "__init__", lambda *_: pytest.fail("a model was loaded"))
    done = command(*words, *FAMILIES, "--family", "swap:1", "--phases", "3", "--dry-run")
    assert done.code == 0
    lines = done.out.splitlines()
    assert "candidates  delete:1: 10" in lines and "candidates  swap:1: 9" in lines
    assert "candidates  repeat:4/2,2: 4" in lines and "candidates  repeat, pass 2: at most 7" in lines
    assert "candidates  phase 3: at most 24" in lines
    assert any(line.startswith("hosts       3 in the first phase; files of ") for line in lines)
    assert not list(workplace.iterdir())
    figures = json.loads(command(*words, *FAMILIES, "--dry-run", "--json").out)
    assert (figures["candidates"], figures["hosts"], figures["windows"]) == (21, 3, 3)


def test_mistakes_are_answered_in_a_sentence(command, workplace, words, texts, reference_model):
    assert "unknown family 'cut'" in command(*words, "--family", "cut").error
    assert "no layer 12" in command(*words, "--edits", "delete 12").error
    assert "write a duration" in command(*words, "--max-time", "soon").error
    assert "--suite ranks with --by score" in command(*words, "--suite", "default").error
    assert "give --calibration FILE" in command("surgery", "search", reference_model).error
    assert "is read itself, and would be overwritten" in command(*words, "--out", reference_model).error
    short = workplace / "short.txt"
    short.write_text("too short", encoding="utf-8")
    done = command("surgery", "search", reference_model, "--calibration", short, *SHORT)
    assert done.code == 10 and "tokens" in done.error
    assert not (workplace / RECORD).exists()


def test_what_is_given_is_not_overwritten(command, workplace, reference_model, texts):
    for name, source in (("m.gguf", reference_model), ("search.txt", texts[0]), ("judge.txt", texts[1])):
        (workplace / name).write_bytes(source.read_bytes())
    line = ["surgery", "search", "m.gguf", "--calibration", "search.txt", "--text", "judge.txt", *SHORT, *FAMILIES]
    before = {path: path.read_bytes() for path in workplace.iterdir()}
    for option in ("--record", "--out"):
        for name in ("m.gguf", "search.txt", "judge.txt", "."):
            ended = command(*line, option, name)
            assert ended.code == 2 and name in ended.error
    assert {path: path.read_bytes() for path in workplace.iterdir()} == before


def test_the_disk_is_full(command, words, full_disk):
    done = command(*words, "--family", "delete:9")
    assert done.code == 11 and "no space left on the disk" in done.error


def test_no_room_for_the_file_of_a_host(command, workplace, words, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1 << 20))
    done = command(*words, "--family", "swap:1", "--family", "delete:9")
    assert done.code == 11 and "the disk has" in done.error
    board = LEADERBOARDS.read(workplace / RECORD)
    assert {each.family for each in board.standings} == {"swap"}  # what needed no file is kept
    assert not list((workplace / "cache").rglob("*.gguf"))


def test_in_a_project_its_texts_are_taken(command, workplace, reference_model, texts):
    (workplace / "quantplan.toml").write_text(
        f'model = "{reference_model}"\ncalibration = "{texts[0]}"\nheldout = "{texts[1]}"\nctx = 64\n', encoding="utf-8"
    )
    done = command("surgery", "search", "--family", "delete:9", "--chunks", "3", "--threads", "1")
    assert done.code == 0 and "On the evaluation text, 3 chunks of 64 tokens" in done.out
    assert LEADERBOARDS.read(workplace / RECORD).judgement is not None


def test_without_an_evaluation_text_it_warns(command, workplace, reference_model, texts):
    done = command("surgery", "search", reference_model, "--calibration", texts[0], *SHORT, "--family", "delete:5")
    assert done.code == 0 and "no evaluation text: the first of many candidates" in done.err
    assert LEADERBOARDS.read(workplace / RECORD).judgement is None


def test_the_search_text_is_no_evaluation_text(command, words, texts):
    done = command(*words, "--text", texts[0], "--family", "delete:9")
    assert "are also in the calibration text" in done.err


@pytest.mark.llamacpp
@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals on Windows")
def test_at_a_terminal_the_leaderboard_grows_on_stderr(words, workplace):
    import pty

    here, there = pty.openpty()
    line = [sys.executable, "-m", "quantplan.cli.main", *words, "--family", "delete:5"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(workplace / "cache"), "COLUMNS": "120"}
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=there, text=True) as process:
        os.close(there)
        shown = b""
        with suppress(OSError):  # Linux says so where the other end is closed
            while data := os.read(here, 65536):
                shown += data
        out = process.stdout.read()
    os.close(here)
    assert process.returncode == 0 and "On the evaluation text" in out
    text = shown.decode(errors="replace")
    assert "phase 1" in text and "/6" in text and "(the original)" in text
    assert "budget" not in text  # a search under way has left nothing out


# -- options


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("0.5h", 1800), ("2H", 7200)]
)
def test_durations(text, seconds):
    assert search_options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "1m1h", "0s", "-3m"])
def test_no_durations(text):
    with pytest.raises(BadUsage, match="--max-time"):
        search_options.seconds(text)


def test_a_file_of_edits_names_its_line(tmp_path):
    path = tmp_path / "edits.txt"
    path.write_text("delete 4\n# remark\nswop 1 2\n", encoding="utf-8")
    with pytest.raises(BadUsage, match="edits.txt, line 3: .*unknown edit 'swop'"):
        CandidateOptions(edits_file=path).explicit()
    path.write_text("delete 4\n\n# remark\nswap 1 2; delete 3\n", encoding="utf-8")
    assert CandidateOptions(edits=["move 1 after 2"], edits_file=path).explicit() == tuple(
        parse_edits(each) for each in ("move 1 after 2", "delete 4", "swap 1 2; delete 3")
    )
    with pytest.raises(BadFile, match="cannot read the edits"):
        CandidateOptions(edits_file=tmp_path / "none.txt").explicit()
