"""`quantplan doctor`: what is installed, what is missing, and the command that fixes it."""

import typer
from rich.table import Table

from quantplan.cli import console
from quantplan.cli.framework import command, json_option
from quantplan.errors import ToolMissing
from quantplan.llamacpp.doctor import doctor_checks

_SIGNS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "missing": "[red]missing[/]"}


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
        table = Table("", "what", "found", box=None)
        for check in checks:
            table.add_row(_SIGNS[check.state], check.what, check.detail)
        console.put_table(table)
        for check in checks:
            if check.mend:
                console.say(f"{check.what}: {check.mend}")
    if any(check.state == "missing" for check in checks):
        raise typer.Exit(ToolMissing.exit_code)
