"""Options declared once: groups of them, expanded into the signatures of commands."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from quantplan.cli import config

OUTPUT = "Output"
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
