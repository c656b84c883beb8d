"""Evaluates layer maps in loaded models: in this process, or in several that each keep a model loaded."""

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from quantplan.errors import BadFile, WorkersLost
from quantplan.evaluate.figures import figures
from quantplan.evaluate.suites.scoring import ppl_ratio, score_loaded
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.llamacpp.token_scores import BaseRows, base_rows, joined, token_scores
from quantplan.measurement import Estimate
from quantplan.parallel.worker_pool import Lost, WorkerPool, task_size
from quantplan.records.codec import finite
from quantplan.sensitivity.probe_workers import check_memory, model_here
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.evaluations import CandidateScore, EvaluationJob, SearchTiming
from quantplan.surgery.search.host import Host, frame
from quantplan.tensor import Model


class CandidateEvaluator:
    """The original's logits, and a loaded model that becomes one map after the other. Use as a context manager."""

    def __init__(self, job: EvaluationJob) -> None:
        self.timing, self._job = SearchTiming(), job
        self._model = model_here(job.model, job.model_digest)
        self._imatrix = read_imatrix(job.imatrix) if job.imatrix else None
        self._host = self._load(LayerMap.identity(self._model.blocks))
        try:
            self._chunks = self._host.engine.chunks(job.text, job.chunks)
            self._base = self._base_rows()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "CandidateEvaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._host.close()

    def evaluate(self, layer_map: LayerMap) -> CandidateScore:
        """The figures of the map. Raises BadFile, NoSpace."""
        began = time.perf_counter()
        self._become(layer_map)
        score = self._figures()
        self.timing.total += time.perf_counter() - began
        self.timing.evaluations += 1
        return score

    def _figures(self) -> CandidateScore:
        scores = joined([token_scores(base, logits, targets) for base, logits, targets in self._batches()])
        with np.errstate(all="ignore"):
            of_text = figures(scores, len(self._chunks))
        values = (of_text.ppl.value, of_text.ppl.stderr, of_text.kld.value, of_text.kld.stderr)
        if any(value is not None and finite(value) is None for value in values):
            return self._with_suite(CandidateScore(None, None), math.inf)
        score = CandidateScore(of_text.ppl, of_text.kld, of_text.per_chunk_nll)
        return self._with_suite(score, ppl_ratio(of_text.ln_ppl_ratio))

    def _with_suite(self, score: CandidateScore, ratio: Estimate | float) -> CandidateScore:
        if self._job.suite is None:
            return score
        at_suite = score_loaded(self._host.engine, self._model.metadata, self._job.suite, ratio)
        credits = {part.name: part.credit.value for part in at_suite.applicable}
        return replace(score, score=at_suite.overall, scores=credits)

    def _become(self, layer_map: LayerMap) -> None:
        tensors = edited_tensors(self._model, layer_map)
        if self._host.frame == frame(self._model, layer_map, tensors) and self._host.become(tensors):
            return
        self._host.close()
        self._host = self._load(layer_map)

    def _load(self, layer_map: LayerMap) -> Host:
        host = Host(self._model, layer_map, self._job.engine, self._job.folder, self._imatrix)
        self.timing.load += host.load_seconds
        return host

    def _base_rows(self) -> list[BaseRows]:
        rows = [base_rows(logits) for logits in self._host.engine.logits(self._chunks)]
        if not all(np.isfinite(batch.log_sum).all() for batch in rows):
            raise BadFile(f"{self._model.path}: the model produced NaN or infinite logits; the file may be damaged")
        return rows

    def _batches(self) -> Iterator[tuple[BaseRows, np.ndarray, np.ndarray]]:
        """The original's rows, the logits of what is loaded now, and the tokens that followed."""
        engine = self._host.engine
        size, batches = engine.chunks_per_batch, engine.logits(self._chunks)
        for index, base in enumerate(self._base):
            began = time.perf_counter()
            logits = next(batches)
            self.timing.forward += time.perf_counter() - began
            yield base, logits, self._chunks[index * size :][: len(logits), engine.first_scored + 1 :].reshape(-1)


@dataclass
class Evaluators:
    """Evaluates maps here, or in ``job.execution.jobs`` processes that each hold a model. Use as a context manager."""

    job: EvaluationJob
    timing: SearchTiming = field(default_factory=SearchTiming)

    def __post_init__(self) -> None:
        self._evaluator: CandidateEvaluator | None = None
        self._pool: WorkerPool | None = None
        if self.job.execution.many:
            check_memory(model_here(self.job.model, self.job.model_digest), self.job.execution)

    def __enter__(self) -> "Evaluators":
        return self

    def __exit__(self, *error: object) -> None:
        if self._evaluator:
            self._evaluator.close()
        if self._pool:
            self._pool.__exit__(*error)

    def evaluate(
        self, model: Model, maps: Sequence[LayerMap]
    ) -> Generator[tuple[LayerMap, CandidateScore], None, None]:
        """Scores as they are ready, frame after frame. WorkersLost at the end where processes died."""
        by_frame: dict[str, list[LayerMap]] = {}
        for layer_map in maps:
            by_frame.setdefault(frame(model, layer_map), []).append(layer_map)
        if self.job.execution.many:
            yield from self._in_workers(list(by_frame.values()))
        else:
            yield from self._here([layer_map for group in by_frame.values() for layer_map in group])

    def _here(self, maps: Sequence[LayerMap]) -> Generator[tuple[LayerMap, CandidateScore], None, None]:
        if self._evaluator is None and maps:
            self._evaluator = CandidateEvaluator(self.job)
            self.timing = self._evaluator.timing
        for layer_map in maps:
            assert self._evaluator is not None
            yield layer_map, self._evaluator.evaluate(layer_map)

    def _in_workers(
        self, groups: Sequence[Sequence[LayerMap]]
    ) -> Generator[tuple[LayerMap, CandidateScore], None, None]:
        if self._pool is None:
            self._pool = WorkerPool(self.job.execution)
        execution = self.job.execution.within_worker(self._pool.threads(self.job.execution.threads))
        job = replace(self.job, model=self.job.model.absolute(), execution=execution)
        size = task_size(sum(map(len, groups)), self._pool.size)
        tasks = [tuple(group[at : at + size]) for group in groups for at in range(0, len(group), size)]
        try:
            with closing(self._pool.run(evaluate_in_worker, job, tasks)) as results:
                for task, scores in results:
                    yield from zip(task, scores, strict=True)
        except Lost as lost:
            count = sum(len(task) for task in lost.items)
            raise WorkersLost(
                f"{lost.reason}. {count} candidates were not evaluated; finished ones are kept: run the same command again"
            ) from None


_held: tuple[EvaluationJob, CandidateEvaluator] | None = (
    None  # what a worker keeps between tasks, until the search ends
)


def evaluate_in_worker(job: EvaluationJob, maps: tuple[LayerMap, ...]) -> list[CandidateScore]:
    """What a worker runs."""
    global _held
    if _held is None or _held[0] != job:
        if _held is not None:
            _held[1].close()
            _held = None
        _held = (job, CandidateEvaluator(job))
    return [_held[1].evaluate(layer_map) for layer_map in maps]
