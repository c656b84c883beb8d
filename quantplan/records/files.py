"""Files that are written next to their place and renamed: whole or not at all."""

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from quantplan.errors import BadFile, NoSpace
from quantplan.text_files import starts_as_gguf


@contextmanager
def replacing(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that replaces ``path`` when the block ends without an error, and is removed otherwise.

    NoSpace where the disk is full, BadFile where it cannot be written, and for a text in the place of a GGUF.
    """
    path, as_text = Path(path), "b" not in mode
    if not path.name or path.is_dir():
        raise BadFile(f"cannot write {path}: it is a folder; choose another place")
    if as_text and path.is_file() and starts_as_gguf(path):
        raise BadFile(f"cannot write {path}: a GGUF file is there, which no text replaces; choose another place")
    neighbour = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        encoding, errors = ("utf-8", "surrogateescape") if as_text else (None, None)  # names of files may be any bytes
        with neighbour.open(mode, encoding=encoding, errors=errors) as file:
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


def part_of(path: Path, suffix: str = "") -> Path:
    """Where this process writes what shall become ``path``. No other writes there, not even a tool whose quantplan was killed."""
    return path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes of this machine left next to ``path``: half files of ``replacing``, and folders whose
    names hold a process number as those do.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        owner = left.name.removeprefix(f".{path.name}.").split(".")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def remove_all_leftovers(folder: Path) -> None:
    """``remove_leftovers`` of every file of the folder."""
    for half in folder.glob(".*.part"):
        remove_leftovers(folder / half.name[1:].rsplit(".", 2)[0])


def make_folder(path: Path) -> None:
    """The folder and those above it; BadFile where they cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"cannot make the folder {path}: {error.strerror or error}; choose another place") from None
