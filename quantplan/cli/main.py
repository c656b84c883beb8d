"""The `quantplan` command: registers the commands, turns errors into one sentence and an exit code."""

from __future__ import annotations

import inspect
import os
import sys

import typer

from quantplan import __version__
from quantplan.errors import QuantplanError

_EPILOG = (
    "Exit codes: 0 done, 1 other, 2 usage, 3 bad file, 4 wrong model, 5 nothing selected, 6 budget, 7 tool missing, "
)
_EPILOG += (
    "8 tool failed, 9 not as planned, 10 text too short, 11 disk full, 12 conditions differ, 13 workers lost, "
    "130 interrupted."
)


INTERRUPTED = 130  # typer's exit code for Ctrl-C, which it answers without a word


def _application() -> typer.Typer:
    from quantplan.cli import (
        analyze,
        card,
        compare,
        demo,
        diff,
        doctor,
        emit,
        explain,
        frontier,
        imatrix,
        init,
        measure,
        memory,
        probe,
        quantize,
        report,
        run,
        solve,
        speed,
    )
    from quantplan.cli import (
        import_plan as import_,
    )
    from quantplan.cli.surgery import commands as surgery

    app = typer.Typer(
        name="quantplan",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        epilog=_EPILOG,
        help="Find, build and prove the best mixed quantization of a GGUF model for a given size.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command("demo")(demo.demo)
    app.command("init")(init.init)
    app.command("doctor")(doctor.doctor)
    app.command("imatrix")(imatrix.imatrix)
    app.command("analyze")(analyze.analyze)
    app.command("probe")(probe.probe)
    app.command("solve")(solve.solve)
    app.command("frontier")(frontier.frontier)
    app.command("explain")(explain.explain)
    app.command("diff")(diff.diff)
    app.command("emit")(emit.emit)
    app.command("import")(import_.import_plan)
    app.command("quantize")(quantize.quantize)
    app.command("measure")(measure.measure)
    app.command("compare")(compare.compare)
    app.command("run")(run.run)
    app.command("card")(card.card)
    app.command("report")(report.report)
    app.command("memory")(memory.memory)
    app.command("speed")(speed.speed)
    app.add_typer(surgery.application())
    app.callback()(_global)
    for each in (app, *(group.typer_instance for group in app.registered_groups)):
        for command in each.registered_commands if each else ():
            command.help = _unfolded(inspect.getdoc(command.callback) or "")
    return app


def _unfolded(text: str) -> str:
    """Each paragraph in one line: terminals fold it to their own width. One that begins with a \\b keeps its lines."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if each.startswith("\b") else " ".join(each.split()) for each in paragraphs)


def _version(wanted: bool) -> None:
    if wanted:
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
    try:
        _application()(prog_name="quantplan")
    except QuantplanError as error:
        if os.environ.get("QUANTPLAN_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            print("interrupted; what was finished is kept, the same command goes on from there", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
