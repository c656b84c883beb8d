"""Swaps made by other processes: what a worker gets, and the model that it keeps loaded between tasks."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from quantplan.budget import human_bytes
from quantplan.errors import BadFile, BadUsage, ModelMismatch
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.parallel.worker_pool import Lost, WorkerPool, task_size, worker_threads
from quantplan.sensitivity.tensor_swap import ProbeOptions, Survey, Swap, Swapped, TensorSwapper
from quantplan.tensor import Model
from quantplan.text import Text

_IDLE_SECONDS = 120.0  # after which a worker that nobody asks anything lets go of the model


@dataclass(frozen=True)
class ProbeJob:
    """All that a worker needs: files by path and digest, so that it reads what is meant or refuses."""

    model: Path
    model_digest: str
    imatrix: Path | None
    imatrix_digest: str | None
    text: Text
    options: ProbeOptions
    imatrix_excluded: frozenset[str] = frozenset()


class ProbeWorkers:
    """A ``SwapRunner`` of several processes. Use as a context manager."""

    def __init__(self, model: Model, imatrix: Imatrix | None, text: Text, options: ProbeOptions) -> None:
        check_memory(model, options.execution)
        self._pool = WorkerPool(options.execution)
        # workers get no addresses: each of them is one process
        alone = replace(
            options, execution=options.execution.within_worker(self._pool.threads(options.execution.threads))
        )
        self._job = ProbeJob(
            model.path.absolute(),
            model.digest,
            Path(imatrix.path).absolute() if imatrix else None,
            imatrix.digest if imatrix else None,
            text,
            alone,
            imatrix.excluded if imatrix else frozenset(),
        )

    def __enter__(self) -> "ProbeWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def survey(self, names: list[str]) -> Survey:
        try:
            ((_, survey),) = self._pool.run(survey_in_worker, self._job, [tuple(names)])
        except Lost as lost:  # nothing is known yet of single tensors
            raise Lost([], lost.reason) from None
        return survey

    def run(self, swaps: list[Swap]) -> Iterator[tuple[Swap, Swapped]]:
        try:
            for chunk, results in self._pool.run(swaps_in_worker, self._job, _chunks(swaps, self._pool.size)):
                yield from zip(chunk, results, strict=True)
        except Lost as lost:
            raise Lost([swap for chunk in lost.items for swap in chunk], lost.reason) from None


def check_memory(model: Model, execution: Execution) -> None:
    """BadUsage where this machine cannot hold the model once for each process."""
    free = psutil.virtual_memory().available
    if execution.jobs > 1 and execution.jobs * model.file_bytes > free:
        raise BadUsage(
            f"--jobs {execution.jobs}: each process holds the model, {human_bytes(model.file_bytes)}, and "
            f"{human_bytes(free)} of memory are free; use fewer, at most {max(1, free // model.file_bytes)}"
        )


def _chunks(swaps: Sequence[Swap], workers: int) -> list[tuple[Swap, ...]]:
    size = task_size(len(swaps), workers)
    return [tuple(swaps[start : start + size]) for start in range(0, len(swaps), size)]


# --- what runs in a worker


def survey_in_worker(job: ProbeJob, names: tuple[str, ...]) -> Survey:
    with _kept as kept:
        return kept.swapper(job).survey(names)


def swaps_in_worker(job: ProbeJob, swaps: tuple[Swap, ...]) -> list[Swapped]:
    with _kept as kept:
        swapper = kept.swapper(job)
        return [swapper.run(swap) for swap in swaps]


class KeptModel:
    """The one model that this worker keeps loaded; as a context manager the turn of one task (Dask runs them in threads)."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._job: ProbeJob | None = None
        self._swapper: TensorSwapper | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "KeptModel":
        self._turn.acquire()
        if self._timer:
            self._timer.cancel()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.release()
        self._timer = threading.Timer(_IDLE_SECONDS, self._when_idle)
        self._timer.daemon = True
        self._timer.start()
        self._turn.release()

    def swapper(self, job: ProbeJob) -> TensorSwapper:
        if self._swapper is None or self._job != job:
            self.release()
            self._swapper, self._job = load(job), job
        return self._swapper

    def release(self) -> None:
        """Frees the model; called within the task's turn."""
        if self._swapper is not None:
            self._swapper.engine.close()
        self._swapper = self._job = None

    def _when_idle(self) -> None:
        with self._turn:
            if self._timer is threading.current_thread():  # else a task came in between
                self.release()


_kept = KeptModel()


def load(job: ProbeJob) -> TensorSwapper:
    model = model_here(job.model, job.model_digest)
    imatrix = _imatrix_here(job)
    execution = replace(job.options.execution, threads=job.options.execution.threads or worker_threads())
    return TensorSwapper(model, imatrix, job.text, replace(job.options, execution=execution))


_SHARE = "all workers must see the same files under the same paths"


def model_here(path: Path, digest: str) -> Model:
    """The model as this worker finds it; BadFile, ModelMismatch where it is not the one that is meant."""
    try:
        model = read_model(path)
    except BadFile as error:
        raise BadFile(f"on the worker {_host()}: {error}; {_SHARE}") from None
    if model.digest != digest:
        raise ModelMismatch(f"{path} on the worker {_host()} is another model; {_SHARE}")
    return model


def _imatrix_here(job: ProbeJob) -> Imatrix | None:
    if job.imatrix is None:
        return None
    try:
        imatrix = read_imatrix(job.imatrix)
    except BadFile as error:
        raise BadFile(f"on the worker {_host()}: {error}; {_SHARE}") from None
    if imatrix.digest != job.imatrix_digest:
        raise ModelMismatch(f"{job.imatrix} on the worker {_host()} is another imatrix; {_SHARE}")
    return imatrix.without(job.imatrix_excluded)


def _host() -> str:
    import socket

    return socket.gethostname()
