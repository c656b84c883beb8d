"""Commands as typer shows and runs them: values and old names looked up, modules imported when they are called."""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from quantplan.cli import config, inputs, old_names
from quantplan.cli.framework import OUTPUT
from quantplan.errors import BadUsage, QuantplanError

HELP_NAMES = ("-h", "--help")
_VALUE_NAMES = {int: "N", float: "NUMBER", Path: "FILE"}


class Unforeseen(Exception):
    """An error that typer must not see, as ``args[0]``."""


class Command(TyperCommand):
    """A command that takes old names of options, and what is not typed from the environment or quantplan.toml."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        args = old_names.translated(_name_of(ctx), names, args)
        if not set(args) & set(HELP_NAMES):
            ctx.default_map = config.defaults(self)
            self._check_single(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            origin = config.origin(ctx, error.param.name if error.param else None)
            if origin is not None:
                error.message = f"{error.message} (from {origin})"
            raise

    def _check_single(self, ctx: Any, args: list[str]) -> None:
        """BadUsage for an option that takes one value and is typed twice: typer would drop the first without a word."""
        _, _, typed = self.make_parser(ctx).parse_args(args=list(args))
        times = Counter(option for option in typed if getattr(option, "is_flag", True) is False and not option.multiple)
        for option, count in times.items():
            if count > 1:
                raise BadUsage(f"{option.opts[0]} takes one value and is given {count} times; leave all but one out")

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("show_config"):
            return config.show(ctx)
        inputs.check_kept(ctx.params, ctx.command.params)
        try:
            return super().invoke(ctx)
        except QuantplanError as error:
            _raise_with_origin(ctx, error)
        except BrokenPipeError as error:  # of a pipe other than stdout, which typer would take for that and say nothing
            raise Unforeseen(error) from error

    def get_help_option(self, ctx: Any) -> Any:
        option = _without_value(super().get_help_option(ctx))
        if option is not None:
            option.rich_help_panel = (
                OUTPUT if any(parameter.name == "show_config" for parameter in self.params) else None
            )
        return option


def _without_value(option: Any) -> Any:
    """--help, shown as the flag that it is."""
    if option is not None:
        option.metavar = ""
    return option


def _name_of(ctx: typer.Context) -> str:
    """``solve``, ``surgery search``."""
    return ctx.command_path.partition(" ")[2] or str(ctx.info_name)


def _raise_with_origin(ctx: typer.Context, error: QuantplanError) -> NoReturn:
    """The error, with the place of the value that it names where nobody typed that."""
    for name, value in ctx.params.items():
        origin = config.origin(ctx, name)
        words = value if isinstance(value, (list, tuple)) else [value]
        if origin is not None and any(_names(str(error), name, word) for word in words):
            error.args = (f"{error} (from {origin})", *error.args[1:])
            break
    raise error


def _names(message: str, option: str, value: object) -> bool:
    """Whether a message is about the value of an option: a number may stand there for anything, unless the option does, too."""
    if isinstance(value, (int, float)) and f"--{option.replace('_', '-')}" not in message:
        return False
    return bool(str(value)) and re.search(rf"(?<![\w.]){re.escape(str(value))}(?!\w)", message) is not None


@dataclass(frozen=True)
class Entry:
    """A command as the overview shows it; ``target``: module:function, by default quantplan.cli.NAME:NAME."""

    name: str
    help: str
    target: str = ""
    hidden: bool = False

    def load(self) -> Command:
        """The command, its module imported."""
        module, _, function = (self.target or f"quantplan.cli.{self.name}:{self.name}").partition(":")
        return built(self.name, getattr(import_module(module), function))


def built(name: str, function: Callable[..., Any]) -> Command:
    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": list(HELP_NAMES)}
    )
    app.command(name, cls=Command, help=_unfolded(inspect.getdoc(function) or ""))(function)
    return _with_value_names(typer.main.get_command(app))


def _with_value_names(made: Any) -> Any:
    """Help names values as manuals do (N, FILE, TEXT; none for a flag), where typer would show Python's types."""
    for parameter in made.params:
        described = parameter.type_descriptor
        if parameter.param_type_name == "argument":
            parameter.metavar = parameter.metavar or str(parameter.name).upper()
            parameter.display_type_rich = lambda ctx: None
        elif parameter.metavar is None and not described.is_choice:
            annotation = next(iter(get_args(described.annotation)), described.annotation)
            parameter.metavar = "" if parameter.is_flag else _VALUE_NAMES.get(annotation, "TEXT")
    return made


def _unfolded(text: str) -> str:
    """Each paragraph in one line: terminals fold it to their own width. One that begins with a \\b keeps its lines."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(part if part.startswith("\b") else " ".join(part.split()) for part in paragraphs)


class Stub(TyperCommand):
    """Stands for a command in overviews and completion, without its module."""

    def __init__(self, entry: Entry, panel: str) -> None:
        super().__init__(entry.name, help=entry.help, hidden=entry.hidden, rich_help_panel=panel)
        self.load = entry.load


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are called or asked for their help."""

    def get_help_option(self, ctx: Any) -> Any:
        return _without_value(super().get_help_option(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, chosen, rest = super().resolve_command(ctx, args)
        return name, chosen.load() if isinstance(chosen, Stub) else chosen, rest


def group(callback: Callable[..., Any], panels: dict[str, tuple[Entry, ...]], **settings: Any) -> LazyGroup:
    """``panels``: title -> commands, in the order of the overview. ``settings`` are typer's."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": list(HELP_NAMES)},
        **settings,
    )
    app.callback()(callback)
    made = _with_value_names(typer.main.get_command(app))
    assert isinstance(made, LazyGroup)
    for panel, entries in panels.items():
        for entry in entries:
            made.add_command(Stub(entry, panel))
    return made
