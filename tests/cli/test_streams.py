"""What is printed is what things are called, wherever it is printed to."""

import io
import os
import subprocess
import sys

import pytest

from quantplan.cli import console, streams
from quantplan.report.table import Table

NAME = "prose [i1-Q4_K_M] [/x] :smile: [link=a]b[/link].gguf"


@pytest.fixture
def stdout(monkeypatch):
    """``stdout("ascii")`` -> a function that says which bytes were written to a stdout of that encoding."""

    def made(encoding):
        raw = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
        streams.take_any_text()
        return raw.getvalue

    return made


def test_tables_are_no_markup(stdout):
    written = stdout("utf-8")
    console.put_table(
        Table(f"title {NAME}", (f"head {NAME}", "b"), ((f"cell {NAME}", f"2 {NAME}"),), (f"note {NAME}",))
    )
    text = written().decode()
    for place in ("title", "head", "cell", "2", "note"):
        assert f"{place} {NAME}" in text


def test_a_name_keeps_its_row(stdout):
    written = stdout("utf-8")
    console.put_table(Table("", ("file", "b"), (("a\nb\x1b[31m\r.gguf", "1"),)))
    assert r"a\nb\x1b[31m\r.gguf  1" in written().decode()


def test_nothing_that_is_printed_steers_the_terminal(stdout, capsys):
    written = stdout("utf-8")
    console.put("a\x1b[31m\x07b\r\x9b2J\u202e\tc\nd")
    console.put_json({"name": "a\x1b[31m\u202e"})
    console.warn("e\x1b]0;title\x07")
    assert written() == b'a\\x1b[31m\\x07b\\r\\x9b2J\\u202e\tc\nd\n{\n "name": "a\\u001b[31m\\u202e"\n}\n'
    assert capsys.readouterr().err == "warning: e\\x1b]0;title\\x07\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "1 ± 2 Δ Σ ² ≈ – \u0416".encode()),
        ("ascii", b"1 +- 2 d sum ^2 ~ - \\u0416"),
        ("cp1252", b"1 \xb1 2 d sum \xb2 ~ \x96 \\u0416"),
        ("latin-1", b"1 \xb1 2 d sum \xb2 ~ - \\u0416"),
    ],
)
def test_any_console(stdout, encoding, shown):
    written = stdout(encoding)
    text = "1 ± 2 Δ Σ ² ≈ – \u0416"
    console.put(text)
    console.put_table(Table("t", ("a", "b"), ((text, "x"), ("y" * len(shown), "x"))))
    lines = written().splitlines()
    assert lines[0] == shown and any(shown in line for line in lines[1:])
    assert len({len(line.decode(encoding)) for line in lines[2:]}) == 1  # the columns are in line


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_names_are_bytes(stdout, encoding):
    written = stdout(encoding)
    name = os.fsdecode(b"caf\xe9\xff.gguf")
    console.put(name)
    console.put_table(Table(name, ("file", "b"), ((name, "1"),)))
    assert written().count(b"caf\xe9\xff.gguf") == 3


@pytest.mark.llamacpp
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_commands_take_such_files(reference_model, tmp_path, encoding):
    """From the header to a project, a plan, and a picture with the name in its title."""
    name = b"caf\xe9 [i1-Q4_K_M]\xff.gguf"
    os.link(reference_model, os.fsencode(tmp_path) + b"/" + name)
    code = (
        "import sys; from quantplan.cli import config; from quantplan.cli.main import main\n"
        "name = sys.argv[1]\n"
        "for words in (['init', name], ['diff', name, name], ['solve', '--sensitivity', 'prior', '--budget', '5bpw'],\n"
        "              ['frontier', '--sensitivity', 'prior', '--points', '2', '--plot', 'f.png'], ['solve', '--show-config']):\n"
        "    sys.argv = ['quantplan', *words]; config.project.cache_clear()\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code, (words, ended.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert name.removesuffix(b".gguf") in done.stdout and b"Traceback" not in done.stderr
    assert name in (tmp_path / "quantplan.toml").read_bytes()
    assert len(list((tmp_path / "plans").iterdir())) == 1
