"""Refinement: the measured KLD of built plans corrects the table; a new plan counts only where a test says so.

The chunks of the validation text, which neither the probe nor the evaluation uses, go in turn to correcting (the "first half")
and to testing. Besides the plan and the stock quants a few more plans are built: one without a family of types, some that
would be best if the scales were different, within their errors. Their KLD on the first half corrects the table
(correction.py), and the program is solved again inside a trust region around the plan. The best on the first half replaces the
plan only where a paired test over the second half says that its KLD is lower.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage, BudgetImpossible, NothingSelected
from quantplan.evaluate.significance import PairedDifference, paired_difference
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, quantizable
from quantplan.planning.solving import plan_for
from quantplan.quant_type import QuantType
from quantplan.run.correction import Correction, Observed, corrected, correction
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solver.planner import Formulation, limited
from quantplan.tensor import Tensor

ROUNDS = 2
ERROR_RATE = 0.05  # one-sided: how often, at most, a plan that is no better replaces another
REGION = 0.2  # share of the weights that may change their type; halved after a round that found nothing better
LEAST_CHUNKS = 4  # two to correct with, two to test on: fewer have no standard error
SAMPLED = 3
_FAMILIES = ("k", "iq", "legacy")
_LEAST_SHARE = 0.05  # of the bytes: leaving out less tells nothing
_MOVED = "weights that change their type"


@dataclass(frozen=True)
class Scored:
    """A plan that was built, and its KLD on each chunk of the validation text."""

    name: str
    plan: Plan
    klds: tuple[float, ...]


@dataclass(frozen=True)
class RefineStep:
    """A round: ``relative`` is its plan's KLD over that of the best before it, less 1, on the first half; ``better`` than all
    before; ``moved``: share of the weights whose type differs from the plan's.
    """

    name: str
    relative: float
    better: bool
    moved: float
    correction: Correction


@dataclass(frozen=True)
class Refinement:
    """``plans``: those that were built, the plan first; ``region``: of the next round; ``withdrawn``: the refined plan was
    worse on the evaluation text.
    """

    plans: tuple[Scored, ...]
    stock_quants: tuple[Scored, ...] = ()
    region: float = REGION
    steps: tuple[RefineStep, ...] = ()
    withdrawn: bool = False

    @property
    def plan(self) -> Scored:
        return self.plans[0]

    @property
    def measured(self) -> tuple[Scored, ...]:
        """All that was built; each corrects the table."""
        return (*self.plans, *self.stock_quants)

    @property
    def leader(self) -> Scored:
        """The best plan on the first half."""
        return min(self.plans, key=lambda plan: _mean(learning(plan.klds)))

    @property
    def test(self) -> PairedDifference | None:
        """The leader against the plan on the second half; None where the plan itself leads."""
        if self.leader is self.plan:
            return None
        return paired_difference(np.array(testing(self.leader.klds)), np.array(testing(self.plan.klds)))

    @property
    def counts(self) -> bool:
        return not self.withdrawn and self.test is not None and lower(self.test)

    @property
    def best(self) -> Scored:
        """The leader where the test says that its KLD is lower, else the plan."""
        return self.leader if self.counts else self.plan


def neighbours(
    request: PlanRequest, table: SensitivityTable, plan: Plan, speeds: SpeedTable | None = None
) -> dict[str, Plan]:
    """Plans of the same request whose measurement tells what the table does not know.

    One without the smaller of the plan's main families of types, where that can be planned, and ``SAMPLED`` that would be best
    if each row's scale were another, drawn from its error (seeded): they differ where errors decide (Thompson, Biometrika 25,
    1933).
    """
    others = _without_family(request, table, plan, speeds)
    for seed in range(SAMPLED):
        other = nearby(request, sampled(table, seed), plan, REGION, speeds)
        if other.types not in [plan.types, *(known.types for known in others.values())]:
            others[f"sample {seed + 1}"] = other
    return others


def _without_family(
    request: PlanRequest, table: SensitivityTable, plan: Plan, speeds: SpeedTable | None
) -> dict[str, Plan]:
    families = _main_families(plan)
    if len(families) < 2:
        return {}
    types = tuple(kind for kind in request.types if kind.family != families[-1])
    try:
        other, _ = plan_for(replace(request, types=types), table, speeds)
    except (BudgetImpossible, NothingSelected, BadUsage):  # the constraints or the size need that family
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
    """The correction that the KLDs of all measured files on the first half ask for."""
    names = {tensor.name for tensor in quantizable(request.model)}
    observed = [
        Observed({name: kind.name for name, kind in file.plan.types.items() if name in names}, learning(file.klds))
        for file in state.measured
        if _predictable(file.plan, table, names)
    ]
    return correction(table, observed)


def _predictable(plan: Plan, table: SensitivityTable, names: set[str]) -> bool:
    """Stock quants may hold types that the table has no value for, or are rounded otherwise than the table says."""
    compensated = set(plan.compensated)
    return all(
        type_name in table.rows[name].weights and table.rows[name].is_compensated(type_name) == (name in compensated)
        for name, type_name in ((name, plan.types[name].name) for name in names)
    )


def proposal(
    request: PlanRequest,
    table: SensitivityTable,
    state: Refinement,
    factors: Correction,
    speeds: SpeedTable | None = None,
) -> Plan | None:
    """The plan of the corrected table inside the trust region; None where it was measured already."""
    plan = nearby(request, corrected(table, factors), state.plan.plan, state.region, speeds)
    return None if plan.types in [file.plan.types for file in state.measured] else plan


def nearby(
    request: PlanRequest, table: SensitivityTable, around: Plan, region: float, speeds: SpeedTable | None = None
) -> Plan:
    """The best plan in which at most the share ``region`` of the weights has another type than in ``around``."""
    total = sum(tensor.elements for tensor in quantizable(request.model))

    def moved(tensor: Tensor, kind: QuantType) -> int:
        return tensor.elements * (kind != around.types[tensor.name])

    def narrow(formulation: Formulation) -> Formulation:
        return limited(formulation, formulation.grouping.resource(_MOVED, int(region * total), moved), "weights")

    plan, _ = plan_for(request, table, speeds, narrow)
    prices = {name: price for name, price in plan.outcome.prices.items() if name != _MOVED}
    limits = tuple(limit for limit in plan.limits if limit.name != _MOVED)
    return replace(plan, outcome=replace(plan.outcome, prices=prices), limits=limits)


def after(state: Refinement, new: Scored | None, factors: Correction) -> Refinement:
    """The state after a round: ``new`` was measured, or nothing new was found."""
    if new is None:
        return replace(state, region=state.region / 2)
    before = _mean(learning(state.leader.klds))
    relative = _mean(learning(new.klds)) / before - 1
    step = RefineStep(new.name, relative, relative < 0, moved_share(state.plan.plan, new.plan), factors)
    region = state.region if step.better else state.region / 2
    return replace(state, plans=(*state.plans, new), region=region, steps=(*state.steps, step))


def significantly_better(best: Scored, stock_quant: Scored) -> bool:
    """Whether a plan is better than a stock quant on the whole validation text (paired by chunk), or the very same."""
    if stock_quant.plan.encodings == best.plan.encodings:
        return True
    return lower(paired_difference(np.array(best.klds), np.array(stock_quant.klds)))


def lower(difference: PairedDifference) -> bool:
    """Whether a mean is lower than the other, by a one-sided test."""
    return difference.difference < 0 and difference.p / 2 < ERROR_RATE


def learning(klds: Sequence[float]) -> tuple[float, ...]:
    """The first half: chunks that correct the table."""
    return tuple(klds[::2])


def testing(klds: Sequence[float]) -> tuple[float, ...]:
    """The second half: chunks that corrected nothing."""
    return tuple(klds[1::2])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def moved_share(one: Plan, other: Plan) -> float:
    """Share of the weights, of all that are quantized, whose type differs."""
    weights = {t.name: t.bytes // t.type.block_bytes * t.type.block for t in one.tensors if t.rule}
    moved = sum(count for name, count in weights.items() if other.types[name] != one.types[name])
    return moved / max(sum(weights.values()), 1)
