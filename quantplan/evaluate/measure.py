"""Measuring files against their base model on float32 logits, in this process unless others are named.

The base runs once and its logits stay in memory; then each file is loaded alone and runs on the same
windows. Where the logits of all windows are too many, the windows are taken in groups and the files are
loaded anew for each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

from quantplan.errors import BadFile, WorkersLost
from quantplan.evaluate.figures import figures
from quantplan.evaluate.same_tokens import Cut, check_same_tokens, check_vocabulary, cut
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine, EngineOptions, chunks_per_batch
from quantplan.llamacpp.token_scores import BaseRows, TokenScores, base_rows, joined, token_scores
from quantplan.measurement import Conditions, Measurement
from quantplan.parallel.rpc import on_servers
from quantplan.parallel.worker_pool import Lost, WorkerPool
from quantplan.records.journal import Journal, text_digest
from quantplan.records.measurement_files import as_fields, from_fields
from quantplan.sensitivity.probe_tasks import dask_threads, model_here
from quantplan.tensor import Model

ENGINE = "in-process"
Advance = Callable[[float], None]
Put = Callable[[Measurement], None]


@dataclass(frozen=True)
class MeasureOptions:
    """``chunks`` None takes all that the text has; ``memory_bytes``: for the base's logits, and at most
    half of what is free.
    """

    n_ctx: int = 512
    chunks: int | None = None
    execution: Execution = Execution()
    memory_bytes: int = 2 << 30

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(self.n_ctx, self.execution)


def measure(
    base_path: Path,
    files: Sequence[Path],
    text: str,
    options: MeasureOptions | None = None,
    advance: Advance | None = None,
    cache: Path | None = None,
) -> list[Measurement]:
    """The measurements of ``files`` in their order; a file named twice is run once.

    ``advance`` gets shares of the whole work that add up to 1. In the folder ``cache`` finished files are
    kept, and taken from there while nothing that matters has changed. Raises BadFile, ModelMismatch,
    TextTooShort, WorkersLost.
    """
    options, advance = options or MeasureOptions(), advance or (lambda _share: None)
    base = read_model(base_path)
    models = {Path(file): read_model(file) for file in files}
    for model in models.values():
        check_vocabulary(base, model)
    reference = _Reference(base, text, options)
    done = _Done(cache, reference.conditions)
    left = {model.digest: model for model in models.values() if model.digest not in done}
    check_same_tokens(base, reference.cut, left.values(), text, options.chunks)
    if left:
        _measure(reference, list(left.values()), done, advance)
    else:
        advance(1)
    return [done.measurement(Path(file), models[Path(file)].digest) for file in files]


def _measure(reference: _Reference, models: list[Model], done: _Done, advance: Advance) -> None:
    """Puts the measurements of all models into ``done``, by whoever shall run them."""
    execution = reference.options.execution
    try:
        if execution.many:
            _by_crew(reference, models, done.put, advance)
        elif execution.rpc:
            on_servers(execution.rpc, _here, reference, models, put=done.put, advance=advance)
        else:
            _here(reference, models, done.put, advance)
    except Lost as lost:
        names = ", ".join(str(model.path) for model in models if model.digest not in done)
        raise WorkersLost(
            f"{lost.reason}. Not measured: {names}; what was finished is kept: run the same command again for the rest"
        ) from None


def _here(reference: _Reference, models: list[Model], put: Put, advance: Advance) -> None:
    share = 1 / (len(reference.chunks) * (len(models) + 1))
    for model, scores in _run(reference, models, lambda chunks: advance(chunks * share)):
        put(_measurement(model, scores, reference.conditions))


@dataclass(frozen=True)
class _Job:
    """What a worker is told: files by path and digest."""

    base: Path
    base_digest: str
    text: str
    options: MeasureOptions


def _by_crew(reference: _Reference, models: list[Model], put: Put, advance: Advance) -> None:
    """A file is a task, and the base runs for each."""
    base, options = reference.base, reference.options
    with WorkerPool(options.execution) as crew:
        alone = replace(options, execution=options.execution.within_worker(crew.threads(options.execution.threads)))
        job = _Job(base.path.absolute(), base.digest, reference.text, alone)
        for _, found in crew.run(_there, job, [(model.path.absolute(), model.digest) for model in models]):
            put(found)
            advance(1 / len(models))


def _there(job: _Job, file: tuple[Path, str]) -> Measurement:
    """What a worker runs."""
    model_here(job.base, job.base_digest)
    model_here(*file)
    execution = replace(job.options.execution, threads=job.options.execution.threads or dask_threads())
    return measure(job.base, [file[0]], job.text, replace(job.options, execution=execution))[0]


def bits_per_weight(model: Model) -> float:
    """Bits of all tensor data over all weights, as llama.cpp prints BPW."""
    return 8 * sum(tensor.bytes for tensor in model.tensors) / model.elements


class _Reference:
    """The base model's side: the windows of the text in groups that fit into memory, and its logits for one
    group at a time.
    """

    def __init__(self, base: Model, text: str, options: MeasureOptions) -> None:
        self.base, self.text, self.options = base, text, options
        self.cut = cut(base, text, options.n_ctx, options.chunks)
        self.chunks = self.cut.chunks
        self.groups = _groups(self.cut, options)
        self._kept: np.ndarray | None = None

    @property
    def conditions(self) -> Conditions:
        return Conditions(
            text_digest=text_digest(self.text),
            n_ctx=self.options.n_ctx,
            chunks=len(self.chunks),
            base_digest=self.base.digest,
            engine=ENGINE,
            backend=self.options.execution.backend,
            llama_cpp=f"llama-cpp-python {version('llama-cpp-python')}",
        )

    def rows(self, group: slice, step: Advance) -> BaseRows:
        """The base's logits for a group. Its model is freed before a file is loaded; the last group's rows
        are overwritten.
        """
        with Engine(self.base.path, self.options.engine) as engine:
            chunks = self.chunks[group]
            per_chunk = _scored(self.options.n_ctx)
            if self._kept is None:
                self._kept = np.empty((len(chunks) * per_chunk, engine.vocabulary), np.float32)
            log_sums, first = [], 0
            for logits in engine.logits(chunks):
                last = first + len(logits) * per_chunk
                log_sums.append(base_rows(logits, self._kept[first:last]).log_sum)
                first = last
                step(len(logits))
        _check_finite(log_sums, self.base)
        return BaseRows(self._kept[:first], np.concatenate(log_sums))


def _scored(n_ctx: int) -> int:
    """Tokens of a window that are scored: those of its second half but the last, which predicts a token
    outside of it.
    """
    return n_ctx - n_ctx // 2 - 1


def _groups(cut: Cut, options: MeasureOptions) -> list[slice]:
    """Whole batches of windows, so that results do not depend on the memory: a batch's size may change its
    rounding.
    """
    chunks, together = len(cut.chunks), chunks_per_batch(options.n_ctx)
    room = min(options.memory_bytes, psutil.virtual_memory().available // 2)
    per_chunk = _scored(options.n_ctx) * cut.vocabulary * np.dtype(np.float32).itemsize
    size = max(1, room // (per_chunk * together)) * together
    return [slice(start, min(start + size, chunks)) for start in range(0, chunks, size)]


def _run(reference: _Reference, models: list[Model], step: Advance) -> Iterator[tuple[Model, TokenScores]]:
    """Each model with the scores of the whole text, as soon as it is through its last group."""
    parts: dict[str, list[TokenScores]] = {model.digest: [] for model in models}
    for group in reference.groups if models else ():
        base = reference.rows(group, step)
        for model in models:
            parts[model.digest].append(_score(model, reference, group, base, step))
            if group is reference.groups[-1]:
                yield model, joined(parts.pop(model.digest))


def _score(model: Model, reference: _Reference, group: slice, base: BaseRows, step: Advance) -> TokenScores:
    """The model's scores on a group of windows."""
    chunks, found, first = reference.chunks[group], [], 0
    with Engine(model.path, reference.options.engine) as engine:
        for logits in engine.logits(chunks):
            batch = chunks[len(found) * engine.chunks_per_batch :][: len(logits)]
            targets = batch[:, engine.first_scored + 1 :].reshape(-1)
            rows = slice(first, first + len(targets))
            found.append(token_scores(BaseRows(base.logits[rows], base.log_sum[rows]), logits, targets))
            first = rows.stop
            step(len(logits))
    _check_finite([scores.kld + scores.nll for scores in found], model)
    return joined(found)


def _check_finite(values: list[np.ndarray], model: Model) -> None:
    if not all(np.isfinite(each).all() for each in values):
        raise BadFile(
            f"{model.path}: its logits are not all numbers on this text: is the file damaged? "
            "Build or download it again"
        )


def _measurement(model: Model, scores: TokenScores, conditions: Conditions) -> Measurement:
    return Measurement(
        **vars(figures(scores, conditions.chunks)),
        file=str(model.path),
        model_digest=model.digest,
        file_bytes=model.file_bytes,
        bpw=bits_per_weight(model),
        conditions=conditions,
    )


class _Done:
    """Finished measurements by model digest, kept in a journal where there is a folder for it."""

    def __init__(self, folder: Path | None, conditions: Conditions) -> None:
        self._journal = Journal(folder, "measure", asdict(conditions)) if folder else None
        self._found: dict[str, Measurement] = {}
        for digest, content in (self._journal.results if self._journal else {}).items():
            self._found[digest] = from_fields(content)

    def __contains__(self, digest: str) -> bool:
        return digest in self._found

    def put(self, measurement: Measurement) -> None:
        self._found[measurement.model_digest] = measurement
        if self._journal:
            self._journal.put(measurement.model_digest, as_fields(measurement))

    def measurement(self, file: Path, digest: str) -> Measurement:
        return replace(self._found[digest], file=str(file))
