"""Who reads maps: this process, or several that each keep a model loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from quantplan.errors import WorkersLost
from quantplan.parallel.worker_pool import Lost, WorkerPool, task_size
from quantplan.sensitivity.probe_tasks import check_memory, model_here
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.evaluations import CandidateScore, EvaluationJob, MapEvaluator, SearchTiming
from quantplan.surgery.search.host import frame
from quantplan.tensor import Model


@dataclass
class Evaluators:
    """Reads maps here, or by ``job.execution.jobs`` processes that each hold a model. Use as a context manager."""

    job: EvaluationJob
    timing: SearchTiming = field(default_factory=SearchTiming)

    def __post_init__(self) -> None:
        self._reader: MapEvaluator | None = None
        self._crew: WorkerPool | None = None
        if self.job.execution.many:
            check_memory(model_here(self.job.model, self.job.model_digest), self.job.execution)

    def __enter__(self) -> Evaluators:
        return self

    def __exit__(self, *error: object) -> None:
        if self._reader:
            self._reader.close()
        if self._crew:
            self._crew.__exit__(*error)

    def read(self, model: Model, maps: Sequence[LayerMap]) -> Iterator[tuple[LayerMap, CandidateScore]]:
        """Readings as they are ready, those of one frame after the other. WorkersLost at the end where processes died."""
        by_frame: dict[str, list[LayerMap]] = {}
        for each in maps:
            by_frame.setdefault(frame(model, each), []).append(each)
        if self.job.execution.many:
            yield from self._by_crew(list(by_frame.values()))
        else:
            yield from self._here([each for group in by_frame.values() for each in group])

    def _here(self, maps: Sequence[LayerMap]) -> Iterator[tuple[LayerMap, CandidateScore]]:
        if self._reader is None and maps:
            self._reader = MapEvaluator(self.job)
            self.timing = self._reader.timing
        for each in maps:
            assert self._reader is not None
            yield each, self._reader.read(each)

    def _by_crew(self, groups: Sequence[Sequence[LayerMap]]) -> Iterator[tuple[LayerMap, CandidateScore]]:
        if self._crew is None:
            self._crew = WorkerPool(self.job.execution)
        execution = self.job.execution.within_worker(self._crew.threads(self.job.execution.threads))
        job = replace(self.job, model=self.job.model.absolute(), execution=execution)
        size = task_size(sum(map(len, groups)), self._crew.size)
        chunks = [tuple(group[at : at + size]) for group in groups for at in range(0, len(group), size)]
        try:
            with closing(self._crew.run(read_there, job, chunks)) as results:
                for chunk, found in results:
                    yield from zip(chunk, found, strict=True)
        except Lost as lost:
            count = sum(len(chunk) for chunk in lost.items)
            raise WorkersLost(
                f"{lost.reason}. {count} candidates were not read; what was finished is kept: run the same command again"
            ) from None


_held: tuple[EvaluationJob, MapEvaluator] | None = None  # what a worker keeps between tasks; it ends with the search


def read_there(job: EvaluationJob, maps: tuple[LayerMap, ...]) -> list[CandidateScore]:
    """What a worker runs."""
    global _held
    if _held is None or _held[0] != job:
        if _held is not None:
            _held[1].close()
            _held = None
        _held = (job, MapEvaluator(job))
    return [_held[1].read(each) for each in maps]
