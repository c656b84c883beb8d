"""Work cut into joblib tasks: for processes on this machine, or for the workers of a Dask cluster.

A task whose worker dies is given to another once; what is lost then too is named, after all the rest is done.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from quantplan import __version__
from quantplan.errors import QuantplanError, ToolMissing
from quantplan.execution import Execution, cores

if TYPE_CHECKING:
    import distributed

_ATTEMPTS = 2
_CONNECT_SECONDS = 10
_WATCH_SECONDS = 2.0
_SHOWN = 5
_MOST_TOGETHER = 8  # pieces of work in a task: what a crash or Ctrl-C may lose
_TASKS_EACH = 4  # at least so many a worker, that all end at about the same time

Item = TypeVar("Item")


class Lost(Exception):
    """Workers died, and with them what is in ``items``; ``reason``: a sentence."""

    def __init__(self, items: Sequence[Any], reason: str) -> None:
        super().__init__(items, reason)
        self.items, self.reason = list(items), reason


class Broken(Exception):
    """There are no workers any more, and none came back."""


class TaskDied(Exception):
    """A task has brought its workers down; others may go on."""


def shortened(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def task_size(pieces: int, workers: int) -> int:
    """How many pieces of work make one task."""
    return max(1, min(_MOST_TOGETHER, pieces // (_TASKS_EACH * workers)))


def versions() -> dict[str, str]:
    """What must be the same wherever a result is to be the same."""
    return {"quantplan": __version__, "llama-cpp-python": version("llama-cpp-python")}


@dataclass(frozen=True)
class _Call:
    """One task: what joblib sends."""

    function: Callable[..., Any]
    job: object
    index: int
    item: Any
    versions: dict[str, str]
    parent: int  # process that a worker on this machine must not outlive; 0 for those of a cluster


def _there(call: _Call) -> tuple[int, Any]:
    """What a worker runs."""
    if call.parent:
        _belong_to(call.parent)
    own = versions()
    differing = [
        f"{name} {own[name]} instead of {wanted}" for name, wanted in call.versions.items() if own[name] != wanted
    ]
    if differing:
        import socket

        raise QuantplanError(f"the worker on {socket.gethostname()} has {', '.join(differing)}; install the same there")
    return call.index, call.function(call.job, call.item)


@cache
def _belong_to(parent: int) -> None:
    """Leaves Ctrl-C to the parent, which ends its workers, and ends this process after a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    if os.getppid() == parent:
        threading.Thread(target=watch, daemon=True).start()


class WorkerPool:
    """Processes that work on tasks. Use as a context manager; raises ToolMissing, QuantplanError where there is no cluster."""

    def __init__(self, machines: Execution) -> None:
        self.machines = machines
        self._client = _connect(machines.scheduler) if machines.scheduler is not None else None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
            return
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)  # each holds a model

    @property
    def size(self) -> int:
        """Processes that work at the same time."""
        if self._client is None:
            return self.machines.jobs
        from quantplan.parallel import dask_backend

        return max(1, dask_backend.workers(self._client))

    def threads(self, wanted: int) -> int:
        """Threads of each process: those asked for, else its share of the cores; 0 leaves it to the Dask worker."""
        if wanted or self._client is not None:
            return wanted
        return max(1, cores() // self.machines.jobs)

    def run(
        self, function: Callable[[Any, Item], Any], job: object, items: Sequence[Item]
    ) -> Iterator[tuple[Item, Any]]:
        """``function(job, item)`` of all items as they are finished; Lost at the end for those whose worker died twice."""
        waiting, attempts = dict(enumerate(items)), Counter[int]()
        given_up: list[Item] = []
        reason = ""
        while waiting:
            under_way: set[int] = set()
            # whatever was under way when a worker died comes last and alone: one of them did it, the others did not
            order = [index for index in waiting if not attempts[index]] or list(waiting)[:1]
            parent = os.getpid() if self._client is None else 0
            calls = [_Call(function, job, index, items[index], versions(), parent) for index in order]
            try:
                for index, result in self._results(calls, under_way):
                    under_way.discard(index)
                    yield waiting.pop(index), result
            except (Broken, TaskDied, BrokenProcessPool) as error:
                reason = self._reason(error)
                attempts.update(under_way)
                done_with = [index for index in under_way if attempts[index] >= _ATTEMPTS]
                if isinstance(error, Broken) or not under_way:
                    done_with = list(waiting)
                given_up += [waiting.pop(index) for index in sorted(done_with)]
        if given_up:
            raise Lost(given_up, reason)

    def _reason(self, error: Exception) -> str:
        if self._client is None:
            return f"a process of {self.machines.jobs} died {_ATTEMPTS} times over the same work: was memory short?"
        what = (
            "lost its workers" if isinstance(error, Broken) else f"lost a worker {_ATTEMPTS} times over the same work"
        )
        return f"the cluster at {self.machines.scheduler} {what}: {str(error).splitlines()[0].rstrip('.')}"

    def _results(self, calls: list[_Call], under_way: set[int]) -> Iterator[tuple[int, Any]]:
        import joblib

        def dispatched() -> Iterator[Any]:
            for call in calls:
                under_way.add(call.index)
                yield joblib.delayed(_there)(call)

        if self._client is None:
            size, backend = self.machines.jobs, "loky"  # never fewer: a pool that shrinks drops loaded models
        else:
            from quantplan.parallel import dask_backend

            size, backend = self.size, dask_backend.watched(self._client)
        with joblib.parallel_config(backend=backend):
            parallel = joblib.Parallel(n_jobs=size, batch_size=1, pre_dispatch=size, return_as="generator_unordered")
            results = parallel(dispatched())
            try:
                for result in results:  # noqa: UP028 - yield from would close them before the warning is silenced
                    yield result
            finally:
                with warnings.catch_warnings():
                    warnings.simplefilter(
                        "ignore", UserWarning
                    )  # joblib's advice to whoever stops early, as Ctrl-C does
                    results.close()


def _connect(address: str) -> distributed.Client:
    try:
        import distributed
    except ImportError:
        raise ToolMissing("--scheduler needs Dask; run: pip install 'quantplan[cluster]'") from None
    try:
        return distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except OSError:
        raise QuantplanError(f"no Dask scheduler answers at {address}; start one with `dask scheduler`") from None
