"""The frame: help, exit codes, what is imported, what is printed on Ctrl-C."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from all_commands import all_commands

from quantplan import __version__
from quantplan.cli import main as frame
from quantplan.errors import QuantplanError

ROOT = Path(__file__).parents[2]
HEAVY = (
    "numpy",
    "scipy",
    "pulp",
    "highspy",
    "matplotlib",
    "gguf",
    "llama_cpp",
    "rich.progress",
    "platformdirs",
)
COMMANDS = list(all_commands())


def errors(kind=QuantplanError):
    yield kind
    for each in kind.__subclasses__():
        yield from errors(each)


def in_process(code, **environment):
    """The code in a fresh Python at the repository root."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_all_commands_are_there():
    wanted = {
        "demo",
        "init",
        "doctor",
        "imatrix",
        "analyze",
        "probe",
        "solve",
        "emit",
        "import",
        "quantize",
        "measure",
        "compare",
    }
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_first_sentence_and_an_example(command, name):
    done = command(*name.split(), "--help")
    assert done.code == 0 and done.err == ""
    assert f"Usage: quantplan {name}" in done.out
    words = " ".join(done.out.replace("│", " ").split())
    assert re.search(rf"Example\b.*: .*quantplan {name}\b", words)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_folded_to_the_terminal(name):
    for paragraph in all_commands()[name].help.split("\n\n"):
        assert paragraph.startswith("\b") or "\n" not in paragraph, f"{name}: {paragraph}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    for parameter in all_commands()[name].params:
        assert parameter.param_type_name == "argument" or parameter.help, f"{name} {parameter.name}"


def test_help_lists_the_commands_and_exit_codes(command):
    done = command("--help")
    assert done.code == 0
    for name in COMMANDS:
        assert f" {name.split()[0]} " in done.out
    words = " ".join(done.out.split())
    for code in {each.exit_code for each in errors()}:
        assert f" {code} " in words[words.index("Exit codes") :]


def test_version(command):
    assert command("--version").out == f"quantplan {__version__}\n"


@pytest.mark.parametrize(
    "words, message",
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["solve"], "how large may the file be? give --budget"),
        (["solve", "--budget"], "requires an argument"),
        (["solve", "-b", "5bpw", "--frob"], "No such option: --frob"),
        (["solve", "-b", "5bpw", "--threads", "-3"], "--threads"),
        (["probe", "--ctx", "3"], "--ctx"),
        (["probe", "--ctx", "many"], "--ctx"),
        (["imatrix", "--chunks", "-1"], "--chunks"),
        (["init"], "which model? give MODEL.gguf, hf://"),
    ],
)
def test_usage_errors(command, files, words, message):
    done = command(*words)
    assert done.code == 2 and done.out == ""
    assert message in done.err and "Traceback" not in done.err
    assert files() == []


def test_no_word_at_all_shows_the_help(command):
    done = command()
    assert "Usage: quantplan" in done.out + done.err


@pytest.mark.parametrize("words", [["--help"], ["surgery", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys; from quantplan.cli.main import main\n"
        f"sys.argv = ['quantplan', *{words}]\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        f"print('loaded:', *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    )
    returned, _, err = in_process(code)
    assert returned == 0 and err.strip() == "loaded:"


@pytest.fixture
def bug(monkeypatch, tmp_path):
    """A program that divides by zero; its logs go to a folder of the test."""
    monkeypatch.setattr(frame, "application", lambda: lambda **_: 1 / 0)
    monkeypatch.setattr("platformdirs.user_log_dir", lambda _: str(tmp_path / "logs"))
    monkeypatch.delenv("QUANTPLAN_DEBUG", raising=False)
    return tmp_path


def test_a_bug_ends_in_three_lines_and_a_log(bug, capsys):
    with pytest.raises(SystemExit) as ended:
        frame.main()
    what, where, how = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and what == "error: unexpected ZeroDivisionError: division by zero"
    log = Path(where.rpartition(" ")[2]).read_text(encoding="utf-8")
    assert "Traceback" in log and f"quantplan {__version__}" in log
    assert "report" in how and "--debug" in how


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (MemoryError(), "MemoryError: memory ran out", "ask for less at once"),
        (MemoryError("Unable to allocate 9 TiB"), "MemoryError: Unable to allocate 9 TiB", "ask for less at once"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum", "report it"),
        (
            PermissionError(13, "Permission denied", "/x"),
            "PermissionError: [Errno 13] Permission denied: '/x'",
            "permis",
        ),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error", "its disk and its permissions"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "why"), "UnicodeEncodeError: 'utf-8' codec", "report it"),
        (KeyError("blk.0\nblk.1"), "KeyError: 'blk.0\\nblk.1'", "report it"),
        (BrokenPipeError(32, "Broken pipe"), "BrokenPipeError: [Errno 32] Broken pipe", "permissions"),
    ],
)
def test_errors_that_nobody_foresaw(bug, monkeypatch, capsys, error, first, last):
    """Whatever it is, also inside a command: the kind, the log, the way to see more, and exit code 1."""
    from quantplan.cli import commands

    def fail():
        raise error

    program = commands.built("fail", fail)
    monkeypatch.setattr(frame, "application", lambda: program)
    monkeypatch.setattr(sys, "argv", ["quantplan"])
    with pytest.raises(SystemExit) as ended:
        frame.main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and len(lines) == 3
    assert lines[0].startswith(f"error: unexpected {first}") and last in lines[2] and "--debug" in lines[2]
    assert "Traceback" in Path(lines[1].rpartition(" ")[2]).read_text(encoding="utf-8")


def test_a_full_disk_that_nobody_foresaw(bug, monkeypatch, capsys):
    def fail(**_):
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(frame, "application", lambda: fail)
    with pytest.raises(SystemExit) as ended:
        frame.main()
    assert ended.value.code == 11
    assert capsys.readouterr().err == "error: no space left on the disk for /x; free some, finished steps are kept\n"


def test_a_bug_whose_log_cannot_be_written(bug, capsys):
    (bug / "logs").write_text("in the way")
    with pytest.raises(SystemExit):
        frame.main()
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_debug_shows_the_traceback_of_a_bug(bug, monkeypatch):
    monkeypatch.setenv("QUANTPLAN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        frame.main()


@pytest.mark.parametrize("error", list(errors()), ids=lambda each: each.__name__)
def test_errors_become_a_sentence_and_their_exit_code(monkeypatch, capsys, error):
    def fail(**_):
        raise error("this went wrong; do that")

    monkeypatch.setattr(frame, "application", lambda: fail)
    monkeypatch.delenv("QUANTPLAN_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        frame.main()
    assert ended.value.code == error.exit_code
    assert capsys.readouterr().err == "error: this went wrong; do that\n"


def test_each_error_has_an_exit_code_of_its_own():
    from quantplan import errors as module

    own = [each for each in errors() if each.__module__ == module.__name__ and "exit_code" in vars(each)]
    assert len({each.exit_code for each in own}) == len(own) == 14


def test_debug_shows_the_traceback():
    start = "from quantplan.cli.main import main; import sys; "
    code, _, err = in_process(f"{start} sys.argv = ['q', '--debug', 'init', 'nofile']; main()")
    assert code == 1 and "Traceback" in err and "BadFile: nofile" in err
    code, _, err = in_process(f"{start} sys.argv = ['q', 'init', 'nofile']; main()")
    assert code == 3 and err.startswith("error: nofile: No such file")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("line", ["init --help | true", "doctor --json | head -c 1"])
def test_a_closed_pipe_is_no_traceback(line):
    command = f"{sys.executable} -m quantplan.cli.main {line}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


LOOP = "import sys; from quantplan.cli import console, streams; streams.take_any_text()\n"
LOOP += "for number in range(10**6): console.{}('line %d' % number)"


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(("function", "pipe"), [("put", "|"), ("say", "2>&1 |")])
def test_a_reader_that_has_enough(function, pipe):
    command = f'{sys.executable} -c "$CODE" {pipe} head -1; echo ${{PIPESTATUS[0]}}'
    words = ["bash", "-c", command]
    environment = os.environ | {"CODE": LOOP.format(function)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("line 0\n1\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk():
    command = f"{sys.executable} -m quantplan.cli.main doctor --json > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 11 and done.stderr.startswith("error: no space left on the disk")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.llamacpp
@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_closed_streams():
    command = f"{sys.executable} -m quantplan.cli.main doctor >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=ROOT, check=False).returncode == 0


def test_python_dash_m_is_the_command_line():
    asked = subprocess.run([sys.executable, "-m", "quantplan", "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.split() == ["quantplan", __version__]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_values_not_python_types(command, name):
    shown = command(*name.split(), "--help").out
    assert "list[" not in shown
    assert not re.search("<(bool|int|str|path|float)", shown)


def test_an_assertion_of_ggml_is_one_sentence(tmp_path):
    code = (
        "from quantplan.cli import main\n"
        "from quantplan.llamacpp import libraries\n"
        "def broken(**_): libraries.base().ggml_abort(b'/build/ggml/here.c', 7, b'GGML_ASSERT(a > b) failed')\n"
        "main.application = lambda: broken\n"
        "main.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 8
    assert ended.stderr.startswith(
        "error: llama.cpp broke off: here.c:7: GGML_ASSERT(a > b) failed; is the model damaged?"
    )
    assert len(ended.stderr.splitlines()) == 1
