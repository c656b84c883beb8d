"""A function in a process of its own: llama.cpp ends the process where an RPC server goes away, and this one survives that."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from quantplan.llamacpp import libraries

_END_SECONDS = 30  # for a process to end by itself; one that hangs in a library is killed


class Died(Exception):
    """The process ended without an answer. ``said``: ggml's last words, empty where it had none."""

    def __init__(self, code: int | None, said: str) -> None:
        super().__init__(code, said)
        self.code, self.said = code, said


class _RemoteTraceback(Exception):
    """The traceback in the other process, as the cause of what is raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def call(
    function: Callable[..., Any], *arguments: object, reports: dict[str, Callable[..., None]] | None = None
) -> Any:
    """``function(*arguments, **reports)`` in a fresh process: what it returns or raises, and Died where it does neither.

    ``reports`` are keyword arguments that the function calls to say how far it is: they are called here.
    """
    reports = reports or {}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, function, arguments, tuple(reports)), daemon=True)
    process.start()
    there.close()
    try:
        result = _listen(here, process, reports)
        process.join(_END_SECONDS)
        return result
    finally:
        here.close()
        if process.is_alive():
            # it ends after the request under way: llama.cpp's RPC server dies of SIGPIPE with a client that does not wait
            process.terminate()
            process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
        process.join()


def _listen(
    here: Connection, process: multiprocessing.process.BaseProcess, reports: dict[str, Callable[..., None]]
) -> Any:
    said = ""
    while True:
        try:
            kind, *content = here.recv()
        except (EOFError, ConnectionResetError):
            process.join(_END_SECONDS)
            raise Died(process.exitcode, said) from None
        if kind == "report":
            name, values = content
            reports[name](*values)
            here.send(None)
        elif kind == "said":
            said = content[0]
        elif kind == "raised":
            raise content[0] from _RemoteTraceback(content[1])
        else:
            return content[0]


def _serve(there: Connection, function: Callable[..., Any], arguments: tuple, names: tuple[str, ...]) -> None:
    """The other process: everything goes back through one pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    lock = threading.Lock()

    def send(*message: object) -> None:
        try:
            with lock:
                there.send(message)
        except OSError:  # nobody listens any more
            os._exit(1)

    _on_abort(lambda text: send("said", text))

    def report(name: str, *values: object) -> None:
        send("report", name, values)
        there.recv()  # no work is done that the other side would not hear of

    try:
        result = function(*arguments, **{name: partial(report, name) for name in names})
    except BaseException as error:  # noqa: BLE001 - raised again where the caller is
        send("raised", error, traceback.format_exc())
    else:
        send("returned", result)


def _on_abort(send: Callable[[str], None]) -> None:
    """ggml's last words go to ``send``, and no core file of the size of a model is written."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libraries.on_abort(send)
    libraries.base()  # before llama_cpp is imported: libraries are found by their names then, and there is one libggml-base
