"""Seeded problems small enough to try every plan."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from quantplan.solver.problem import Choice, Group, Problem, Resource


def problem(*groups: list[tuple[int, float]], budget: int) -> Problem:
    """From lists of (bytes, damage)."""
    return Problem(
        tuple(
            Group(f"group {g}", tuple(Choice(f"type {c}", *each) for c, each in enumerate(group)))
            for g, group in enumerate(groups)
        ),
        budget,
    )


def random_problem(seed: int, unit: int = 1, scale: float = 1.0) -> Problem:
    """Up to 6 groups of up to 5 choices with equal bytes, duplicates, dominated and single ones."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(rng.integers(1, 7)):
        count = rng.integers(1, 6)
        sizes = rng.integers(0, 12, count) * unit + rng.integers(0, 2, count) * (unit > 1)
        damage = rng.choice([0.0, 0.125, 0.5, 0.7, 1.3, 2.2, rng.random()], count) * scale
        group = list(zip(sizes.tolist(), damage.tolist(), strict=True))
        groups.append([*group, group[0]] if rng.random() < 0.3 else group)
    loose = problem(*groups, budget=0)
    return replace(loose, budget_bytes=int(rng.integers(loose.smallest_bytes, loose.largest_bytes + 1)))


def with_resource(base: Problem, seed: int) -> Problem:
    """One more limit, between the least and the most that can be used; all limits together may not fit."""
    rng = np.random.default_rng(seed)
    use = tuple(tuple(rng.integers(0, 9, len(group.choices)).tolist()) for group in base.groups)
    least, most = sum(map(min, use)), sum(map(max, use))
    further = Resource("time", int(rng.integers(least, most + 1)), use)
    return replace(base, resources=(*base.resources, further))


def feasible_with_resource(seed: int) -> Problem:
    """A random problem with one more limit, drawn again until some plan keeps both."""
    return next(task for at in range(100) if plans(task := with_resource(random_problem(seed), seed + 1000 * at)))


def plans(task: Problem) -> list[tuple[int, ...]]:
    """Every plan within the limits."""
    every = product(*(range(len(group.choices)) for group in task.groups))
    return [plan for plan in every if task.fits(plan)]


def optimum(task: Problem) -> float:
    return min(map(task.damage, plans(task)))
