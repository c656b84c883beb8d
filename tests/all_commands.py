"""Every command of the program by what is typed for it; those of a group by both words."""

from quantplan.cli.commands import Stub
from quantplan.cli.main import application


def all_commands():
    """``solve``, ``surgery search`` ... -> the command, its module imported; hidden ones left out."""
    return dict(_commands_of(application(), ""))


def _commands_of(group, before):
    for name, command in group.commands.items():
        if isinstance(command, Stub):
            if not command.hidden:
                yield before + name, command.load()
        else:
            yield from _commands_of(command, f"{before}{name} ")
