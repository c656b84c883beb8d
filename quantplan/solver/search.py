"""The best plan of a problem in arrays: sought in a thin layer above the bound, then in thicker ones until it is found.

With hundreds of groups the optimum is within some millionths of the Lagrangian bound. Against a target that near, reduced
costs leave a few dozen groups open where a rounded plan as target leaves nearly all. A layer without a plan proves that the
bound is its top. Inside a layer a dynamic program does the work; HiGHS in its place leaves 4 of 17 published instances at gaps
of 1e-4 to 2e-3 after a minute (docs/method.md). HiGHS gets what a wide sweep leaves open, and the chains.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.plan import Outcome
from quantplan.solver.bound import BoundSolution, ChoiceArrays, Relaxation, relax, without_oversized, without_worse
from quantplan.solver.dynamic_program import sweep
from quantplan.solver.problem import Chain, Problem

THINNEST = 2e-6  # of the bound
THICKER = 4
THICKER_WITH_CHAINS = 8  # these move the optimum some percent away from the bound
WIDTHS = (1024, 8192)  # of the sweeps through a layer, before it is left to HiGHS
SWEEP_STATES = 20_000_000  # of all groups together: 8 bytes tell where each came from


@dataclass(frozen=True)
class Solution:
    """``choices[i]`` is the index of the choice that group i takes. Always within every limit."""

    outcome: Outcome
    choices: tuple[int, ...]

    @property
    def objective(self) -> float:
        assert self.outcome.objective is not None  # a solved problem has both
        return self.outcome.objective

    @property
    def bound(self) -> float:
        assert self.outcome.bound is not None
        return self.outcome.bound


def search(
    arrays: ChoiceArrays,
    gap: float,
    deadline: float,
    known: Sequence[int] | None = None,
    chains: tuple[Chain, ...] = (),
) -> BoundSolution | None:
    """The best plan, proven within the relative ``gap`` unless time runs out; None where no plan is within the limits.

    ``known``: a plan within limits and chains to start from. ``deadline`` is on time.perf_counter's clock; the result has no
    choices where it passed without any plan.
    """
    arrays = without_oversized(arrays)
    if arrays.empty:
        return None
    relaxation = relax(arrays)
    starts = [choices for choices in (relaxation.choices, known) if choices is not None]
    plans = [
        plan for plan in map(np.asarray, starts) if arrays.fits(plan) and all(c.holds(plan.tolist()) for c in chains)
    ]
    best = min(plans, key=arrays.total_damage, default=None)
    damage = np.inf if best is None else arrays.total_damage(best)
    bound = relaxation.bound
    for top in _tops(arrays, relaxation.bound, THICKER_WITH_CHAINS if chains else THICKER):
        if bound >= damage * (1 - gap) or time.perf_counter() > deadline:
            break
        target = min(top, damage)
        answer = _below(target, arrays, relaxation, gap, deadline, chains)
        if answer.choices is not None:
            best, damage = answer.choices, arrays.total_damage(answer.choices)
        bound = max(bound, min(answer.bound, target))
    return None if best is None and bound == np.inf else BoundSolution(best, bound)


def solution(problem: Problem, answer: BoundSolution, gap: float, seconds: float) -> Solution:
    """A plan that was found, its damage added up again and its gap to the bound."""
    assert answer.choices is not None
    choices = tuple(int(choice) for choice in answer.choices)
    return Solution(outcome(problem.damage(choices), answer.bound, gap, seconds), choices)


def outcome(damage: float, bound: float, allowed_gap: float, seconds: float) -> Outcome:
    """ "optimal" where the gap between bound and damage is within the allowed one."""
    bound = min(bound, damage)  # equal but for rounding where it is not lower
    gap = (damage - bound) / damage if damage else 0.0
    return Outcome("optimal" if gap <= allowed_gap else "feasible", damage, bound, gap, seconds)


def _tops(arrays: ChoiceArrays, bound: float, thicker: float) -> Iterator[float]:
    """Where the layers above a bound end, in KLD; the last one lies above every plan."""
    worst = float(np.where(arrays.offered, arrays.damage, 0.0).max(axis=1).sum())
    layer = THINNEST * (bound if bound > 0 else worst)
    while layer > 0 and bound + layer <= worst:
        yield bound + layer
        layer *= thicker
    yield np.inf


def _below(
    target: float,
    arrays: ChoiceArrays,
    relaxation: Relaxation,
    gap: float,
    deadline: float,
    chains: tuple[Chain, ...],
) -> BoundSolution:
    """The best plan of damage below ``target``; its bound is the target where there is none."""
    near = without_worse(arrays, relaxation, target)
    if near.empty:
        return BoundSolution(None, target)
    # count from the cheapest choices that are still offered; they need not fit together
    cheapest = np.where(near.offered, relaxation.reduced, np.inf).argmin(axis=1)
    relaxation = replace(relaxation, choices=cheapest)
    if not len(near.open):
        only = (
            arrays.fits(cheapest) and arrays.total_damage(cheapest) < target and all(c.holds(cheapest) for c in chains)
        )
        return BoundSolution(cheapest if only else None, target)
    best, bound, reached = None, relaxation.bound, target
    for width in () if chains else WIDTHS:
        answer = sweep(near, relaxation, target, min(width, SWEEP_STATES // max(len(near.open), 1)), deadline)
        bound = max(bound, answer.bound)
        if answer.choices is not None and (damage := arrays.total_damage(answer.choices)) < reached:
            best, reached = answer.choices, damage
        if bound >= reached * (1 - gap):
            return BoundSolution(best, bound)
    from quantplan.solver.pulp_model import branch_and_bound  # seldom needed, and slow to import

    by_search = branch_and_bound(near, relaxation, reached, gap * relaxation.bound, deadline, chains)
    better = best if by_search.choices is None else by_search.choices
    return BoundSolution(better, max(bound, min(by_search.bound, reached)))
