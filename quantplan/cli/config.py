"""Where the value of an option comes from: the command line, the environment, quantplan.toml, or the program."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from quantplan.cli import console
from quantplan.project import FILE, SOURCES, Project, find_project

DEFAULT_CTX = 512  # llama-perplexity's default chunk
# options whose default is looked up when it is needed, since it depends on what exists and on the model
_OF_PROJECT = {
    "model": "model",
    "imatrix": "imatrix",
    "calibration": "calibration",
    "text": "text",
    "validation": "validation",
    "ctx": "ctx",
}
_OF_SERVING = ("kv", "cache_type_k", "cache_type_v")  # no condition of a measurement unless it is typed
_NEW_PROJECT = ("init", "demo", "publish")  # make a project: an older one around them does not matter


@cache
def project() -> Project | None:
    """The project of the working folder, its paths relative to that folder: plans must not name private folders."""
    there = find_project(Path.cwd())
    if there is None:
        return None
    for old in there.old_keys:
        console.say(f"notice: {there.folder.name}/{FILE}: {old}")
    paths = {field.name: getattr(there, field.name) for field in fields(there)}
    near: dict[str, Any] = {
        name: _from_here(path, there.folder) for name, path in paths.items() if isinstance(path, Path)
    }
    placed = {name: _placed(name, value, there.folder) for name, value in there.settings.items()}
    return replace(there, **near, settings=placed)


def _placed(name: str, value: Any, folder: Path) -> Any:
    """The value of a setting; files of tables and budgets are taken from the project's folder."""
    if isinstance(value, list):
        return [_placed(name, part, folder) for part in value]
    if name == "sensitivity" and value not in SOURCES and not re.match(r"(?:hf|https?):/", value):
        return str(_from_here(folder / Path(value).expanduser(), folder))
    if name == "publisher":
        from quantplan.hub.reference import is_reference  # not for --help

        publisher, equals, where = value.partition("=")
        return (
            value
            if is_reference(where)
            else f"{publisher}{equals}{_from_here(folder / Path(where).expanduser(), folder)}"
        )
    if name == "budget" and value.startswith("="):
        return f"={_from_here(folder / Path(value[1:].strip()).expanduser(), folder)}"
    return value


def settings() -> Mapping[str, Any]:
    """What the project's quantplan.toml sets for options; nothing outside a project."""
    here = project()
    return here.settings if here else {}


def _from_here(path: Path, folder: Path) -> Path:
    """Relative to the working folder for what is in the project, unchanged for anything else."""
    inside = path.absolute().is_relative_to(folder.absolute())
    return Path(os.path.relpath(path)) if inside else path


def cache_folder() -> Path:
    """Where measured values are kept: QUANTPLAN_CACHE, else in the project, else in the user's cache folder."""
    from quantplan.records.cache import user_cache  # not for --help

    here = None if os.environ.get("QUANTPLAN_CACHE") else project()
    return here.cache if here else user_cache()


def variable(option: str) -> str:
    """The environment variable of an option: QUANTPLAN_GPU_LAYERS."""
    return f"QUANTPLAN_{option.upper()}"


def defaults(command: TyperCommand) -> dict[str, Any]:
    """What the project's quantplan.toml sets for options of this command."""
    if not any(option.name == "show_config" for option in command.params) or command.name in _NEW_PROJECT:
        return {}
    here = project()
    serves = any(option.name == "serve_ctx" for option in command.params)
    set_here = [option for option in command.params if serves or option.name not in _OF_SERVING]
    found = {option.name: _fitting(option, here.settings.get(str(option.name))) for option in set_here} if here else {}
    return {str(name): value for name, value in found.items() if value is not None}


def _fitting(option: Any, value: Any) -> Any:
    """A list for a repeatable option; a single value, or None, for any other."""
    if option.multiple:
        return value if value is None or isinstance(value, list) else [value]
    if isinstance(value, list):
        return value[0] if len(value) == 1 else None
    return value


def origin(ctx: typer.Context, option: str | None) -> str | None:
    """``[plan] budget in quantplan.toml``, ``QUANTPLAN_BUDGET``; None for what was typed or is the default."""
    source = ctx.get_parameter_source(option) if option else None
    if source is None:
        return None
    if source.name == "ENVIRONMENT":
        return variable(str(option))
    here = project()
    return f"{here.place_of(str(option))} in {FILE}" if source.name == "DEFAULT_MAP" and here else None


def show(ctx: typer.Context) -> None:
    """The value of each option and where it comes from, on stdout."""
    values = {option.name: _resolved(ctx, option) for option in ctx.command.params if option.name != "show_config"}
    if ctx.params.get("as_json"):
        console.put_json({name: {"value": value, "source": source} for name, (value, source) in values.items()})
        return
    from quantplan.report.table import Table

    rows = [(option.opts[0], *values[option.name]) for option in ctx.command.params if option.name in values]
    cells = tuple((name, "-" if value is None else str(value), source) for name, value, source in rows)
    console.put_table(Table("", ("option", "value", "from"), cells, texts=(0, 1, 2)))


def _resolved(ctx: typer.Context, option: Any) -> tuple[Any, str]:
    value, name = _plain(ctx.params.get(option.name)), str(option.name)
    source = ctx.get_parameter_source(name)
    if source is not None and source.name == "COMMANDLINE":
        return value, "command line"
    if (place := origin(ctx, name)) is not None:
        return value, place
    here = project()
    if value is None and name in _OF_PROJECT and here and (set_there := getattr(here, _OF_PROJECT[name])) is not None:
        return _plain(set_there), FILE
    if value is None and name == "ctx":
        return DEFAULT_CTX, "default"
    return value, "default"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value] or None
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value
