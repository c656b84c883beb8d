"""What turns functions into commands: option groups expanded into signatures, commands imported when they are called."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from quantplan.cli import config, old_names
from quantplan.errors import BadUsage, QuantplanError

OUTPUT = "Output"
HELP_NAMES = ("-h", "--help")
_VALUE_NAMES = {int: "N", float: "NUMBER", Path: "FILE"}
Function = TypeVar("Function", bound=Callable[..., Any])


def at_commas(text: str) -> Iterable[str]:
    return filter(None, (word.strip() for word in text.split(",")))


def whole(text: str) -> Iterable[str]:
    """For repeatable options whose values contain commas."""
    return (text,)


def option(
    help: str,
    *names: str,
    default: Any = None,
    panel: str | None = None,
    split: Callable[[str], Iterable[str]] = at_commas,
    **settings: Any,
) -> Any:
    """A field of a group, or a parameter of a command, that is an option; repeatable where its type is a tuple.

    It is called like the field; ``names`` are short ones, or one that begins with -- and stands instead. ``split``: cuts
    each value of a repeatable one; ``settings`` are typer's.
    """
    settings |= {"help": help, "rich_help_panel": panel}
    return field(default=default, metadata={"names": names, "split": split, "settings": settings})


def json_option() -> Any:
    return option("Print JSON on stdout.", "--json", default=False, panel=OUTPUT)


def dry_run_option() -> Any:
    return option("Print what would be done, with sizes, and stop.", default=False, panel=OUTPUT)


def force_option() -> Any:
    return option("Overwrite what exists.", default=False, panel=OUTPUT)


def out_option(help: str) -> Any:
    return option(help, "-o", panel=OUTPUT)


@dataclass(frozen=True)
class OutputOptions:
    dry_run: bool = dry_run_option()
    as_json: bool = json_option()


@dataclass(frozen=True)
class _Repeatable:
    """In ``Annotated``: an option that may be given several times."""

    split: Callable[[str], Iterable[str]]

    def values(self, given: Iterable[Any] | None) -> tuple[Any, ...]:
        """All values; paths are split unless one of that very name exists."""
        parts: list[Any] = []
        for value in given or ():
            words = [value] if isinstance(value, Path) and value.exists() else self.split(str(value))
            parts += map(type(value), words)
        return tuple(parts)


def command(function: Function) -> Function:
    """Expands the option groups in a signature: each parameter annotated with a dataclass becomes its fields.

    Typer sees the fields as options, with the environment variable QUANTPLAN_NAME; the function gets the dataclass. A group
    may consist of groups. Values of repeatable options arrive as tuples.
    """
    signature = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: given.annotation for name, given in signature.items() if is_dataclass(given.annotation)
    }
    parameters = [parameter for given in signature.values() for parameter in _expanded(given)]
    marks = ((parameter.name, mark) for parameter in parameters for mark in get_args(parameter.annotation))
    repeatable = {name: mark for name, mark in marks if isinstance(mark, _Repeatable)}
    if groups:
        flag = option("Print each value and where it comes from; stop.", default=False, panel=OUTPUT)
        parameters.append(_parameter("show_config", bool, flag))

    @wraps(function)
    def call(**values: Any) -> Any:
        values.pop("show_config", None)
        values |= {name: mark.values(values[name]) for name, mark in repeatable.items()}
        for name, group in groups.items():
            values[name] = _filled(group, values)
        return function(**values)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call  # type: ignore[return-value]


def _expanded(given: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The options of a group; any other parameter as it is, or as the option that its default describes."""
    if is_dataclass(given.annotation):
        yield from _options_of(given.annotation)  # type: ignore[arg-type]
    elif isinstance(given.default, Field):
        yield _parameter(given.name, given.annotation, given.default)
    else:
        yield given.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _options_of(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group)
    for part in fields(group):
        if is_dataclass(hints[part.name]):
            yield from _options_of(hints[part.name])
        else:
            declaring = next(cls for cls in group.__mro__ if part.name in vars(cls).get("__annotations__", {}))
            yield _parameter(part.name, hints[part.name], part, getattr(declaring, "panel", None))


def _parameter(name: str, kind: Any, described: Field, panel: str | None = None) -> inspect.Parameter:
    """What typer takes for an option; with an environment variable unless it only concerns the output."""
    names, settings = described.metadata["names"], described.metadata["settings"]
    if not any(word.startswith("--") for word in names):
        names = (f"--{name.replace('_', '-')}", *names)
    info = typer.Option(*names, **settings)
    info.rich_help_panel = info.rich_help_panel or panel
    if info.rich_help_panel not in (None, OUTPUT):
        info.envvar, info.show_envvar = config.variable(name), False
    parts: tuple[Any, ...] = (kind, info)
    if get_origin(kind) is tuple:
        parts = (list[get_args(kind)[0]], info, _Repeatable(described.metadata["split"]))  # type: ignore[misc]
    default = described.default or None if len(parts) == 3 else described.default  # typer knows no empty default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[parts])


def _filled(group: type, values: dict[str, Any]) -> Any:
    """The group with its values, which are taken out of ``values``."""
    hints = get_type_hints(group)
    return group(
        **{
            part.name: _filled(hints[part.name], values) if is_dataclass(hints[part.name]) else values.pop(part.name)
            for part in fields(group)
        }
    )


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
