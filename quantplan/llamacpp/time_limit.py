"""Python code that someone else's file brings along, such as a chat template, ended where it takes too long."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RENDER_SECONDS = 10.0  # for a chat template and one conversation, which take a millisecond


class TookTooLong(Exception):
    """Raised in the code that is limited."""

    def __str__(self) -> str:
        return "it takes too long"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TookTooLong in the block once it has run that long, at the next instruction of Python's. In any thread."""
    thread, lock, ended = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not ended:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TookTooLong))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:  # from here on nothing is raised any more
            ended = True
        timer.cancel()
