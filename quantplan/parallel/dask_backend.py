"""joblib's Dask backend with an eye on the workers; importing this module needs Dask.

joblib's own waits for ever where Dask gives a task up (KilledWorker) or has no worker left, and it runs everything in the
calling process where the cluster has one core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import distributed
from joblib._dask import DaskDistributedBackend

from quantplan.parallel.worker_pool import Broken, TaskDied

_WATCH_SECONDS = 1.0
PATIENCE_SECONDS = 30.0  # a cluster without a worker may be starting one


class WatchedCluster(DaskDistributedBackend):
    """Raises from ``joblib.Parallel``: TaskDied where Dask gave a task up, Broken where nobody is left to work."""

    def start_call(self) -> None:
        super().start_call()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop_call(self) -> None:
        self._ended.set()
        super().stop_call()

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Worker processes, not cores: a worker takes all of its cores for one task. With 1 joblib would not ask them."""
        try:
            super().effective_n_jobs(n_jobs)  # waits for a first worker
        except TimeoutError:
            raise Broken(f"it has none, and none came within {PATIENCE_SECONDS:.0f} s") from None
        return max(2, workers(self.client))

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future:
        future = super().submit(func, callback)
        if callback is not None:
            future.add_done_callback(lambda done: callback(done) if done.exception() is not None else None)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        if isinstance(out, Future):
            error = out.exception()
            raise error if isinstance(error, Broken) else TaskDied(str(error))
        if isinstance(out, CancelledError):
            raise Broken("the scheduler does not answer any more")
        return super().retrieve_result_callback(out)

    def _watch(self) -> None:
        alone = 0.0
        while not self._ended.wait(_WATCH_SECONDS):
            alone = alone + _WATCH_SECONDS if _abandoned(self.client) else 0.0
            if alone >= PATIENCE_SECONDS:
                for future in list(self._results.values()):
                    future.set_exception(Broken(f"no worker came back within {PATIENCE_SECONDS:.0f} s"))
                return


def watched(client: distributed.Client) -> WatchedCluster:
    """The backend for ``joblib.parallel_config``."""
    return WatchedCluster(client=client, wait_for_workers_timeout=PATIENCE_SECONDS)


def workers(client: distributed.Client) -> int:
    """Worker processes that the scheduler knows."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _abandoned(client: distributed.Client) -> bool:
    try:
        return client.status != "running" or workers(client) == 0
    except (OSError, ValueError):
        return True
