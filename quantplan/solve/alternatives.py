"""The best plans, each unlike every better one in at least so many groups.

Rows that forbid the earlier plans (no-good cuts) leave the Lagrangian bound as it was and make a sweep blind: with
725 tensors x 36 types the third plan was not found in a minute. Here a state of the sweep counts, up to what is asked
for, in how many groups it differs from each earlier plan, and the bound adds what it costs at least to differ in as
many as are still lacking.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.errors import BudgetImpossible
from quantplan.solve import dynamic_program as sweep
from quantplan.solve.bound import (
    BoundSolution,
    ChoiceArrays,
    Relaxation,
    choice_arrays,
    priced,
    relax,
    without_oversized,
)
from quantplan.solve.deepening import rebased, solution, tops
from quantplan.solve.problem import Problem, Resource
from quantplan.solve.program import Solution, solve

WIDTHS = (1024, 8192, 65536)


def alternatives(
    problem: Problem, count: int, differing: int = 1, gap: float = 1e-6, time_limit: float = 60.0
) -> tuple[Solution, ...]:
    """The best plan, and up to ``count`` - 1 more: each the best of those that differ from all before in at least
    ``differing`` groups. Fewer where no more exist.

    ``time_limit`` is for each; where it ends a search, that outcome is "feasible" with the gap that was reached, and
    what follows differs from the plan that was found. BudgetImpossible and QuantplanError as ``solve``.
    """
    if differing < 1:
        raise ValueError(f"plans that differ in at least {differing} groups would all be the same one")
    found = [solve(problem, gap, time_limit)]
    while len(found) < count:
        another = _next(problem, [each.choices for each in found], differing, gap, time_limit)
        if another is None:
            break
        found.append(another)
    return tuple(found)


def _next(
    problem: Problem, earlier: Sequence[Sequence[int]], differing: int, gap: float, time_limit: float
) -> Solution | None:
    started = time.perf_counter()
    if not problem.distinct and not problem.chains:
        found = _Search(problem, np.array(earlier), differing).run(gap, started + time_limit)
        if found.choices is not None:
            return solution(problem, found, gap, time.perf_counter() - started)
        if found.bound == np.inf:
            return None
    return _by_rows(problem, earlier, differing, gap, time_limit)


def _by_rows(
    problem: Problem, earlier: Sequence[Sequence[int]], differing: int, gap: float, time_limit: float
) -> Solution | None:
    """Through the solver of all conditions: a row for each earlier plan counts the groups that are as they were."""
    rows = []
    for number, choices in enumerate(earlier):
        same = tuple(
            tuple(int(index == taken) for index in range(len(group.choices)))
            for group, taken in zip(problem.groups, choices, strict=True)
        )
        rows.append(Resource(f"likeness to plan {number + 1}", len(problem.groups) - differing, same))
    if any(row.limit < 0 for row in rows):
        return None
    try:
        return solve(replace(problem, resources=(*problem.resources, *rows)), gap, time_limit)
    except BudgetImpossible:
        return None


class _Search:
    """The best plan that differs from each of ``earlier`` (int64 [plans, groups]) in at least ``differing`` groups."""

    def __init__(self, problem: Problem, earlier: np.ndarray, differing: int) -> None:
        self.earlier, self.differing = earlier, differing
        self.choices_arrays = without_oversized(choice_arrays(problem))
        self.relaxation = relax(self.choices_arrays)
        index = np.arange(self.choices_arrays.damage.shape[1])
        self.same = index == earlier[:, :, None]  # bool [plans, groups, choices]

    def run(self, gap: float, deadline: float) -> BoundSolution:
        """Its bound is inf where no such plan exists."""
        lack = np.array([_dearer(each, self.differing) for each in self._costs_of_differing()])
        bound = self.relaxation.bound + float(lack[:, -1].max())
        if bound == np.inf:
            return BoundSolution(None, np.inf)
        for target in tops(self.choices_arrays, bound):
            near = self._near(target, lack)
            found = BoundSolution(None, target) if near.empty else self._within(near, target, gap, deadline)
            bound = max(bound, min(found.bound, target))
            if found.choices is not None or time.perf_counter() > deadline:
                return BoundSolution(found.choices, bound)
        return BoundSolution(None, bound)

    def _costs_of_differing(self) -> np.ndarray:
        """float64 [plans, groups]: what it costs at least, at the relaxation's prices, to differ there; inf if nothing does."""
        return np.where(self.same | ~self.choices_arrays.offered, np.inf, self.relaxation.reduced).min(axis=2)

    def _near(self, target: float, lack: np.ndarray) -> ChoiceArrays:
        """Without choices that no plan of less damage than ``target`` takes, the others differing as they must."""
        others = np.where(self.same, lack[:, -1, None, None], lack[:, -2, None, None]).max(axis=0)
        return self.choices_arrays.without(self.relaxation.bound + self.relaxation.reduced + others >= target)

    def _within(self, near: ChoiceArrays, target: float, gap: float, deadline: float) -> BoundSolution:
        relaxation = rebased(self.relaxation, near)
        for width in WIDTHS:
            found = _Sweep(near, relaxation, self.earlier, self.differing).run(target, width, deadline)
            reached = target if found.choices is None else near.total_damage(found.choices)
            if found.bound >= reached * (1 - gap):
                break
        return found


def _dearer(costs: Sequence[float], most: int) -> list[float]:
    """What the 0 to ``most`` cheapest of these cost together; inf where there are not as many."""
    cheapest = sorted(costs)[:most]
    cheapest += [np.inf] * (most - len(cheapest))
    return [0.0, *np.cumsum(cheapest).tolist()]


@dataclass(frozen=True)
class DiverseStates:
    """``reached``: as in an ordinary sweep; ``far``: int64 [plans, states], groups that differ, counted up to the wanted."""

    reached: sweep.States
    far: np.ndarray

    def __getitem__(self, which: np.ndarray) -> DiverseStates:
        return DiverseStates(self.reached[which], self.far[:, which])


class _Sweep:
    """Dynamic programming as in ``solve.sweep``; only states that differ alike from the earlier plans compare."""

    def __init__(
        self, choices_arrays: ChoiceArrays, relaxation: Relaxation, earlier: np.ndarray, differing: int
    ) -> None:
        self.choices_arrays, self.relaxation, self.earlier, self.differing = (
            choices_arrays,
            relaxation,
            earlier,
            differing,
        )
        self.base = relaxation.choices
        self.ground = choices_arrays.total_damage(self.base)
        self.room = choices_arrays.limit - choices_arrays.total_use(self.base)
        self.prices = np.outer(sweep.PRICE_FACTORS, relaxation.prices)
        self.stages = sweep.make_stages(choices_arrays, relaxation, self.prices)

    def run(self, target: float, width: int, deadline: float) -> BoundSolution:
        """The best such plan of damage below ``target``, as ``sweep.sweep`` returns it."""
        states, proven, trail = self._start(), target - self.ground, []
        for stage, lack in zip(self.stages, self._lacking(), strict=True):
            if time.perf_counter() > deadline:
                return BoundSolution(None, self.relaxation.bound)
            children = self._extended(states, stage)
            promise = self.promised(children, stage, lack)
            worth = np.flatnonzero(promise < target - self.ground)
            worth = worth[undominated(children[worth])]
            worth, missed = sweep.most_promising(worth, promise, width)
            proven = min(proven, missed)
            states = children[worth]
            trail.append(worth)
        damage = states.reached.damage
        if not len(damage):
            return BoundSolution(None, self.ground + proven)
        best = int(damage.argmin())
        choices = sweep.follow(trail, self.stages, self.base, best)
        return BoundSolution(choices, self.ground + min(proven, float(damage[best])))

    def _start(self) -> DiverseStates:
        """One state, with what the groups without a choice differ; none where nothing is left to choose and it does not do."""
        closed = np.setdiff1d(np.arange(len(self.base)), self.choices_arrays.open)
        far = np.minimum((self.base[closed] != self.earlier[:, closed]).sum(axis=1), self.differing)
        start = DiverseStates(sweep.States(np.zeros((len(self.room), 1), dtype=np.int64), np.zeros(1)), far[:, None])
        does = bool(self.stages) or ((far >= self.differing).all() and (self.room >= 0).all())
        return start if does else start[np.zeros(0, dtype=np.int64)]

    def _lacking(self) -> Iterator[np.ndarray]:
        """For each stage float64 [plans, differing + 1]: the least that so many differences cost in the groups after it."""
        cheapest: list[list[float]] = [[] for _ in self.earlier]
        lacking = []
        for stage in reversed(self.stages):
            lacking.append(np.array([_dearer(each, self.differing) for each in cheapest]))
            cost = stage.damage + priced(self.relaxation.prices, stage.use)
            for costs, taken in zip(cheapest, self.earlier[:, stage.group], strict=True):
                unlike = cost[stage.choices != taken]
                if len(unlike):
                    insort(costs, float(unlike.min() - cost.min()))
                    del costs[self.differing :]
        return reversed(lacking)

    def _extended(self, states: DiverseStates, stage: sweep.Stage) -> DiverseStates:
        differs = stage.choices != self.earlier[:, stage.group, None]
        far = states.far[:, :, None] + differs[:, None, :]
        return DiverseStates(stage.extend(states.reached), np.minimum(far, self.differing).reshape(len(far), -1))

    def promised(self, children: DiverseStates, stage: sweep.Stage, lack: np.ndarray) -> np.ndarray:
        """float64 [children]: as ``sweep``'s, and at the relaxation's own prices with the differences that are lacking."""
        reached = children.reached
        plain = sweep.promised(reached, stage, self.prices, self.room)
        left = self.room[:, None] - reached.use
        own = sweep.PRICE_FACTORS.index(1)
        dearer = np.take_along_axis(lack, self.differing - children.far, axis=1).max(axis=0)
        return np.maximum(plain, reached.damage + stage.later_cost[own] - priced(self.prices[own], left) + dearer)


def undominated(states: DiverseStates) -> np.ndarray:
    """Indices of the states to keep: of those that differ alike, and with several resources use alike, the best."""
    damage, use = states.reached.damage, states.reached.use
    order = np.lexsort((damage, *use[::-1], *states.far))
    like = states.far[:, order] if len(use) == 1 else np.concatenate([states.far, use])[:, order]
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (like[:, 1:] != like[:, :-1]).any(axis=0)
    ranks = np.unique(damage, return_inverse=True)[1].reshape(-1)[order]
    ranks = ranks - np.cumsum(starts) * (len(order) + 1)  # each kind begins below all of the kind before
    better = np.ones(len(order), dtype=bool)
    better[1:] = ranks[1:] < np.minimum.accumulate(ranks)[:-1]
    return order[better]
