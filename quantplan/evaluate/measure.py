"""Measuring files against their base model on float32 logits: here, on RPC servers, or as tasks of a worker pool."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from quantplan.cache_types import F16_CACHE, CacheTypes, parse_kv
from quantplan.devices.memory_formulas import ServeSettings, check_kv
from quantplan.errors import WorkersLost
from quantplan.evaluate.base_logits import BaseLogits, Run
from quantplan.evaluate.figures import domain_figures, figures
from quantplan.evaluate.same_tokens import check_same_tokens, check_vocabulary, measuring_notes
from quantplan.evaluate.text_places import placed
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import TokenScores
from quantplan.measurement import Conditions, Measurement
from quantplan.parallel.rpc import on_servers
from quantplan.parallel.worker_pool import Lost, WorkerPool, worker_threads
from quantplan.progress import Advance, Reporter
from quantplan.records.cache import Cache
from quantplan.records.formats import MEASUREMENTS
from quantplan.sensitivity.probe_workers import model_here
from quantplan.spikes import Spike, find_spikes
from quantplan.tensor import Model
from quantplan.text import Text

Put = Callable[[Measurement], None]


@dataclass(frozen=True)
class MeasureOptions:
    """``chunks`` None takes all that the text has; ``memory_bytes``: for the base's logits, and at most half of what is free.

    ``cache_types``: of the KV cache that files are run with; the base model's is F16.
    """

    n_ctx: int = 512
    chunks: int | None = None
    execution: Execution = Execution()
    memory_bytes: int = 2 << 30
    cache_types: CacheTypes = F16_CACHE

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(self.n_ctx, self.execution)


def measure(
    base_path: Path,
    files: Sequence[Path],
    text: Text,
    options: MeasureOptions | None = None,
    advance: Advance | None = None,
    cache: Path | None = None,
) -> list[Measurement]:
    """The measurements of ``files`` in their order; a file named twice is run once.

    Of domains each is measured, and all together. ``advance`` gets shares of the whole work that add up to 1. In the folder
    ``cache`` finished files are kept, and taken from
    there while nothing that matters has changed. Raises BadFile, ModelMismatch, TextTooShort, WorkersLost.
    """
    options = options or MeasureOptions()
    runs = [(Path(file), options.cache_types) for file in files]
    return measure_runs(base_path, runs, text, options, advance, cache)


def measure_runs(
    base_path: Path,
    runs: Sequence[tuple[Path, CacheTypes]],
    text: Text,
    options: MeasureOptions,
    advance: Advance | None = None,
    cache: Path | None = None,
) -> list[Measurement]:
    """The same for files with types of the KV cache of their own, which ``options`` then does not decide."""
    advance = advance or (lambda _share: None)
    base = read_model(base_path)
    models = {path: read_model(path) for path, _ in runs}
    for model in models.values():
        check_vocabulary(base, model)
    for path, cache_types in runs:
        check_kv(models[path], ServeSettings(options.n_ctx, cache_types))
    reference = BaseLogits(base, text, options.engine, options.chunks, options.memory_bytes)
    finished = _Finished(reference, cache)
    left = {(models[path].digest, types): (models[path], types) for path, types in runs}
    left = {key: run for key, run in left.items() if run not in finished}
    check_same_tokens(base, reference.tokens, dict(left.values()), text, options.chunks)
    if left:
        _measure(reference, list(left.values()), options, finished, advance)
    else:
        advance(1)
    measured = [_named(finished[models[path], types], path, models[path]) for path, types in runs]
    return [replace(each, spikes=_spikes(each, base, text, options.n_ctx)) for each in measured]


class _Finished:
    """Measurements by run, each kept under its conditions."""

    def __init__(self, reference: BaseLogits, folder: Path | None) -> None:
        self._reference, self._folder = reference, folder
        self._caches: dict[CacheTypes, Cache[Measurement]] = {}

    def _of(self, types: CacheTypes) -> Cache[Measurement]:
        if types not in self._caches:
            conditions = asdict(self._reference.conditions(types))
            self._caches[types] = Cache(MEASUREMENTS, self._folder, "measure", conditions)
        return self._caches[types]

    def __contains__(self, run: Run) -> bool:
        return run[0].digest in self._of(run[1])

    def __getitem__(self, run: Run) -> Measurement:
        return self._of(run[1])[run[0].digest]

    def put(self, measurement: Measurement) -> None:
        self._of(parse_kv(measurement.conditions.cache_types)).put(measurement.model_digest, measurement)


def _named(measurement: Measurement, file: Path, model: Model) -> Measurement:
    """What was measured, with what depends on the file's name and header alone."""
    return replace(measurement, file=str(file), bytes_per_token=model.bytes_per_token())


def _spikes(measurement: Measurement, base: Model, text: Text, n_ctx: int) -> tuple[Spike, ...]:
    domains = [(domain.name, domain.chunks) for domain in measurement.domains]
    return measurement.spikes or placed(find_spikes(measurement.per_chunk_kld), base, text, n_ctx, domains)


def _measure(
    reference: BaseLogits, runs: list[Run], options: MeasureOptions, finished: _Finished, advance: Advance
) -> None:
    """Puts the measurements of all runs into ``finished``, wherever the options say that they run."""
    execution = options.execution
    try:
        if execution.many:
            _in_pool(reference, runs, options, finished.put, advance)
        elif execution.rpc:
            on_servers(execution.rpc, _on_servers, reference, runs, put=finished.put, advance=advance)
        else:
            _here(reference, runs, finished.put, advance)
    except Lost as lost:
        names = ", ".join(dict.fromkeys(str(run[0].path) for run in runs if run not in finished))
        raise WorkersLost(
            f"{lost.reason}. Not measured: {names}; finished files are kept: run the same command again for the rest"
        ) from None


def _on_servers(reference: BaseLogits, runs: list[Run], report: Reporter, put: Put, advance: Advance) -> None:
    _here(reference, runs, put, advance)


def _here(reference: BaseLogits, runs: list[Run], put: Put, advance: Advance) -> None:
    share = 1 / (len(reference.chunks) * (len(runs) + 1))
    for (model, types), scores in reference.scores(runs, lambda chunks: advance(chunks * share)):
        conditions = reference.conditions(types)
        notes = measuring_notes(reference.base, model, conditions.n_ctx)
        put(measurement_of(model, scores, conditions, reference.tokens.domains, notes))


@dataclass(frozen=True)
class _Job:
    """What a worker gets: files by path and digest."""

    base: Path
    base_digest: str
    text: Text
    options: MeasureOptions


def _in_pool(reference: BaseLogits, runs: list[Run], options: MeasureOptions, put: Put, advance: Advance) -> None:
    """A run is a task, and the base runs for each."""
    base = reference.base
    with WorkerPool(options.execution) as pool:
        alone = replace(options, execution=options.execution.within_worker(pool.threads(options.execution.threads)))
        job = _Job(base.path.absolute(), base.digest, reference.text, alone)
        tasks = [(model.path.absolute(), model.digest, types) for model, types in runs]
        for _, measurement in pool.run(_in_worker, job, tasks):
            put(measurement)
            advance(1 / len(runs))


def _in_worker(job: _Job, task: tuple[Path, str, CacheTypes]) -> Measurement:
    path, digest, types = task
    model_here(job.base, job.base_digest)
    model_here(path, digest)
    execution = replace(job.options.execution, threads=job.options.execution.threads or worker_threads())
    return measure_runs(job.base, [(path, types)], job.text, replace(job.options, execution=execution))[0]


def measurement_of(
    model: Model,
    scores: TokenScores,
    conditions: Conditions,
    domains: Sequence[tuple[str, int]] = (),
    notes: tuple[str, ...] = (),
) -> Measurement:
    """``domains``: names and numbers of chunks, where the text has several."""
    return Measurement(
        **vars(figures(scores, conditions.chunks)),
        domains=domain_figures(scores, domains),
        file=str(model.path),
        model_digest=model.digest,
        file_bytes=model.file_bytes,
        bpw=model.bits_per_weight(),
        conditions=conditions,
        notes=notes,
    )
