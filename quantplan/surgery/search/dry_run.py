"""What a search would do, known before anything runs: candidates, hosts, disk, forward passes."""

from __future__ import annotations

from dataclasses import dataclass

from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import chunks_per_batch
from quantplan.surgery.assembly import assemble
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.candidates import EXPLICIT, Admission, Candidate, check_explicit
from quantplan.surgery.search.evaluations import EvaluationJob
from quantplan.surgery.search.families import Family
from quantplan.surgery.search.host import frame
from quantplan.surgery.search.search import SearchOptions
from quantplan.tensor import Model


@dataclass(frozen=True)
class SearchStage:
    """``exact``: whether so many are known; else at most so many, for they depend on what the stage before finds."""

    name: str
    candidates: int
    exact: bool


@dataclass(frozen=True)
class SearchEstimate:
    """``hosts``: models loaded one after the other in the first stage, the original among them; ``disk_bytes``: of files of
    hosts at the same time; ``passes``: forward passes of a batch of windows, at most. ``reasons``: why the first was refused.
    """

    stages: tuple[SearchStage, ...]
    refused: dict[str, int]
    repeated: dict[str, int]
    reasons: dict[str, str]
    hosts: int
    disk_bytes: int
    passes: int

    @property
    def candidates(self) -> int:
        """At most."""
        return sum(stage.candidates for stage in self.stages)


def estimate_search(
    model: Model, job: EvaluationJob, options: SearchOptions, imatrix: Imatrix | None = None
) -> SearchEstimate:
    """Raises BadUsage for explicit candidates that cannot be run."""
    check_explicit(model, options.explicit, imatrix, options.forced)
    admission = Admission(model, imatrix, options.forced)
    stages, firsts = [], []
    for family in options.families:
        own = admission.admit([(edit,) for edit in family.first(model.blocks)], family.name, 1)
        stages.append(SearchStage(str(family), len(own), True))
        firsts += own
    own = admission.admit(options.explicit, EXPLICIT, 1)
    if options.explicit:
        stages.append(SearchStage("edits given", len(own), True))
    firsts += own
    stages += [
        SearchStage(f"{family.name}, pass {at + 1}", _finer(family, at, model), False)
        for family in options.families
        for at in range(1, len(family.passes))
    ]
    stages += [
        SearchStage(f"phase {phase}", options.keep * options.breadth, False) for phase in range(2, options.phases + 1)
    ]
    frames = {frame(model, each.layer_map): each for each in firsts}
    count = 1 + min(sum(stage.candidates for stage in stages), options.max_candidates or (1 << 60))
    return SearchEstimate(
        tuple(stages),
        dict(admission.refused),
        dict(admission.repeated),
        admission.reasons,
        len(frames | {frame(model, LayerMap.identity(model.blocks)): None}),
        job.execution.jobs * max((_file_bytes(model, each) for each in frames.values()), default=0),
        count * -(-job.chunks // chunks_per_batch(job.n_ctx)),
    )


def _finer(family: Family, number: int, model: Model) -> int:
    """The most candidates that the pass can have, wherever the best of the pass before lies."""
    before = [family.first(model.blocks)]
    for at in range(1, number):
        before.append([edit for best in before[-1] for edit in family.around(best, at, model.blocks)])
    return max((len(family.around(best, number, model.blocks)) for best in before[-1]), default=0)


def _file_bytes(model: Model, candidate: Candidate) -> int:
    """Of the file of its host; none for a host that is the model itself."""
    if frame(model, candidate.layer_map) == frame(model, LayerMap.identity(model.blocks)):
        return 0
    weights = sum(part.bytes for part in assemble(model, candidate.layer_map))
    return weights + model.file_bytes - sum(tensor.bytes for tensor in model.tensors)
