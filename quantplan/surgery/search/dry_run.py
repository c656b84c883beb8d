"""What a search would do, known before anything runs: candidates, loaded models, disk space, forward passes."""

from dataclasses import dataclass

from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import chunks_per_batch
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.candidates import EXPLICIT, Candidate, CandidateFilter, check_explicit
from quantplan.surgery.search.evaluations import EvaluationJob
from quantplan.surgery.search.families import Family
from quantplan.surgery.search.host import frame
from quantplan.surgery.search.search import SearchOptions
from quantplan.tensor import Model


@dataclass(frozen=True)
class SearchStage:
    """``exact``: the number of candidates is known; else it is the most there can be, as it depends on the stage before."""

    name: str
    candidates: int
    exact: bool


@dataclass(frozen=True)
class SearchEstimate:
    """``hosts``: models loaded one after the other in the first stage, the original among them; ``disk_bytes``: of temporary
    model files at the same time; ``passes``: forward passes of a batch of chunks, at most. ``refused`` and ``repeated``:
    candidates by family that cannot be run or are there already; ``reasons``: why the first was refused.
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
    check_explicit(model, options.explicit, imatrix, options.skip_check)
    admission = CandidateFilter(model, imatrix, options.skip_check)
    exact_stages, first = _first_stage(model, options, admission)
    stages = exact_stages + _later_stages(model, options)
    original = frame(model, LayerMap.identity(model.blocks))
    frames = {frame(model, candidate.layer_map): candidate for candidate in first}
    most = min(sum(stage.candidates for stage in stages), options.max_candidates or (1 << 60))
    file_bytes = [_file_bytes(model, candidate) for key, candidate in frames.items() if key != original]
    return SearchEstimate(
        stages=tuple(stages),
        refused=dict(admission.refused),
        repeated=dict(admission.repeated),
        reasons=admission.reasons,
        hosts=len(frames.keys() | {original}),
        disk_bytes=job.execution.jobs * max(file_bytes, default=0),
        passes=(1 + most) * -(-job.chunks // chunks_per_batch(job.n_ctx)),
    )


def _first_stage(
    model: Model, options: SearchOptions, admission: CandidateFilter
) -> tuple[list[SearchStage], list[Candidate]]:
    stages, candidates = [], []
    for family in options.families:
        admitted = admission.admit([(edit,) for edit in family.first(model.blocks)], family.name, 1)
        stages.append(SearchStage(str(family), len(admitted), exact=True))
        candidates += admitted
    if options.explicit:
        admitted = admission.admit(options.explicit, EXPLICIT, 1)
        stages.append(SearchStage("--edits", len(admitted), exact=True))
        candidates += admitted
    return stages, candidates


def _later_stages(model: Model, options: SearchOptions) -> list[SearchStage]:
    passes = [
        SearchStage(f"{family.name}, pass {number + 1}", _most_in_pass(family, number, model), exact=False)
        for family in options.families
        for number in range(1, len(family.passes))
    ]
    phases = range(2, options.phases + 1)
    return passes + [SearchStage(f"phase {phase}", options.keep * options.breadth, exact=False) for phase in phases]


def _most_in_pass(family: Family, number: int, model: Model) -> int:
    """The most candidates that the pass can have, whichever is the best of the pass before."""
    edits = family.first(model.blocks)
    for earlier in range(1, number):
        edits = [edit for best in edits for edit in family.around(best, earlier, model.blocks)]
    return max((len(family.around(best, number, model.blocks)) for best in edits), default=0)


def _file_bytes(model: Model, candidate: Candidate) -> int:
    """Of the candidate's file."""
    weights = sum(tensor.bytes for tensor in edited_tensors(model, candidate.layer_map))
    return weights + model.file_bytes - sum(tensor.bytes for tensor in model.tensors)
