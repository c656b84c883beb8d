"""The exact answer to a problem, with a bound that proves it.

Every number of the outcome is computed here from the problem itself: damages and limits are added up again
outside the solvers, and the bound is the best that any step has proven.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quantplan.errors import BudgetImpossible, QuantplanError
from quantplan.solver.bound import BoundSolution, binding, choice_arrays, prices, without_dominated
from quantplan.solver.cardinality import solve_distinct
from quantplan.solver.problem import Group, Problem
from quantplan.solver.search import Solution, search, solution


def parts(problem: Problem) -> list[list[int]]:
    """Groups (indices) that depend on one another through limits; a single part where other conditions join them all."""
    everything = list(range(len(problem.groups)))
    if problem.distinct or problem.chains:
        return [everything]
    parent = list(range(len(problem.groups)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    limited: set[int] = set()
    for resource in binding(problem):
        users = [group for group, use in enumerate(resource.use) if max(use) > min(use)]
        limited.update(users)
        for group in users[1:]:
            parent[root(group)] = root(users[0])
    found: dict[int, list[int]] = {}
    for group in everything:
        found.setdefault(root(group) if group in limited else -1, []).append(group)
    return list(found.values())


def part_of(problem: Problem, groups: Sequence[int]) -> Problem:
    """The problem of some groups; what all others use at least is off the limits."""
    chosen = set(groups)

    def left(limit: int, use: Sequence[Sequence[int]]) -> int:
        return limit - sum(min(uses) for group, uses in enumerate(use) if group not in chosen)

    resources = tuple(
        replace(each, limit=left(each.limit, each.use), use=tuple(each.use[group] for group in groups))
        for each in problem.resources
    )
    room = left(problem.budget_bytes, problem.limits[0].use)
    return Problem(tuple(problem.groups[group] for group in groups), room, resources)


def solve(problem: Problem, gap: float = 1e-6, time_limit: float = 60.0) -> Solution:
    """The plan of least damage: "optimal" when proven within the relative ``gap``, else "feasible".

    The same problem gives the same choices unless time runs out. Raises BudgetImpossible with the fewest
    bytes that would do; QuantplanError when ``time_limit`` seconds found no plan within several limits.
    """
    started = time.perf_counter()
    deadline = started + time_limit
    answer = (
        solve_distinct(problem, _search_parts, gap, deadline)
        if problem.distinct
        else _search_parts(problem, gap, deadline)
    )
    if answer is None:
        raise _impossible(problem)
    seconds = time.perf_counter() - started
    if answer.choices is None:
        raise QuantplanError(
            f"no plan within all limits was found in {seconds:.0f} s; allow more time or relax a limit"
        )
    best = solution(problem, answer, gap, seconds)
    return replace(best, outcome=replace(best.outcome, prices=prices(problem)))


def _search_parts(problem: Problem, gap: float, deadline: float) -> BoundSolution | None:
    """The best plan, each part that shares no limit with the others by itself; None where no plan exists."""
    choices, bound, complete = np.zeros(len(problem.groups), dtype=np.int64), 0.0, True
    for groups in parts(problem):
        part = part_of(problem, groups) if len(groups) < len(problem.groups) else problem
        # what is dominated may still be the only choice that a chain's neighbours allow
        arrays = choice_arrays(part) if part.chains else without_dominated(choice_arrays(part))
        answer = search(arrays, gap, deadline, chains=part.chains)
        if answer is None:
            return None
        bound += answer.bound
        if answer.choices is None:
            complete = False
        else:
            choices[groups] = answer.choices
    return BoundSolution(choices if complete else None, bound)


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
