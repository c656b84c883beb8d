"""Deepening: the best plan is sought in a thin layer above the bound, then in thicker ones until it is found.

With hundreds of groups the optimum lies within some millionths of the Lagrangian bound. Against a target as near as
that, reduced costs leave some dozen groups open where a rounded plan as target leaves nearly all of them: 0.03 s
instead of 0.1 s for 1,100 tensors x 20 types. A layer without a plan proves that the bound is its top.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from quantplan.plan import Outcome
from quantplan.solve.bound import BoundSolution, ChoiceArrays, Relaxation, relax, without_oversized, without_worse
from quantplan.solve.dynamic_program import sweep
from quantplan.solve.highs import branch_and_bound
from quantplan.solve.problem import Problem
from quantplan.solve.program import Solution

THINNEST = 2e-6  # of the bound
THICKER = 2
WIDTHS = (1024, 8192)  # of the sweeps through a layer, before it is left to HiGHS


def deepen(
    choices_arrays: ChoiceArrays, relaxation: Relaxation, known: np.ndarray | None, gap: float, deadline: float
) -> BoundSolution:
    """The best plan, proven within the relative ``gap`` unless time runs out; None where time ran out without any.

    ``known``: int64 [groups], a plan within the limits, None where none is known. ``deadline`` is on
    time.perf_counter's clock.
    """
    best, damage = known, np.inf if known is None else choices_arrays.total_damage(known)
    bound = relaxation.bound
    for top in tops(choices_arrays, relaxation.bound):
        if bound >= damage * (1 - gap) or time.perf_counter() > deadline:
            break
        target = min(top, damage)
        found = _within(choices_arrays, relaxation, target, gap, deadline)
        if found.choices is not None:
            best, damage = found.choices, choices_arrays.total_damage(found.choices)
        bound = max(bound, min(found.bound, target))
    return BoundSolution(best, bound)


def settle(choices_arrays: ChoiceArrays, known: np.ndarray | None, gap: float, deadline: float) -> BoundSolution | None:
    """As ``deepen``, with the relaxation made here; None where no plan is within the limits."""
    choices_arrays = without_oversized(choices_arrays)
    if choices_arrays.empty:
        return None
    relaxation = relax(choices_arrays)
    plans = [each for each in (relaxation.choices, known) if each is not None and choices_arrays.fits(each)]
    best = min(plans, key=choices_arrays.total_damage, default=None)
    return deepen(choices_arrays, relaxation, best, gap, deadline)


def solution(problem: Problem, found: BoundSolution, gap: float, seconds: float) -> Solution:
    """A plan that was found, its damage added up anew and its gap to the bound."""
    assert found.choices is not None
    choices = tuple(found.choices.tolist())
    damage = problem.damage(choices)
    bound = min(found.bound, damage)  # equal but for rounding where it is not lower
    reached = (damage - bound) / damage if damage else 0.0
    return Solution(Outcome("optimal" if reached <= gap else "feasible", damage, bound, reached, seconds), choices)


def tops(choices_arrays: ChoiceArrays, bound: float) -> Iterator[float]:
    """Where the layers above a bound end, in nats per token; the last one lies above every plan."""
    worst = float(np.where(choices_arrays.offered, choices_arrays.damage, 0.0).max(axis=1).sum())
    layer = THINNEST * (bound if bound > 0 else worst)
    while layer > 0 and bound + layer <= worst:
        yield bound + layer
        layer *= THICKER
    yield np.inf


def rebased(relaxation: Relaxation, choices_arrays: ChoiceArrays) -> Relaxation:
    """Counting from the cheapest choices that the tableau still offers; they need not fit together."""
    return replace(relaxation, choices=np.where(choices_arrays.offered, relaxation.reduced, np.inf).argmin(axis=1))


def _within(
    choices_arrays: ChoiceArrays, relaxation: Relaxation, target: float, gap: float, deadline: float
) -> BoundSolution:
    """The best plan below ``target``; its bound is the target where there is none."""
    near = without_worse(choices_arrays, relaxation, target)
    if near.empty:
        return BoundSolution(None, target)
    relaxation = rebased(relaxation, near)
    for width in WIDTHS:
        found = sweep(near, relaxation, target, width, deadline)
        reached = target if found.choices is None else choices_arrays.total_damage(found.choices)
        if found.bound >= reached * (1 - gap):
            return found
    by_search = branch_and_bound(near, relaxation, reached, gap * relaxation.bound, deadline)
    better = found.choices if by_search.choices is None else by_search.choices
    return BoundSolution(better, max(found.bound, min(by_search.bound, reached)))
