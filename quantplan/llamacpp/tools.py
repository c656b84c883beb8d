"""Finding and running llama.cpp's command line tools: one way to start them, one way to fail."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from io import BufferedReader
from pathlib import Path

from quantplan.errors import ToolFailed, ToolMissing
from quantplan.llamacpp.libraries import INSTALL_HINT
from quantplan.progress import SILENT, Reporter

REQUIRED = ("llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench", "llama-gguf-split")
_LIBRARY_VARIABLE = {"darwin": "DYLD_LIBRARY_PATH", "win32": "PATH"}.get(sys.platform, "LD_LIBRARY_PATH")
_TAIL_LINES = 8
_TROUBLE = re.compile(
    r"\b(?:error|fail(?:ed|ure)?|invalid|duplicate|cannot|can't|unable|missing|wrong|unknown|unsupported|not found|"
    r"no such|out of memory|terminate called|assert\w*)\b|GGML_ASSERT",
    re.IGNORECASE,
)
_NEWER = "unknown model architecture"
_LISTED = re.compile(
    r"\s*(?:\d[\d.]* \w )?(?:llama_model_loader: - |print_info: |load: |load_tensors: )"
)  # what a model has
_PREFIX = re.compile(r"^(?:\d[\d.]* \w )?(?:\w+: (?:failed to quantize: |error loading model: )?)*")  # time, functions


def bin_folder() -> Path:
    """Where llama-cpp-python puts the tools; QUANTPLAN_TOOLS names another llama.cpp's bin folder."""
    chosen = os.environ.get("QUANTPLAN_TOOLS")
    return Path(chosen) if chosen else Path(sysconfig.get_path("platlib")) / "bin"


def find(tool: str) -> Path:
    """The tool's executable; ToolMissing with the command that installs it."""
    path = shutil.which(tool, path=str(bin_folder()))
    if path is None:
        raise ToolMissing(
            f"{tool} is not in {bin_folder()}: llama-cpp-python was built without llama.cpp's tools. Run: {INSTALL_HINT} "
            "(or set QUANTPLAN_TOOLS to the bin folder of a llama.cpp build)"
        )
    return Path(path)


def environment() -> dict[str, str]:
    """The process environment with the tools' libraries on the search path: the binaries do not find them alone."""
    libraries = [str(bin_folder().parent / "lib"), str(bin_folder())]
    earlier = os.environ.get(_LIBRARY_VARIABLE)
    return os.environ | {_LIBRARY_VARIABLE: os.pathsep.join(libraries + ([earlier] if earlier else []))}


@dataclass(frozen=True)
class Finished:
    """A tool's run: exit code and its two streams joined in the order they came."""

    command: str
    code: int
    log: str


def command_line(argv: Iterable[str | Path], cwd: Path | None = None) -> str:
    """The command as a person would paste it into a shell."""
    line = shlex.join(str(word) for word in argv)
    return f"(cd {shlex.quote(str(cwd))} && {line})" if cwd else line


def run(
    argv: list[str],
    *,
    cwd: Path | None = None,
    report: Reporter = SILENT,
    on_text: Callable[[str], None] | None = None,
    check: bool = True,
) -> Finished:
    """Runs argv[0] (a tool's name) and waits. ``on_text`` gets output as it comes; Ctrl-C ends the tool too.

    Raises ToolMissing, and ToolFailed with the end of the log where the tool fails and ``check`` holds.
    """
    executable = find(argv[0])
    shown = command_line(argv, cwd)
    report.say(f"+ {shown}")
    finished = run_program([str(executable), *argv[1:]], shown, environment(), cwd=cwd, on_text=on_text)
    if check and finished.code != 0:
        raise failure(finished)
    return finished


def run_program(
    argv: list[str],
    shown: str,
    environment: dict[str, str],
    *,
    cwd: Path | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Finished:
    """Runs a program by its path and waits; ``shown``: the command for people. An exception, such as Ctrl-C, ends it too."""
    pieces: list[str] = []
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert isinstance(process.stdout, BufferedReader)
        try:
            while piece := process.stdout.read1(65536):
                pieces.append(piece.decode("utf-8", "replace"))
                if on_text:
                    on_text(pieces[-1])
        except BaseException:
            process.kill()
            raise
    return Finished(shown, process.returncode, "".join(pieces))


def first_reason(lines: Iterable[str]) -> str | None:
    """What went wrong first, by llama.cpp's log: what follows are consequences. None where no line says so."""
    said = next((line for line in lines if _TROUBLE.search(line) and not _LISTED.match(line)), None)
    if said is None:
        return None
    newer = "; this llama.cpp does not know it yet: update llama-cpp-python" if _NEWER in said else ""
    return _PREFIX.sub("", said.strip()) + newer


def failure(finished: Finished, what: str = "") -> ToolFailed:
    """The error for a run that went wrong, with the first reason in its log, and the last lines that the tool said."""
    tail = "\n  ".join([line for line in finished.log.splitlines() if line.strip()][-_TAIL_LINES:])
    tool = (
        Path(shlex.split(finished.command.lstrip("("))[0]).name
        if not finished.command.startswith("(cd")
        else "the tool"
    )
    said = first_reason(finished.log.splitlines())
    reason = (what or f"ended with exit code {finished.code}") + (f": {said}" if said and not what else "")
    return ToolFailed(f"{tool} {reason}\n  command: {finished.command}\n  it said:\n  {tail}")


@cache
def build() -> str:
    """Version line of the installed llama.cpp: ``0.5.0 (build 1, commit 0c1e570)``."""
    log = run(["llama-imatrix", "--version"]).log
    match = re.search(r"version:\s*(.+)", log)
    if not match:
        raise ToolFailed(f"llama-imatrix --version said nothing readable: {log.strip()[:200]!r}")
    return match.group(1).strip()
