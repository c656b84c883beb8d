"""The frontier: the best plan of every size from one problem, what the next bytes are worth, and where they stop to be.

Every point is a plan of its own, proven like any other. What does not depend on the budget is done once, and a plan for
a smaller budget is a start for a larger one: so damage cannot rise with the budget.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from quantplan.solver.bound import ChoiceArrays, binding, choice_arrays, relax, without_dominated
from quantplan.solver.problem import Problem
from quantplan.solver.program import smallest_bytes, solve
from quantplan.solver.search import Solution, search, solution

NEXT_BYTES = 100_000_000


@dataclass(frozen=True)
class Point:
    """The best plan of at most ``budget_bytes``; ``bound`` <= its damage, ``gap`` between the two over the damage.

    ``price``: nats per byte, the multiplier of the budget in the Lagrangian relaxation: what one more byte would save if
    tensors could be split. It is the slope of the lower convex hull of all plans, not a difference between two points.
    """

    budget_bytes: int
    bytes: int
    damage: float
    bound: float
    gap: float
    price: float
    choices: tuple[int, ...]


def span(problem: Problem) -> tuple[int, int]:
    """The fewest bytes of any plan, and the bytes of the best one that no budget limits; the other limits hold."""
    best = solve(replace(problem, budget_bytes=problem.largest_bytes))
    return smallest_bytes(problem), problem.bytes(best.choices)


def even_budgets(smallest: int, largest: int, points: int) -> tuple[int, ...]:
    """As many budgets at even steps, both ends included; fewer where the steps would be below a byte."""
    steps = max(points - 1, 1)
    return tuple(sorted({largest - (largest - smallest) * at // steps for at in range(points)}))


def frontier(
    problem: Problem, budgets: Sequence[int] = (), points: int = 100, gap: float = 1e-6, time_limit: float = 60.0
) -> tuple[Point, ...]:
    """The best plan for each budget, smallest first; the problem's own budget does not count.

    Without ``budgets``: ``points`` at even steps over the ``span``. ``time_limit`` is for each point; where it ends a
    search, the point has the gap that was reached. Raises BudgetImpossible for a budget below every plan.
    """
    ordered = sorted(set(budgets)) or even_budgets(*span(problem), points)
    series = _Series(problem, ordered[0], gap, time_limit)
    plans: list[Point] = []
    for budget in ordered:
        known = plans[-1].choices if plans else None
        plans.append(series.point(budget, known))
    assert all(larger.damage <= smaller.damage for smaller, larger in pairwise(plans))
    return tuple(plans)


class _Series:
    """One problem under growing budgets."""

    def __init__(self, problem: Problem, smallest: int, gap: float, time_limit: float) -> None:
        self.problem, self.gap, self.time_limit = problem, gap, time_limit
        tight = replace(problem, budget_bytes=smallest)
        self.counts_bytes = binding(tight)[0].name == "bytes"
        self.choices_arrays = without_dominated(choice_arrays(tight))
        self.unit = _unit(problem, self.choices_arrays) if self.counts_bytes else 1

    def point(self, budget: int, known: Sequence[int] | None) -> Point:
        """``known``: a plan for a smaller budget."""
        problem = replace(self.problem, budget_bytes=budget)
        best, price = self._settled(problem, known) or _by_solver(problem, self.gap, self.time_limit)
        choices = best.choices
        if known is not None and problem.damage(known) < best.objective:  # the same but for the gap, or for rounding
            choices = tuple(known)
        damage = problem.damage(choices)
        bound = min(best.bound, damage)
        gap = (damage - bound) / damage if damage else 0.0
        return Point(budget, problem.bytes(choices), damage, bound, gap, price, choices)

    def _settled(self, problem: Problem, known: Sequence[int] | None) -> tuple[Solution, float] | None:
        """None where the solver must see the whole problem: for conditions that are no sums, or to say what is wrong."""
        if problem.distinct or problem.chains:
            return None
        started = time.perf_counter()
        choices_arrays = self._within(problem)
        best = search(choices_arrays, self.gap, started + self.time_limit, known)
        if best is None or best.choices is None:
            return None
        return solution(problem, best, self.gap, time.perf_counter() - started), self._price(choices_arrays)

    def _within(self, problem: Problem) -> ChoiceArrays:
        limit = self.choices_arrays.limit.copy()
        if self.counts_bytes:
            limit[0] = (problem.budget_bytes - problem.smallest_bytes) // self.unit
        return replace(self.choices_arrays, limit=limit)

    def _price(self, choices_arrays: ChoiceArrays) -> float:
        """Of the whole arrays: without what is too large for the budget, the smallest one would have no price."""
        return float(relax(choices_arrays).prices[0]) / self.unit if self.counts_bytes else 0.0


def _by_solver(problem: Problem, gap: float, time_limit: float) -> tuple[Solution, float]:
    best = solve(problem, gap, time_limit)
    return best, best.outcome.prices["bytes"]


def _unit(problem: Problem, choices_arrays: ChoiceArrays) -> int:
    """Bytes that the arrays count as one."""
    use = choices_arrays.use[0]
    group, choice = np.unravel_index(use.argmax(), use.shape)
    choices = problem.groups[group].choices
    more = choices[choice].bytes - min(each.bytes for each in choices)
    return more // int(use[group, choice]) if more else 1


def knee(points: Sequence[Point]) -> Point | None:
    """The point farthest below the chord from the first to the last in log damage over bytes; None where none is below.

    Damage falls by a constant factor per bit as long as bytes are well spent: a straight line in the logarithm, which
    on a linear scale would be all knee at its low end. Below the chord the curve has fallen faster than it will go on
    (Kneedle, Satopaa et al. 2011). It speaks of the range of the points; those without any damage are left out.
    """
    lossy = [each for each in points if each.damage > 0]
    if len(lossy) < 3 or lossy[-1].bytes == lossy[0].bytes:
        return None
    first, last = lossy[0], lossy[-1]
    slope = math.log(last.damage / first.damage) / (last.bytes - first.bytes)

    def below(point: Point) -> float:
        return slope * (point.bytes - first.bytes) - math.log(point.damage / first.damage)

    best = max(lossy, key=below)
    return best if below(best) > 1e-9 else None  # a straight line has no knee but for rounding


def differing(one: Sequence[int], other: Sequence[int]) -> int:
    """In how many groups two plans differ."""
    return sum(a != b for a, b in zip(one, other, strict=True))
