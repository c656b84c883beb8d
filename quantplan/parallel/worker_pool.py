"""Work cut into tasks for processes: those of this machine (a ``LocalCluster``), or the workers of a Dask scheduler.

A task whose worker dies runs once more, alone; what is lost then too is named, after all the rest is done.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from quantplan import __version__
from quantplan.errors import QuantplanError
from quantplan.execution import Execution, cores

if TYPE_CHECKING:
    import distributed

PATIENCE_SECONDS = 30.0  # a cluster without a worker may be starting one
CONNECT_SECONDS = 10
_WATCH_SECONDS = 1.0
_SHOWN = 5
MOST_TOGETHER = 8  # pieces of work in a task: what a crash or Ctrl-C may lose
_TASKS_EACH = 4  # at least so many a worker, that all end at about the same time

Item = TypeVar("Item")


class Lost(Exception):
    """Workers died, and with them what is in ``items``; ``reason``: a sentence."""

    def __init__(self, items: Sequence[Any], reason: str) -> None:
        super().__init__(items, reason)
        self.items, self.reason = list(items), reason


class _NoWorkers(Exception):
    """There are no workers any more, and none came back."""


def shortened(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def task_size(pieces: int, workers: int) -> int:
    """How many pieces of work make one task."""
    return max(1, min(MOST_TOGETHER, pieces // (_TASKS_EACH * workers)))


def worker_threads() -> int:
    """The cores that Dask gives the worker that this is; 0, all, where it is none."""
    try:
        from distributed import get_worker

        return get_worker().state.nthreads
    except ValueError:
        return 0


def versions() -> dict[str, str]:
    """What must be the same wherever a result is to be the same."""
    return {"quantplan": __version__, "llama-cpp-python": version("llama-cpp-python")}


@dataclass(frozen=True)
class _Task:
    """What is sent to a worker, and runs there."""

    function: Callable[..., Any]
    job: object
    item: Any
    versions: dict[str, str]

    def __call__(self) -> Any:
        here = versions()
        differing = [
            f"{name} {here[name]} instead of {expected}"
            for name, expected in self.versions.items()
            if here[name] != expected
        ]
        if differing:
            host = socket.gethostname()
            raise QuantplanError(f"the worker on {host} has {', '.join(differing)}; install the same there")
        return self.function(self.job, self.item)


class WorkerPool:
    """Processes that work on tasks. Use as a context manager; QuantplanError where no scheduler answers."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._opened = ExitStack()
        if execution.scheduler is not None:
            _ = self._client  # there, before anything is prepared for it

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @cached_property
    def _client(self) -> "distributed.Client":
        address = self.execution.scheduler
        return self._opened.enter_context(_local(self.execution.jobs) if address is None else _connected(address))

    @property
    def size(self) -> int:
        """Processes that work at the same time; of a cluster each takes all of its cores for one task."""
        return self.execution.jobs if self.execution.scheduler is None else max(1, self._workers())

    def threads(self, chosen: int) -> int:
        """Threads of each process: those chosen, else its share of the cores; 0 leaves it to the Dask worker."""
        if chosen or self.execution.scheduler is not None:
            return chosen
        return max(1, cores() // self.execution.jobs)

    def run(
        self, function: Callable[[Any, Item], Any], job: object, items: Sequence[Item]
    ) -> Generator[tuple[Item, Any], None, None]:
        """``function(job, item)`` of all items as they are finished; Lost at the end for those whose worker died twice."""
        from distributed import KilledWorker

        left, reason = dict(enumerate(items)), ""
        in_hand: list[int] = []  # of workers that died: one item was the cause, the others were not
        try:
            for index, result in self._results(function, job, dict(left), self.size):
                if isinstance(result, KilledWorker):
                    in_hand.append(index)
                else:
                    yield left.pop(index), result
            for index in in_hand:
                for _, result in self._results(function, job, {index: left[index]}, 1):
                    if isinstance(result, KilledWorker):
                        reason = self._reason(f"lost a worker 2 times over the same work: {result}")
                    else:
                        yield left.pop(index), result
        except (_NoWorkers, CancelledError) as error:
            reason = self._reason(f"lost its workers: {str(error) or 'the scheduler does not answer any more'}")
        if left:
            raise Lost(list(left.values()), reason)

    def _reason(self, what: str) -> str:
        if self.execution.scheduler is None:
            return f"a process of {self.execution.jobs} died 2 times over the same work: was memory short?"
        return f"the cluster at {self.execution.scheduler} {what.splitlines()[0].rstrip('.')}"

    def _results(
        self, function: Callable[[Any, Item], Any], job: object, items: dict[int, Item], together: int
    ) -> Iterator[tuple[int, Any]]:
        """Index and result of every item, ``together`` of them being under way; KilledWorker as the result of a dead worker's."""
        from distributed import KilledWorker, wait

        waiting, running = iter(items.items()), dict[Any, int]()
        try:
            while True:
                for index, item in islice(waiting, together - len(running)):
                    task = _Task(function, job, item, versions())
                    running[self._client.submit(task, pure=False)] = index
                if not running:
                    return
                with self._client.as_current():
                    ask = partial(wait, list(running), return_when="FIRST_COMPLETED")
                    done = self._patiently(ask).done
                for future in done:
                    index = running.pop(future)
                    try:  # a worker keeps its result until it is asked for, and may be gone by then
                        result = self._patiently(future.result)
                    except KilledWorker as error:
                        result = error
                    yield index, result
        finally:
            self._client.cancel(list(running))

    def _patiently(self, ask: Callable[..., Any]) -> Any:
        """What ``ask(timeout=seconds)`` answers, sooner or later; _NoWorkers where there is nobody to work on it."""
        seen = time.monotonic()
        while True:
            try:
                return ask(timeout=_WATCH_SECONDS)
            except TimeoutError:
                if self._workers():
                    seen = time.monotonic()
                elif time.monotonic() - seen > PATIENCE_SECONDS:
                    raise _NoWorkers(f"no worker came within {PATIENCE_SECONDS:.0f} s") from None

    def _workers(self) -> int:
        """Worker processes that the scheduler knows; 0 where it does not answer."""
        try:
            return len(self._client.nthreads())
        except (OSError, ValueError):
            return 0


@contextmanager
def _local(jobs: int) -> "Iterator[distributed.Client]":
    """Processes of this machine, started now; a dead one is replaced."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            memory_limit=0,  # each holds a model: the user's choice of --jobs decides, nobody ends it for its size
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={"allowed_failures": 0},
            env={"OMP_WAIT_POLICY": "PASSIVE"},  # threads that spin while they wait take the cores from other workers
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_ignoring_interrupts())
        try:
            yield client
        finally:
            for nanny in cluster.workers.values():
                nanny.auto_restart = False
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)  # they hold models and nothing else: no reason to wait for them


def _ignoring_interrupts() -> "distributed.WorkerPlugin":
    """Leaves Ctrl-C to this process, which ends its workers."""
    from distributed import WorkerPlugin

    class IgnoreInterrupts(WorkerPlugin):
        def setup(self, worker: "distributed.Worker") -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return IgnoreInterrupts()


@contextmanager
def _connected(address: str) -> "Iterator[distributed.Client]":
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError:
        raise QuantplanError(f"no Dask scheduler answers at {address}; start one with `dask scheduler`") from None
    with client:
        yield client
