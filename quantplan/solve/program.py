"""The exact answer: bound, fix, sweep with growing width, and hand what is then still open to PuLP and HiGHS.

Every number of the outcome is computed here from the problem itself: damages and limits are added up again
outside the solvers, and the bound is the best that any step has proven.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from quantplan.errors import BudgetImpossible, QuantplanError
from quantplan.plan import Outcome
from quantplan.solve.bound import (
    BoundSolution,
    Relaxation,
    choice_arrays,
    prices,
    relax,
    without_dominated,
    without_oversized,
    without_worse,
)
from quantplan.solve.cardinality import solve_distinct
from quantplan.solve.decomposition import part_of, parts
from quantplan.solve.dynamic_program import sweep
from quantplan.solve.highs import branch_and_bound
from quantplan.solve.problem import Group, Problem

WIDTHS = (64, 1024, 16384)  # the first for a good plan; some 200 states prove it for 725 tensors x 36 types
SWEEP_STATES = 20_000_000  # of all groups together: 8 bytes tell where each came from


@dataclass(frozen=True)
class Solution:
    """``choices[i]`` is the index of the choice that group i takes. Always within every limit."""

    outcome: Outcome
    choices: tuple[int, ...]


def solve(problem: Problem, gap: float = 1e-6, time_limit: float = 60.0) -> Solution:
    """The plan of least damage: "optimal" when proven within the relative ``gap``, else "feasible".

    The same problem gives the same choices unless time runs out. Raises BudgetImpossible with the fewest
    bytes that would do; QuantplanError when ``time_limit`` seconds found no plan within several limits.
    """
    found = _solve_distinct(problem, gap, time_limit) if problem.distinct else _solve_parts(problem, gap, time_limit)
    return replace(found, outcome=replace(found.outcome, prices=prices(problem)))


def _solve(problem: Problem, gap: float, time_limit: float) -> Solution:
    search = _Search(problem, gap, time_limit)
    if (search.choices_arrays.limit < 0).any():
        raise _impossible(problem)
    search.run()
    return search.solution()


def _solve_parts(problem: Problem, gap: float, time_limit: float) -> Solution:
    """Each part that shares no limit with the others by itself."""
    found = parts(problem)
    if len(found) < 2:
        return _solve(problem, gap, time_limit)
    choices = [0] * len(problem.groups)
    bound, started = 0.0, time.perf_counter()
    for groups in found:
        part = part_of(problem, groups)
        try:
            solution = _solve(part, gap, time_limit)
        except BudgetImpossible:
            raise _impossible(problem) from None
        bound += solution.outcome.bound
        for group, choice in zip(groups, solution.choices, strict=True):
            choices[group] = choice
    seconds = time.perf_counter() - started
    return Solution(_outcome(problem.damage(choices), bound, gap, seconds), tuple(choices))


def _solve_distinct(problem: Problem, gap: float, time_limit: float) -> Solution:
    started = time.perf_counter()

    def leaf(restricted: Problem, seconds: float) -> tuple[float, float, tuple[int, ...]] | None:
        try:
            found = _solve(restricted, gap, max(seconds, 1.0))
        except BudgetImpossible:
            return None
        return found.outcome.objective, found.outcome.bound, found.choices

    found = solve_distinct(problem, leaf, gap, started + time_limit)
    seconds = time.perf_counter() - started
    if found is None:
        if seconds > time_limit:
            raise _no_plan_in_time(seconds)
        raise _impossible(problem)
    damage, bound, choices = found
    return Solution(_outcome(damage, bound, gap, seconds), choices)


def smallest_bytes(problem: Problem) -> int:
    """The fewest bytes of any plan within the other conditions; BudgetImpossible where these allow none."""
    if not problem.resources and not problem.distinct and not problem.chains:
        return problem.smallest_bytes
    groups = tuple(
        Group(group.name, tuple(replace(choice, damage=choice.bytes) for choice in group.choices))
        for group in problem.groups
    )
    by_bytes = replace(problem, groups=groups, budget_bytes=problem.largest_bytes)
    half_a_byte = 0.5 / max(problem.largest_bytes, 1)
    return problem.bytes(solve(by_bytes, gap=half_a_byte).choices)


def _impossible(problem: Problem) -> BudgetImpossible:
    """The limit in the way, and for bytes the fewest that would do."""
    for resource in problem.resources:
        least = sum(map(min, resource.use))
        if least > resource.limit:
            return BudgetImpossible(
                f"the smallest choices need {least - resource.limit:,} more than the limit of "
                f"{resource.limit:,} on {resource.name}; raise that limit or allow smaller types"
            )
    if problem.budget_bytes >= problem.largest_bytes:
        names = [f"the limit on {resource.name}" for resource in problem.resources]
        names += [f"at most {problem.distinct.most} types"] if problem.distinct else []
        names += [f"a {chain.course} course over the blocks" for chain in problem.chains]
        return BudgetImpossible(f"no plan keeps {' and '.join(names)} together; relax one of them")
    smallest = smallest_bytes(problem)
    return BudgetImpossible(
        f"the smallest plan has {smallest:,} bytes, {smallest - problem.budget_bytes:,} more than the budget "
        f"of {problem.budget_bytes:,}; raise the budget or allow smaller types",
        smallest,
    )


def _no_plan_in_time(seconds: float) -> QuantplanError:
    return QuantplanError(f"no plan within all limits was found in {seconds:.0f} s; allow more time or relax a limit")


def _outcome(objective: float, bound: float, wanted: float, seconds: float) -> Outcome:
    bound = min(bound, objective)  # equal but for rounding where it is not lower
    gap = (objective - bound) / objective if objective else 0.0
    return Outcome("optimal" if gap <= wanted else "feasible", objective, bound, gap, seconds)


class _Search:
    """The best plan so far, the best bound so far, and the choices that a better plan may still take."""

    def __init__(self, problem: Problem, gap: float, time_limit: float) -> None:
        self.problem, self.gap = problem, gap
        self.started = time.perf_counter()
        self.deadline = self.started + time_limit
        # what is dominated may still be the only choice that a chain's neighbours allow
        self.choices_arrays = choice_arrays(problem) if problem.chains else without_dominated(choice_arrays(problem))
        self.best: tuple[int, ...] | None = None
        self.objective, self.bound = math.inf, 0.0

    @property
    def done(self) -> bool:
        return self.bound >= self.objective * (1 - self.gap)

    @property
    def late(self) -> bool:
        return time.perf_counter() > self.deadline

    def run(self) -> None:
        for width in () if self.problem.chains else WIDTHS:
            relaxation = self.narrow()
            if relaxation is None or self.late:
                return
            width = min(width, SWEEP_STATES // len(self.choices_arrays.open))
            self._learn(sweep(self.choices_arrays, relaxation, self.objective, width, self.deadline))
        while (relaxation := self.narrow()) and not self.late:
            before = self.objective
            accuracy = self.gap * self.bound
            chains = self.problem.chains
            self._learn(
                branch_and_bound(self.choices_arrays, relaxation, self.objective, accuracy, self.deadline, chains)
            )
            if self.objective == before:
                return

    def narrow(self) -> Relaxation | None:
        """Rule out what no better plan takes; None when the best plan is thereby proven within the gap."""
        self.choices_arrays = without_oversized(self.choices_arrays)
        if self.choices_arrays.empty:
            self._raise_bound(math.inf)
            return None
        relaxation = relax(self.choices_arrays)
        self._raise_bound(relaxation.bound)
        self._take(relaxation.choices)
        self.choices_arrays = without_worse(self.choices_arrays, relaxation, self.objective)
        if not self.done and not len(self.choices_arrays.open):
            self._take_last()
        return None if self.done else relaxation

    def _take_last(self) -> None:
        """At most one plan is open: whether or not it keeps a chain, nothing is left to prove."""
        if not self.choices_arrays.empty:
            self._take(self.choices_arrays.damage.argmin(axis=1))
        self._raise_bound(math.inf)

    def solution(self) -> Solution:
        if self.best is None and self.bound == math.inf:
            raise _impossible(self.problem)
        seconds = time.perf_counter() - self.started
        if self.best is None:
            raise _no_plan_in_time(seconds)
        return Solution(_outcome(self.objective, self.bound, self.gap, seconds), self.best)

    def _take(self, choices: np.ndarray) -> None:
        """Make these choices the best plan if they fit and are better."""
        plan = tuple(choices.tolist())
        if self.problem.fits(plan) and (damage := self.problem.damage(plan)) < self.objective:
            self.best, self.objective = plan, damage

    def _learn(self, found: BoundSolution) -> None:
        if found.choices is not None:
            self._take(found.choices)
        self._raise_bound(found.bound)

    def _raise_bound(self, bound: float) -> None:
        """``bound`` speaks of the plans that are still open; all others are no better than the best."""
        self.bound = max(self.bound, min(bound, self.objective))
