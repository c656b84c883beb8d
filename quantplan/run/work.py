"""A target on its way through a run."""

from dataclasses import dataclass

from quantplan.planning.request import PlanRequest
from quantplan.records.journal import digest_of
from quantplan.run.evaluation import EvaluatedFile
from quantplan.run.refine import Refinement, Scored
from quantplan.run.targets import RunTarget


@dataclass(frozen=True)
class Work:
    """A target on its way. ``request``: the target's, for refinement at the plan's own size where it asked for a KLD;
    ``fallbacks``: stock quants that keep its limits, the largest first; ``stock_rounding``: the plan's types as llama-quantize
    rounds them, where the plan has compensated rounding.
    """

    target: RunTarget
    request: PlanRequest
    plan: EvaluatedFile
    fallbacks: tuple[EvaluatedFile, ...]
    neighbours: tuple[EvaluatedFile, ...] = ()
    stock_rounding: EvaluatedFile | None = None
    state: Refinement = None  # type: ignore[assignment]  # until the first measurements are there

    @property
    def files(self) -> tuple[EvaluatedFile, ...]:
        stock_rounding = (self.stock_rounding,) if self.stock_rounding else ()
        return (self.plan, *stock_rounding, *self.fallbacks, *self.neighbours)

    @property
    def best(self) -> EvaluatedFile:
        return self._file_of(self.state.best)

    @property
    def leader(self) -> EvaluatedFile:
        return self._file_of(self.state.leader)

    def _file_of(self, scored: Scored) -> EvaluatedFile:
        return EvaluatedFile(scored.name, scored.plan, finished=self.target.file)


def target_key(target: RunTarget) -> str:
    """Under which its plans are kept."""
    request = target.request
    types = [kind.name for kind in request.types]
    limits = [request.most_kld, request.devices, request.least_tps]
    further = [repr(limits)] if any(limit is not None for limit in limits) else []
    constraints = repr(request.constraints)
    return digest_of(target.budget_bytes, types, constraints, request.per, request.objective, *further)[:16]
