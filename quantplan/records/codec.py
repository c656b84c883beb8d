"""JSON records with a format name and a version, written beside and renamed, refused when unknown."""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from quantplan.errors import BadFile, NoSpace


@contextmanager
def replacing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes the place of ``path`` when all went well, and leaves no half file when not."""
    path = Path(path)
    if not path.name or path.is_dir():
        raise BadFile(f"cannot write {path}: it is a folder; choose another place")
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with neighbour.open(mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left on the disk for {path}; free some or choose another folder") from None
        raise BadFile(f"cannot write {path}: {error.strerror or error}; choose another place") from None
    finally:
        with suppress(OSError):  # a path through a file cannot even be removed, and what was raised says so already
            neighbour.unlink(missing_ok=True)


def clear_left(path: Path) -> None:
    """Removes what killed processes of this machine left beside ``path``: half files of ``replacing``, and workplaces that bear
    a process number as those do.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        owner = left.name.removeprefix(f".{path.name}.").split(".")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def make_folder(path: Path) -> None:
    """The folder and those above it; BadFile where they cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"cannot make the folder {path}: {error.strerror or error}; choose another place") from None


def write_record(path: Path | str, format_name: str, version: int, content: dict[str, Any]) -> None:
    """Writes ``content`` as JSON; ValueError for NaN or infinity, which JSON cannot hold."""
    text = json.dumps({"format": format_name, "version": version} | content, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(text + "\n")


def read_record(path: Path | str, format_name: str, version: int) -> dict[str, Any]:
    """The content of a record; BadFile with the reason unless it is of that format and a known version."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise BadFile(f"{path}: not JSON ({error}); is it a {format_name} file?") from None
    if not isinstance(content, dict) or content.get("format") != format_name:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise BadFile(f"{path}: a {format_name} file is needed, this is {found or 'something else'}")
    if not isinstance(content.get("version"), int) or not 1 <= content["version"] <= version:
        raise BadFile(
            f"{path}: {format_name} format {content.get('version')} is unknown (1 to {version}); update quantplan"
        )
    return content


def format_of(path: Path | str) -> str | None:
    """The format that a JSON file says it is of; None for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = content.get("format") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def finite(value: float | None) -> float | None:
    """JSON has no NaN: a value that does not exist is null."""
    return None if value is None or not math.isfinite(value) else float(value)
