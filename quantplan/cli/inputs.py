"""Files that a command reads: nothing that it writes may take their place."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quantplan.cli import config
from quantplan.errors import BadUsage

_WRITTEN = ("out", "plot")  # options that name what a command writes
_OF_PROJECT = ("model", "calibration", "text", "validation")


def check_kept(values: Mapping[str, Any], options: Iterable[Any]) -> None:
    """BadUsage where an option names a file to write that another one names to be read, or the project."""
    for written in filter(None, map(values.get, _WRITTEN)):
        place = Path(written)
        for said, path in _read(values, options):
            if _same_file(path, place):
                raise BadUsage(f"{place} is {said}, and would be overwritten; choose another place")


def _read(values: Mapping[str, Any], options: Iterable[Any]) -> Iterator[tuple[str, Path]]:
    """What is read, in words, and where it is."""
    for option in options:
        if option.name not in _WRITTEN:
            said = f"what {option.opts[0]} names" if option.param_type_name == "option" else "read itself"
            yield from ((said, path) for path in _paths(values.get(option.name)))
    project = config.project()
    for name in _OF_PROJECT if project else ():
        if name == "model" and values.get("model"):
            continue  # another one is read; and `surgery publish` makes the project's model again
        yield from ((f"the project's {name}", path) for path in _paths(getattr(project, name, None)))


def _same_file(path: Path, other: Path) -> bool:
    try:
        return other.is_file() and path.is_file() and path.samefile(other)
    except OSError:  # a name that no file can have
        return False


def _paths(value: object) -> list[Path]:
    several = value if isinstance(value, list | tuple) else [value]
    return [
        Path(each)
        for each in several
        if isinstance(each, str | Path) and "\0" not in str(each) and len(str(each)) < 4096
    ]
