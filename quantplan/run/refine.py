"""Refinement: what was measured on built plans corrects the table, and a new plan counts only if a test says so.

The windows of the refinement text, which neither the probe nor the judges see, go in turn to learning and to testing. Besides the
plan and the stock mixes a few further plans are built: one without a family of types, some that would be best were
the scales otherwise, within their errors. What all of them lose on the first half corrects the table
(analyze/correction.py), and the problem is solved again inside a trust region around the plan. The best on the first half
takes the plan's place only where a paired test over the second half, which nothing was learnt from, says that its KLD is
lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.errors import BadUsage, BudgetImpossible, NothingSelected
from quantplan.evaluate.significance import PairedDifference, paired_difference
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, formulate_request, goal_of, plan_for, plan_of, quantizable
from quantplan.quant_type import QuantType
from quantplan.run.correction import Correction, Observed, corrected, correction
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solve.planner import limited, solve_formulation
from quantplan.tensor import Tensor

ROUNDS = 2
ERROR_RATE = 0.05  # one-sided: a plan that is no better takes the place of another as often at most
REGION = (
    0.2  # of the weights may be stored otherwise than the plan has it; halved after a round that found nothing better
)
LEAST_CHUNKS = 4  # two to learn from, two to test on: fewer have no error
SAMPLED = 3
_FAMILIES = ("k", "iq", "legacy")
_LEAST_SHARE = 0.05  # of the bytes: leaving out less than that would tell nothing
_MOVED = "weights that change their type"


@dataclass(frozen=True)
class Scored:
    """A plan that was built, and its KLD on each window of the refinement text, nats per token."""

    name: str
    plan: Plan
    klds: tuple[float, ...]


@dataclass(frozen=True)
class RefineStep:
    """A round: ``relative`` is what its plan loses more than the best before it on the windows to learn from (-0.01: one
    percent less); ``better`` than all before; ``moved``: share of the weights stored otherwise than in the plan.
    """

    name: str
    relative: float
    better: bool
    moved: float
    correction: Correction


@dataclass(frozen=True)
class Refinement:
    """``measured``: all plans and mixes that were built, each of which informs the correction; ``own``: those that keep the
    request's wishes, the plan first; ``region``: of the next round; ``withdrawn``: the text that judges took it back.
    """

    own: tuple[Scored, ...]
    stock_quants: tuple[Scored, ...] = ()
    region: float = REGION
    steps: tuple[RefineStep, ...] = ()
    withdrawn: bool = False

    @property
    def plan(self) -> Scored:
        return self.own[0]

    @property
    def measured(self) -> tuple[Scored, ...]:
        return (*self.own, *self.stock_quants)

    @property
    def leader(self) -> Scored:
        """The best of its own plans on the windows to learn from."""
        return min(self.own, key=lambda each: _mean(learning(each.klds)))

    @property
    def test(self) -> PairedDifference | None:
        """The leader against the plan on the windows that test; None where the plan leads itself."""
        if self.leader is self.plan:
            return None
        return paired_difference(np.array(testing(self.leader.klds)), np.array(testing(self.plan.klds)))

    @property
    def counts(self) -> bool:
        return not self.withdrawn and self.test is not None and lower(self.test)

    @property
    def best(self) -> Scored:
        """The leader where the test says that it loses less, else the plan."""
        return self.leader if self.counts else self.plan


def neighbours(request: PlanRequest, table: SensitivityTable, plan: Plan) -> dict[str, Plan]:
    """Plans of the same request whose measurement tells what the table does not know.

    One without the smaller of the plan's main families of types, where that can be planned, and ``SAMPLED`` that would be best
    were each row's scale another, drawn from its error (seeded): they differ where errors decide (Thompson, Biometrika 25,
    1933).
    """
    found = _without_family(request, table, plan)
    for seed in range(SAMPLED):
        other = nearby(request, sampled(table, seed), plan, REGION)
        if other.types not in [plan.types, *(each.types for each in found.values())]:
            found[f"sample {seed + 1}"] = other
    return found


def _without_family(request: PlanRequest, table: SensitivityTable, plan: Plan) -> dict[str, Plan]:
    families = _main_families(plan)
    if len(families) < 2:
        return {}
    types = tuple(kind for kind in request.types if kind.family != families[-1])
    try:
        other, _ = plan_for(replace(request, types=types), table)
    except (BudgetImpossible, NothingSelected, BadUsage):  # the wishes or the size want that family
        return {}
    return {f"without {families[-1]}": other} if other.types != plan.types else {}


def _main_families(plan: Plan) -> list[str]:
    """By bytes, the largest first."""
    sizes = {family: sum(t.bytes for t in plan.tensors if t.rule and t.type.family == family) for family in _FAMILIES}
    total = sum(tensor.bytes for tensor in plan.tensors if tensor.rule)
    return [name for name in sorted(sizes, key=lambda name: -sizes[name]) if sizes[name] > _LEAST_SHARE * total]


def sampled(table: SensitivityTable, seed: int) -> SensitivityTable:
    """The table with each row's scale drawn from its error, log-normal."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal(len(table.rows))
    return replace(
        table, rows={name: _scaled(row, at) for (name, row), at in zip(table.rows.items(), drawn, strict=True)}
    )


def _scaled(row: SensitivityRow, drawn: float) -> SensitivityRow:
    factor = float(np.exp(min(row.relative_error, 1.0) * drawn))
    weights = {kind: value * factor for kind, value in row.weights.items()}
    return replace(row, weights=weights, kernel={kind: value * factor for kind, value in row.kernel.items()})


def factors_of(request: PlanRequest, table: SensitivityTable, state: Refinement) -> Correction:
    """What all files that were measured say of the table, on the windows to learn from."""
    names = {tensor.name for tensor in quantizable(request.model)}
    seen = [
        Observed({name: kind.name for name, kind in each.plan.types.items() if name in names}, learning(each.klds))
        for each in state.measured
        if _priced(each.plan, table, names)
    ]
    return correction(table, seen)


def _priced(plan: Plan, table: SensitivityTable, names: set[str]) -> bool:
    """Stock mixes may hold types that were left out of the table: of these it predicts nothing."""
    return all(plan.types[name].name in table.rows[name].weights for name in names)


def proposal(request: PlanRequest, table: SensitivityTable, state: Refinement, factors: Correction) -> Plan | None:
    """The plan of the corrected table inside the trust region; None where it was measured already."""
    plan = nearby(request, corrected(table, factors), state.plan.plan, state.region)
    return None if plan.types in [each.plan.types for each in state.measured] else plan


def nearby(request: PlanRequest, table: SensitivityTable, around: Plan, region: float) -> Plan:
    """The best plan that stores no more than the share ``region`` of the weights otherwise than ``around``."""
    formulation = formulate_request(request, table)
    total = sum(tensor.elements for tensor in quantizable(request.model))

    def moved(tensor: Tensor, kind: QuantType) -> int:
        return tensor.elements * (kind != around.types[tensor.name])

    resource = formulation.grouping.resource(_MOVED, int(region * total), moved)
    solution = solve_formulation(request.model, limited(formulation, resource, "weights"), goal_of(request), table)
    prices = {name: price for name, price in solution.outcome.prices.items() if name != _MOVED}
    return plan_of(request, table, formulation, solution.choices, replace(solution.outcome, prices=prices))


def after(state: Refinement, new: Scored | None, factors: Correction) -> Refinement:
    """The state after a round: ``new`` was measured, or nothing new was found."""
    if new is None:
        return replace(state, region=state.region / 2)
    before = _mean(learning(state.leader.klds))
    relative = _mean(learning(new.klds)) / before - 1
    step = RefineStep(new.name, relative, relative < 0, moved_share(state.plan.plan, new.plan), factors)
    region = state.region if step.better else state.region / 2
    return replace(state, own=(*state.own, new), region=region, steps=(*state.steps, step))


def significantly_better(best: Scored, stock_quant: Scored) -> bool:
    """Whether a plan is better than a stock mix on the whole refinement text, or the very same."""
    if stock_quant.plan.types == best.plan.types:
        return True
    return lower(paired_difference(np.array(best.klds), np.array(stock_quant.klds)))


def lower(difference: PairedDifference) -> bool:
    """Whether a mean is lower than the other, by a one-sided test."""
    return difference.difference < 0 and difference.p / 2 < ERROR_RATE


def learning(klds: Sequence[float]) -> tuple[float, ...]:
    return tuple(klds[::2])


def testing(klds: Sequence[float]) -> tuple[float, ...]:
    """Windows that nothing was learnt from."""
    return tuple(klds[1::2])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def moved_share(one: Plan, other: Plan) -> float:
    """Share of the weights, of all that are quantized, whose type differs."""
    weights = {t.name: t.bytes // t.type.block_bytes * t.type.block for t in one.tensors if t.rule}
    moved = sum(count for name, count in weights.items() if other.types[name] != one.types[name])
    return moved / max(sum(weights.values()), 1)
