"""Work spread over threads so that the result does not depend on their number.

A threaded BLAS splits sums by the number of threads, which changes last bits and then codes. So each call of it runs on one
thread, and the work is cut into tasks whose shapes depend on the matrix only.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from quantplan.llamacpp import ggml

Task = TypeVar("Task")
Answer = TypeVar("Answer")
RunAll = Callable[[Callable[[Task], Answer], Sequence[Task]], list[Answer]]


@contextmanager
def workers(threads: int = 0) -> Iterator[RunAll]:
    """A function that applies another to all tasks, on ``threads`` threads (0: all cores), answers in their order.

    BLAS is limited to one thread meanwhile, in the whole process: do not enter it from several threads at once.
    """
    with _blas().limit(limits=1), ThreadPoolExecutor(threads or ggml.cores()) as pool:
        yield lambda work, tasks: list(pool.map(work, tasks))


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries of this process, looked up once: that takes 2 ms, as long as a small matrix does."""
    import scipy.linalg  # noqa: F401 - it brings a library of its own

    return ThreadpoolController().select(user_api="blas")


def spans(length: int, step: int) -> list[slice]:
    """``range(length)`` cut into slices of ``step``, the last one shorter."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
