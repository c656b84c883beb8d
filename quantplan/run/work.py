"""A target on its way through a run, and the run's plans, kept as files in the cache."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest
from quantplan.records.cache import Cache, Plain
from quantplan.records.formats import PLANS
from quantplan.records.journal import digest_of, text_digest
from quantplan.run.evaluation import EvaluatedFile
from quantplan.run.refine import Refinement, Scored
from quantplan.run.targets import RunOptions, RunTarget
from quantplan.text import Text


class KeptPlans:
    """Plans that were solved for, so that after an interruption the same ones go on, were the solver's time as it may."""

    def __init__(self, cache: Path, *made_from: object) -> None:
        self._cache = cache
        self._files: Cache[dict[str, str]] = Cache(Plain(dict[str, str]), cache, "run", *made_from)

    def get(self, key: str, make: Callable[[], Plan | None]) -> Plan | None:
        return self.several(key, lambda: {"": plan} if (plan := make()) else {}).get("")

    def several(self, key: str, make: Callable[[], dict[str, Plan]]) -> dict[str, Plan]:
        kept = self._files.get(key)
        if kept is not None and all((self._cache / file).is_file() for file in kept.values()):
            return {name: PLANS.read(self._cache / file) for name, file in kept.items()}
        made = make()
        files = {name: f"plan-{digest_of(self._files.name, key, name)[:32]}.json" for name in made}
        for name, plan in made.items():
            PLANS.write(plan, self._cache / files[name])
        self._files.put(key, files)
        return made

    def like(self, beginning: str) -> list[Plan]:
        """All that were kept under keys of that beginning."""
        files = [file for key in self._files if key.startswith(beginning) for file in self._files[key].values()]
        return [PLANS.read(self._cache / file) for file in files if (self._cache / file).is_file()]


@dataclass(frozen=True)
class Work:
    """A target on its way. ``request``: the target's, for refinement at the plan's own size where it asked for a KLD;
    ``fallbacks``: stock quants that keep its limits, the largest first; ``stock_rounding``: the plan's types as llama-quantize
    rounds them, where the plan has compensated rounding; ``rounding``: what was decided between the two, and why.
    """

    target: RunTarget
    request: PlanRequest
    plan: EvaluatedFile
    fallbacks: tuple[EvaluatedFile, ...]
    neighbours: tuple[EvaluatedFile, ...] = ()
    stock_rounding: EvaluatedFile | None = None
    rounding: str = ""
    state: Refinement = None  # type: ignore[assignment]  # until the first measurements are there

    @property
    def files(self) -> tuple[EvaluatedFile, ...]:
        stock_rounding = (self.stock_rounding,) if self.stock_rounding else ()
        return (self.plan, *stock_rounding, *self.fallbacks, *self.neighbours)

    @property
    def stock_taken(self) -> bool:
        """Whether compensated rounding was given up."""
        return self.plan is self.stock_rounding

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
    further += [repr(target.caches)] if target.caches else []
    constraints = repr(request.constraints)
    return digest_of(target.budget_bytes, types, constraints, request.per, request.objective, *further)[:16]


def noted_table(request: PlanRequest, calibration: Text, options: RunOptions, cache: Path) -> Cache[str]:
    """Where the sensitivity table that was made last under these conditions is noted."""
    how, source = options.pricing, options.source
    imatrix = request.imatrix.digest if request.imatrix else None
    types = sorted(kind.name for kind in how.types)
    probe = (how.probe.n_ctx, how.probe.chunks, how.probe.extend, how.probe.execution.backend)
    made_from: list[object] = [request.model.digest, imatrix, text_digest(calibration), types, probe]
    made_from += [how.sample_elements, how.compensate]
    if source != "probe":
        text = Path(source).read_text(encoding="utf-8") if Path(source).is_file() else ""
        made_from += [source, text_digest(text)]
    return Cache(Plain(str), cache, "run-priced", *made_from)
