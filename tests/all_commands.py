"""Every command of the program by what is typed for it; those of a group by both words."""

import typer

from quantplan.cli.main import _application


def all_commands():
    found = {}
    for name, command in typer.main.get_command(_application()).commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {own}": each for own, each in inner.items()}
    return found
