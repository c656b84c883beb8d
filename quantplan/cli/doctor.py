"""`quantplan doctor`: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from quantplan.cli import console, options


def doctor(as_json: options.JsonOption = False) -> None:
    """Check the installation: llama.cpp's libraries and tools, their build, known bad builds, and what mends them.

    Ends with exit code 7 where something that quantplan needs is missing.

    Example: quantplan doctor
    """
    import typer

    from quantplan.llamacpp.doctor import doctor_checks

    report_data = doctor_checks()
    if as_json:
        console.put_json([{"what": f.what, "state": f.state, "detail": f.detail, "mend": f.mend} for f in report_data])
    else:
        _print(report_data)
    if any(finding.state == "missing" for finding in report_data):
        raise typer.Exit(7)


def _print(report_data: list) -> None:
    from rich.table import Table

    table = Table(box=None)
    for heading in ("", "what", "found"):
        table.add_column(heading)
    signs = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "missing": "[red]missing[/]"}
    for finding in report_data:
        table.add_row(signs[finding.state], finding.what, finding.detail)
    console.put_table(table)
    for finding in report_data:
        if finding.mend:
            console.say(f"{finding.what}: {finding.mend}")
