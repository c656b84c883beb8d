"""The `quantplan` command: the overview of all commands, and errors as a sentence and an exit code."""

import errno
import os
import platform
import shlex
import sys
import traceback
from datetime import datetime
from pathlib import Path

import typer

from quantplan import __version__
from quantplan.cli import steps, streams
from quantplan.cli.commands import Entry, LazyGroup, Unforeseen, group
from quantplan.cli.surgery.commands import surgery
from quantplan.errors import NoSpace, QuantplanError, ToolFailed
from quantplan.llamacpp import libraries

PANELS = {
    "Start": (
        Entry("demo", "The whole pipeline on a bundled model, in minutes"),
        Entry("init", "Make a project folder for a model"),
        Entry("run", "The main job: the best file of each size, with proof"),
        Entry("doctor", "Check the installation"),
    ),
    "Plan": (
        Entry("imatrix", "Make an importance matrix with llama-imatrix"),
        Entry("analyze", "Statistics of an importance matrix"),
        Entry("probe", "Measure the KLD that each tensor costs"),
        Entry("solve", "Choose a type for every tensor within a budget"),
        Entry("frontier", "The best plan of every size"),
    ),
    "Build and prove": (
        Entry("quantize", "Build a plan or a stock quant, and check the file"),
        Entry("requantize", "Any quant again, same types and bytes, with less loss"),
        Entry("measure", "PPL, KLD, tasks and speed of files"),
        Entry("compare", "A plan against stock quants or other files"),
        Entry("score", "Answers to short tasks, out of 100"),
    ),
    "Inspect": (
        Entry("explain", "Why a plan stores a tensor as it does"),
        Entry("diff", "Two plans or GGUFs, tensor by tensor"),
        Entry("memory", "VRAM and RAM that a model takes"),
        Entry("speed", "This machine's speed by type; tokens per second"),
    ),
    "Share": (
        Entry("emit", "A plan as rules for llama-quantize and other tools"),
        Entry("import", "Rules, recipes or a GGUF as a plan", "quantplan.cli.import_plan:import_plan"),
        Entry("card", "A model card for Hugging Face"),
        Entry("report", "One HTML page with every plan of a model"),
    ),
}
EXIT_CODES = (
    "Exit codes: 0 done, 1 other, 2 usage, 3 bad file, 4 wrong model, 5 nothing selected, 6 budget, 7 tool missing, "
    "8 tool failed, 9 not as planned, 10 text too short, 11 disk full, 12 conditions differ, 13 workers lost, "
    "14 in use, 130 interrupted."
)
INTERRUPTED = 130  # typer's exit code for Ctrl-C, which it answers without a word
_INTERRUPTED = "interrupted; finished steps are kept, the same command resumes"


def application() -> LazyGroup:
    app = group(
        _global,
        PANELS,
        name="quantplan",
        epilog=EXIT_CODES,
        help="Find, build and prove the best GGUF of a given size: a quantization type for every tensor, for llama.cpp.",
    )
    made = surgery()
    made.rich_help_panel = "Layer surgery"
    app.add_command(made)
    return app


def _version(asked: bool) -> None:
    if asked:
        print(f"quantplan {__version__}")
        raise typer.Exit


def _global(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of errors too."),
) -> None:
    if debug:
        os.environ["QUANTPLAN_DEBUG"] = "1"


def main() -> None:
    """Entry point of the console script."""
    streams.take_any_text()
    steps.end_with_parent()
    libraries.on_abort(_broke_off)
    try:
        application()(prog_name="quantplan")
    except QuantplanError as error:
        if os.environ.get("QUANTPLAN_DEBUG"):
            raise
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            _say(_INTERRUPTED)
        _flush()
        raise
    except KeyboardInterrupt:
        _say(_INTERRUPTED)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get("QUANTPLAN_DEBUG"):
            raise
        sys.exit(_unforeseen(error.args[0] if isinstance(error, Unforeseen) else error))


def _say(text: str) -> None:
    print(streams.visible(text), file=sys.stderr, flush=True)


def _broke_off(words: str) -> None:
    """Ends the process, as ggml is about to after its last words, but with a sentence."""
    _say(f"error: llama.cpp broke off: {words}; is the model damaged? Finished steps are kept")
    os._exit(ToolFailed.exit_code)


def _flush() -> None:
    """What is left for stdout, which may be a file on a full disk, or a pipe whose reader has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        streams.reader_gone(sys.stdout)
    except OSError as error:
        streams.discard(sys.stdout)
        sys.exit(_unforeseen(error))


def _unforeseen(error: Exception) -> int:
    """Says what happened, where its log is and what to do; the exit code."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" for {error.filename}" if error.filename else ""
        _say(f"error: no space left on the disk{place}; free some, finished steps are kept")
        return NoSpace.exit_code
    reason = next(iter(str(error).splitlines()), "") or ("memory ran out" if isinstance(error, MemoryError) else "")
    _say(f"error: unexpected {type(error).__name__}{reason and ': '}{reason}")
    _say(f"the log with the traceback is in {_logged(error)}")
    _say(f"{_advice(error)}; --debug shows the traceback")
    return QuantplanError.exit_code


def _advice(error: Exception) -> str:
    bug = "please report it to the authors of quantplan with that log"
    if isinstance(error, MemoryError):
        return "close other programs, or ask for less at once: fewer --jobs, a smaller --ctx, fewer chunks"
    if isinstance(error, OSError):
        return f"look at the file, its disk and its permissions; if they are in order this is a bug: {bug}"
    return f"this is a bug: {bug}"


def _logged(error: Exception) -> Path | str:
    """The file with traceback, versions and command line; in words where it cannot be written."""
    import platformdirs

    now = datetime.now().astimezone()
    path = Path(platformdirs.user_log_dir("quantplan")) / f"error-{now:%Y%m%d-%H%M%S}-{os.getpid()}.log"
    versions = f"quantplan {__version__}, Python {platform.python_version()}, {platform.platform()}"
    lines = [
        f"{now.isoformat(timespec='seconds')}  {versions}",
        shlex.join(["quantplan", *sys.argv[1:]]),
        *traceback.format_exception(error),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError as reason:
        return f"no file ({reason}); --debug shows it"
    return path


if __name__ == "__main__":
    main()
