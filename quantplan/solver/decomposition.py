"""Problems that fall apart: groups that share no binding limit are planned by themselves.

Two devices are the case in point: what lives on one takes nothing of the other.
"""

from collections.abc import Sequence
from dataclasses import replace

from quantplan.solver.bound import binding
from quantplan.solver.problem import Problem


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
