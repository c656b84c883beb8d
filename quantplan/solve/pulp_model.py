"""The integer program as PuLP states it: what the solver answers, written down for any solver to check.

    min sum D(g,c) x(g,c)     sum_c x(g,c) = 1      sum use(g,c) x(g,c) <= limit, for bytes and each further resource

The solver's own steps prune before they hand a smaller program on (highs.py); tests hold both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantplan.solve.problem import Chain, Problem

if TYPE_CHECKING:
    import pulp


def state(problem: Problem, objective: str = "sum") -> pulp.LpProblem:
    """The whole program; ``objective`` of objective.OBJECTIVES. x_g_c: group g takes its choice c, both by index.

    "tail" minimises the sum of squares, "max" a bound on every group's damage.
    """
    import pulp

    program = pulp.LpProblem("plan", pulp.LpMinimize)
    x = [
        [program.add_variable(f"x_{g}_{c}", cat=pulp.LpBinary) for c in range(len(group.choices))]
        for g, group in enumerate(problem.groups)
    ]
    for group in x:
        program += pulp.lpSum(group) == 1
    for resource in problem.limits:
        used = (
            amount * each
            for uses, group in zip(resource.use, x, strict=True)
            for amount, each in zip(uses, group, strict=True)
        )
        program += pulp.lpSum(used) <= resource.limit, resource.name.replace(" ", "_")
    _add_objective(program, problem, x, objective)
    _add_distinct(program, problem, x)
    for number, chain in enumerate(problem.chains):
        reached = [
            [pulp.lpSum(each for each, at in zip(x[group], ranks, strict=True) if at >= rank) for rank in steps(chain)]
            for group, ranks in zip(chain.groups, chain.ranks, strict=True)
        ]
        add_chain(program, chain, reached, f"rises_{number}")
    return program


def _add_objective(program: pulp.LpProblem, problem: Problem, x: list[list], objective: str) -> None:
    import pulp

    damages = [
        pulp.lpSum(
            (choice.damage**2 if objective == "tail" else choice.damage) * each
            for choice, each in zip(group.choices, row, strict=True)
        )
        for group, row in zip(problem.groups, x, strict=True)
    ]
    if objective != "max":
        program.setObjective(pulp.lpSum(damages))
        return
    largest = program.add_variable("largest", lowBound=0)
    program.setObjective(largest + 0)
    for damage in damages:
        program += damage <= largest


def _add_distinct(program: pulp.LpProblem, problem: Problem, x: list[list]) -> None:
    """y(label) = 1 where any counted group takes the label; at most so many of them."""
    import pulp

    if problem.distinct is None:
        return
    taken: dict[str, list] = {}
    for group in problem.distinct.groups:
        for choice, each in zip(problem.groups[group].choices, x[group], strict=True):
            taken.setdefault(choice.label, []).append(each)
    used = [program.add_variable(f"used_{number}", cat=pulp.LpBinary) for number in range(len(taken))]
    for label, each in zip(taken, used, strict=True):
        for variable in taken[label]:
            program += variable <= each
    program += pulp.lpSum(used) <= problem.distinct.most


def steps(chain: Chain) -> list[int]:
    """The ranks that a group of the chain may or may not reach."""
    return sorted({rank for each in chain.ranks for rank in each})[1:]


def add_chain(program: pulp.LpProblem, chain: Chain, reached: Sequence[Sequence], name: str) -> None:
    """``reached[g][r]``: 1 where group g's rank is r or more. Of neighbours a, b: reached(a, r) <= reached(b, r) where the
    chain rises, >= where it falls; a binary says which, for each pair.
    """
    for one, two, rising in zip(
        reached, reached[1:], _rises(program, chain.course, len(reached) - 1, name), strict=False
    ):
        for before, after in zip(one, two, strict=True):
            program += before - after <= 1 - rising
            program += after - before <= rising


def _rises(program: pulp.LpProblem, course: str, count: int, name: str) -> list:
    """For each pair of neighbours 1 where the chain rises, 0 where it falls."""
    import pulp

    if course in ("rising", "falling"):
        return [int(course == "rising")] * count
    if course == "monotone":
        return [program.add_variable(name, cat=pulp.LpBinary)] * count
    rises = [program.add_variable(f"{name}_{at}", cat=pulp.LpBinary) for at in range(count)]
    for one, two in zip(rises, rises[1:], strict=False):
        program += one <= two
    return rises
