"""What turns functions into commands: option groups expanded into signatures, commands imported when they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from quantplan.cli import config, old_names
from quantplan.errors import QuantplanError

OUTPUT = "Output"
HELP_NAMES = ("-h", "--help")
Function = TypeVar("Function", bound=Callable[..., Any])
_ShowConfig = Annotated[
    bool, typer.Option("--show-config", rich_help_panel=OUTPUT, help="Print each value and where it comes from; stop.")
]

JsonOption = Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print JSON on stdout.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Print what would be done, with sizes, and stop.")
]
ForceOption = Annotated[bool, typer.Option("--force", rich_help_panel=OUTPUT, help="Overwrite what exists.")]


def out_option(help: str) -> OptionInfo:
    return typer.Option("--out", "-o", rich_help_panel=OUTPUT, help=help)


@dataclass(frozen=True)
class OutputOptions:
    dry_run: DryRunOption = False
    as_json: JsonOption = False


@dataclass(frozen=True)
class Commas:
    """In ``Annotated``: a repeatable option whose values may also stand with commas between; ``split`` cuts one text."""

    split: Callable[[str], Iterable[str]] = lambda text: filter(None, (word.strip() for word in text.split(",")))

    def values(self, given: Iterable[Any] | None) -> tuple[Any, ...]:
        """All values; paths are split unless one of that very name exists."""
        parts: list[Any] = []
        for value in given or ():
            words = [value] if isinstance(value, Path) and value.exists() else self.split(str(value))
            parts += map(type(value), words)
        return tuple(parts)


def command(function: Function) -> Function:
    """Expands the option groups in a signature: each parameter annotated with a dataclass becomes its fields.

    Typer sees the fields as options, with the environment variable QUANTPLAN_NAME; the function gets the dataclass.
    Values of repeatable options arrive as tuples, cut at commas where ``Commas`` says so.
    """
    signature = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: given.annotation for name, given in signature.items() if is_dataclass(given.annotation)
    }
    parameters = [option for given in signature.values() for option in _options_of(given)]
    commas = {option.name: mark for option in parameters if (mark := _commas_of(option.annotation))}
    if groups:
        flag = inspect.Parameter("show_config", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_ShowConfig)
        parameters.append(flag)

    @wraps(function)
    def call(**values: Any) -> Any:
        values.pop("show_config", None)
        for name, value in values.items():
            if name in commas:
                values[name] = commas[name].values(value)
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return function(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call  # type: ignore[return-value]


def _options_of(given: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The fields of a group; any other parameter as it is, with its environment variable if it has a panel."""
    annotation = given.annotation
    if is_dataclass(annotation):
        yield from _fields_of(annotation)  # type: ignore[arg-type]
        return
    if any(isinstance(mark, OptionInfo) and mark.rich_help_panel for mark in get_args(annotation)):
        annotation = _with_variable(given.name, annotation)
    yield given.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def _commas_of(annotation: Any) -> Commas | None:
    return next((mark for mark in get_args(annotation) if isinstance(mark, Commas)), None)


def _fields_of(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        annotation = _with_variable(field.name, hints[field.name], _panel_of(group, field.name))
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=annotation
        )


def _with_variable(name: str, annotation: Any, panel: str | None = None) -> Any:
    """The annotation of an option with its environment variable; what only concerns the output has none."""
    base, info, *marks = get_args(annotation)
    info = copy(info)
    info.rich_help_panel = info.rich_help_panel or panel
    if info.rich_help_panel != OUTPUT:
        info.envvar, info.show_envvar = config.variable(name), False
    parts = (base, info, *marks)
    return Annotated[parts]


def _panel_of(group: type, name: str) -> str | None:
    """``panel`` of the class that declares the field."""
    declaring = next(cls for cls in group.__mro__ if name in vars(cls).get("__annotations__", {}))
    return vars(declaring).get("panel")


def _default(field: Field) -> Any:
    """None stands for the empty tuple: typer knows no other default of a repeatable option."""
    if field.default is MISSING:
        return inspect.Parameter.empty
    return None if field.default == () else field.default


class Command(TyperCommand):
    """A command that takes old names of options, and what is not typed from the environment or quantplan.toml."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
        args = old_names.translated(_name_of(ctx), names, args)
        if not set(args) & set(HELP_NAMES):
            ctx.default_map = config.defaults(self)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            origin = config.origin(ctx, error.param.name if error.param else None)
            if origin is not None:
                error.message = f"{error.message} (from {origin})"
            raise

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("show_config"):
            return config.show(ctx)
        try:
            return super().invoke(ctx)
        except QuantplanError as error:
            _raise_with_origin(ctx, error)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = (
                OUTPUT if any(parameter.name == "show_config" for parameter in self.params) else None
            )
        return option


def _name_of(ctx: typer.Context) -> str:
    """``solve``, ``surgery search``."""
    return ctx.command_path.partition(" ")[2] or str(ctx.info_name)


def _raise_with_origin(ctx: typer.Context, error: QuantplanError) -> NoReturn:
    """The error, with the place of the value that it names where nobody typed that."""
    for name, value in ctx.params.items():
        origin = config.origin(ctx, name)
        words = value if isinstance(value, (list, tuple)) else [value]
        if origin is not None and any(str(word) and str(word) in str(error) for word in words):
            error.args = (f"{error} (from {origin})", *error.args[1:])
            break
    raise error


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
    return typer.main.get_command(app)  # type: ignore[return-value]


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
    made = typer.main.get_command(app)
    assert isinstance(made, LazyGroup)
    for panel, entries in panels.items():
        for entry in entries:
            made.add_command(Stub(entry, panel))
    return made
