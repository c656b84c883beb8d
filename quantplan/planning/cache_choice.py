"""Weights and KV cache in one budget: each pair of cache types is a program of its own, and the best total is the plan."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from quantplan.cache_sensitivity import CacheSensitivity, chosen
from quantplan.cache_types import CacheTypes, parse_kv
from quantplan.devices.limits import Devices, needs_of
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.execution import cores
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, formulate_request
from quantplan.planning.solving import Solved, formulations, plan_of_solved, solve_formulations
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.worst_domain import WORST_DOMAIN
from quantplan.tensor import Model


def plan_with_cache(
    request: PlanRequest, table: SensitivityTable, caches: CacheSensitivity, speeds: SpeedTable | None = None
) -> tuple[Plan, bool]:
    """The plan of the least KLD of weights and cache together, and whether everything fits at the largest types.

    The KLD of the cache joins the objective as one more damage (for ``most_kld``: it is taken off the limit). The types of
    the request's devices do not count. Raises BudgetImpossible where no pair leaves room, and what ``plan_for`` raises.
    """
    if request.devices is None:
        raise BadUsage("--kv auto chooses within a limit on memory: give --vram (or --ram) too")
    caches.check_belongs_to(request.model)
    best = _best(request, table, caches, speeds)
    plan, everything_fits = plan_of_solved(_with(request, best.types), table, best.solved, speeds)
    return replace(plan, cache=chosen(caches, best.types, request.devices.ctx)), everything_fits


def with_cache_of(plan: Plan, request: PlanRequest) -> PlanRequest:
    """The request with the types of the KV cache that were chosen with the plan."""
    return _with(request, parse_kv(plan.cache.types)) if plan.cache else request


def _with(request: PlanRequest, types: CacheTypes) -> PlanRequest:
    assert request.devices is not None
    return replace(request, devices=replace(request.devices, kv=types))


@dataclass(frozen=True)
class _Answer:
    """The answer of one pair; ``objective`` and ``bound`` with the cache's part."""

    types: CacheTypes
    solved: Solved
    objective: float
    bound: float


def _best(
    request: PlanRequest, table: SensitivityTable, caches: CacheSensitivity, speeds: SpeedTable | None
) -> _Answer:
    """Each pair is solved unless a proven bound rules it out: of all pairs that need no less memory than the smallest one, none
    loses less on weights than that one's bound.
    """
    assert request.devices is not None
    formulation = formulate_request(request, table)
    smallest, *others = _undominated(request.model, request.devices, caches)
    answers: list[_Answer] = []
    refused: list[BudgetImpossible] = []
    floor = 0.0
    for pair in (smallest, *sorted(others, key=lambda pair: caches.klds[pair.types].value)):
        kld = caches.klds[pair.types].value
        least = _total(request, floor if pair.needs_all_of(smallest) else 0.0, kld, table)
        if answers and request.most_kld is None and least >= min(answer.objective for answer in answers):
            continue
        try:
            within = _within(request, pair.types, kld)
            solved = solve_formulations(within, table, formulations(within, formulation, speeds))
        except BudgetImpossible as error:
            refused.append(error)
            continue
        if pair is smallest:
            floor = solved.solution.bound
        totals = (_total(request, value, kld, table) for value in (solved.solution.objective, solved.solution.bound))
        answers.append(_Answer(pair.types, solved, *totals))
    if not answers:
        raise refused[0]  # that of the smallest cache
    return _with_proof(answers)


def _with_proof(answers: Sequence[_Answer]) -> _Answer:
    """The best answer, with what was proven of all of them."""
    best = min(answers, key=lambda answer: answer.objective)
    bound = min(answer.bound for answer in answers)
    outcome = replace(
        best.solved.solution.outcome,
        objective=best.objective,
        bound=bound,
        gap=(best.objective - bound) / best.objective if best.objective else 0.0,
        seconds=sum(answer.solved.solution.outcome.seconds for answer in answers),
    )
    return replace(best, solved=replace(best.solved, solution=replace(best.solved.solution, outcome=outcome)))


def _within(request: PlanRequest, types: CacheTypes, kld: float) -> PlanRequest:
    """With these types, and what they leave of a limit on the KLD. BudgetImpossible where that is nothing."""
    pair = _with(request, types)
    if request.most_kld is None:
        return pair
    if kld >= request.most_kld:
        raise BudgetImpossible(
            f"the KV cache alone costs a KLD of {kld:.3g}, --max-kld is {request.most_kld:g}; ask for more, or for a smaller "
            "--serve-ctx, which leaves room for a larger cache type"
        )
    return replace(pair, most_kld=request.most_kld - kld)


def _total(request: PlanRequest, weights: float, kld: float, table: SensitivityTable) -> float:
    """The objective with the cache as one more damage. Sums of damages count ``factor`` times in what is expected."""
    if request.most_kld is not None:
        return weights  # bytes
    damage = kld / table.interaction.factor
    return {
        "sum": weights + damage,
        "tail": math.hypot(weights, damage),
        "max": max(weights, damage),
        WORST_DOMAIN: weights + kld,  # counted as expected KLDs already
    }[request.objective]


@dataclass(frozen=True)
class _Pair:
    """``sizes``: bytes that it takes in VRAM, of the compute buffer, and in RAM."""

    types: CacheTypes
    sizes: tuple[int, int, int]
    kld: float

    def needs_all_of(self, other: "_Pair") -> bool:
        return all(mine >= theirs for mine, theirs in zip(self.sizes, other.sizes, strict=True))

    def dominated_by(self, other: "_Pair") -> bool:
        return self.needs_all_of(other) and self.kld >= other.kld and (self.sizes, self.kld) != (other.sizes, other.kld)


def _undominated(model: Model, devices: Devices, caches: CacheSensitivity) -> list[_Pair]:
    """The smallest cache first; without pairs that need as much memory of each kind as another of no larger KLD."""

    def pair(types: CacheTypes) -> _Pair:
        needs = needs_of(model, devices.ctx, types)
        return _Pair(
            types, (needs.total(0), needs.compute_buffer.bytes, needs.host_buffer.bytes), caches.klds[types].value
        )

    with ThreadPoolExecutor(cores()) as pool:
        pairs = sorted(pool.map(pair, caches.klds), key=lambda pair: (pair.sizes, pair.kld))
    return [pair for pair in pairs if not any(pair.dominated_by(other) for other in pairs)]
