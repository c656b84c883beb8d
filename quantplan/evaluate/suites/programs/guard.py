"""Runs a program that a model wrote, within limits: the process that ``run_program`` starts. It imports nothing of quantplan.

On stdin: JSON with ``code``, ``tests`` (expressions that must be true), ``seconds`` and ``memory`` (bytes). On stdout: JSON
with ``reason``, empty where all tests passed. The limits are the kernel's (time, memory, size of files, processes) and an audit
hook's, which Python calls before it starts a process, opens a socket or writes a file outside the working folder.
They stop accidents; they are no prison for a program that wants to get out.
"""

import _thread
import contextlib
import json
import os
import resource
import sys

_FILE_BYTES = 1 << 20
_OPEN_FILES = 64
_SHOWN = 200  # characters of a reason
_REFUSED = (
    "ctypes",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.mkdir",
    "os.posix_spawn",
    "os.putenv",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.setxattr",
    "os.spawn",
    "os.symlink",
    "os.system",
    "os.truncate",
    "os.utime",
    "pty.spawn",
    "resource.prlimit",
    "resource.setrlimit",
    "shutil",
    "signal.pthread_kill",
    "socket",
    "sqlite3",
    "subprocess",
    "syslog",
)
_UNNEEDED = ("_ctypes", "_multiprocessing", "_posixsubprocess", "_socket")  # what they start is not audited
_THREADS = ("start_new_thread", "start_joinable_thread")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    job = json.load(sys.stdin)
    result = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silence, number)
    _limit(job["seconds"], job["memory"])
    _watch(os.path.realpath("."))
    reason = _reason(job["code"], job["tests"])
    with contextlib.suppress(OSError):
        os.write(result, json.dumps({"reason": reason[:_SHOWN]}).encode())
    os._exit(0)  # without what the program left for the end


def _limit(seconds: int, memory: int) -> None:
    limits = [
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ]
    for kind, most in limits:
        with contextlib.suppress(OSError, ValueError):  # a system may not have it
            resource.setrlimit(kind, (most, most))


def _watch(folder: str) -> None:
    def refuse(event: str, arguments: tuple) -> None:
        if event.startswith(_REFUSED) or (event == "import" and arguments[0] in _UNNEEDED):
            raise PermissionError(f"{arguments[0] if event == 'import' else event} is not allowed here")
        if event == "open" and arguments[2] and arguments[2] & _WRITING:
            path = arguments[0]
            if isinstance(path, int) or not _inside(os.fsdecode(path), folder):
                raise PermissionError("writing outside the working folder is not allowed here")

    sys.addaudithook(refuse)
    for name in _THREADS:
        if hasattr(_thread, name):
            setattr(_thread, name, _no_thread)  # not every Python audits it


def _no_thread(*_arguments: object, **_named: object) -> None:
    raise PermissionError("starting a thread is not allowed here")


def _inside(path: str, folder: str) -> bool:
    return path == os.devnull or os.path.realpath(path).startswith(folder + os.sep)


def _reason(code: str, tests: list) -> str:
    """Why the program is not right; empty where it is."""
    names: dict = {"__name__": "program"}
    try:
        exec(compile(code, "program", "exec"), names)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the program is a stranger's
        return _described(error)
    for test in tests:
        try:
            if not eval(compile(test, "test", "eval"), names):
                return f"not true: {test}"
        except BaseException as error:  # noqa: BLE001
            return f"{_described(error)} in {test}"
    return ""


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except BaseException:  # noqa: BLE001 - its text is the program's, too
        return "an exception"


if __name__ == "__main__":
    main()
