"""The best plans, each unlike every better one in at least so many groups.

An earlier plan is one more resource: a choice as it was there uses 1, and all groups but so many may. The dynamic program
keeps one state for all that differ in enough groups already.
"""

from collections.abc import Sequence
from dataclasses import replace

from quantplan.errors import BudgetImpossible
from quantplan.solver.problem import Problem, Resource
from quantplan.solver.program import solve
from quantplan.solver.search import Solution


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
    plans = [solve(problem, gap, time_limit)]
    if differing > len(problem.groups):
        return tuple(plans)
    while len(plans) < count:
        rows = [_likeness(problem, plan.choices, differing, number) for number, plan in enumerate(plans, 1)]
        try:
            plans.append(solve(replace(problem, resources=(*problem.resources, *rows)), gap, time_limit))
        except BudgetImpossible:
            break
    return tuple(plans)


def _likeness(problem: Problem, choices: Sequence[int], differing: int, number: int) -> Resource:
    """How many groups are as in an earlier plan."""
    same = tuple(
        tuple(int(index == taken) for index in range(len(group.choices)))
        for group, taken in zip(problem.groups, choices, strict=True)
    )
    return Resource(f"likeness to plan {number}", len(problem.groups) - differing, same)
