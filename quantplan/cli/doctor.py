"""`quantplan doctor`: what is installed, what is missing, and the command that fixes it."""

import typer

from quantplan.cli import console
from quantplan.cli.framework import command, json_option
from quantplan.errors import ToolMissing
from quantplan.llamacpp.doctor import doctor_checks
from quantplan.report.table import Table


@command
def doctor(as_json: bool = json_option()) -> None:
    """Check the installation: llama.cpp's libraries and tools, their build, known bad builds, and what fixes them.

    Ends with exit code 7 where something that quantplan needs is missing.

    Example: quantplan doctor
    """
    checks = doctor_checks()
    if as_json:
        console.put_json(
            [{"what": check.what, "state": check.state, "detail": check.detail, "mend": check.mend} for check in checks]
        )
    else:
        rows = tuple((check.state, check.what, check.detail) for check in checks)
        console.put_table(Table("", ("", "what", "found"), rows, texts=(0, 1, 2)))
        for check in checks:
            if check.mend:
                console.say(f"{check.what}: {check.mend}")
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(ToolMissing.exit_code)
