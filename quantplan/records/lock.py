"""One process at a time in a folder: a lock of the operating system's, which ends with the process that holds it.

So a lock cannot be left behind: after kill -9 the next process has it at once. The file says who holds it, for others to read.
"""

import errno
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil

from quantplan.errors import InUse
from quantplan.records.files import make_folder

_PLACE = Path(".quantplan") / "lock"
_LOCKED = "QUANTPLAN_LOCKED"  # in the environment: the folder that this process, or the one that started it, holds
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_BEYOND = 1 << 20  # byte that is locked where locks keep others from reading: behind all that is written


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder until the block ends, for this process and the commands that it starts; InUse where another has it."""
    folder = folder.resolve()
    if os.environ.get(_LOCKED) == str(folder):  # this is a step of the command that has it
        yield
        return
    path = folder / _PLACE
    file = _acquired(path)
    before = os.environ.get(_LOCKED)
    os.environ[_LOCKED] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_LOCKED)
        if before is not None:
            os.environ[_LOCKED] = before
        with suppress(OSError):
            path.unlink()
        file.close()


def _acquired(path: Path) -> IO[bytes]:
    """The lock's file, locked, with this process's name in it."""
    make_folder(path.parent)
    while True:
        file = path.open("a+b")
        if not _lock(file):
            holder = _read(file)
            file.close()
            raise InUse(
                f"{path.parents[1]} is in use by {holder}; wait until it has ended, stop it, or work in another folder"
            )
        if _is_file(path, file):
            break
        file.close()  # whoever had it removed it before this process had it
    file.truncate(0)
    file.write(json.dumps(_this_process()).encode())
    file.flush()
    if sys.platform != "win32":
        os.set_inheritable(file.fileno(), True)  # a step that outlives this process keeps the folder
    return file


def _is_file(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes]) -> bool:
    """Whether the lock was free; on a file system without locks, whether its last holder has ended."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_BEYOND)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN and not _alive(_content(file))
    return True


def _this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(["quantplan", *sys.argv[1:]]),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _content(file: IO[bytes]) -> dict[str, object]:
    """What the holder wrote; nothing where it has not done so yet."""
    try:
        file.seek(0)
        content = json.loads(file.read(_BEYOND))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(file: IO[bytes]) -> str:
    """``process 12 on machine (`quantplan run`, since ...)``."""
    holder = _content(file)
    if not holder:
        return "another process"
    ended = "" if _alive(holder) else ", which has ended, but not what it started"
    since = str(holder.get("since")).replace("T", " ")
    return f"process {holder.get('pid')} on {holder.get('host')} (`{holder.get('command')}`, since {since}){ended}"


def _alive(holder: dict[str, object]) -> bool:
    """Whether the holder may still run; that of another machine may."""
    pid = holder.get("pid")
    return isinstance(pid, int) and (holder.get("host") != socket.gethostname() or psutil.pid_exists(pid))
