"""At most K different types: the best plan, against trying every plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_problems import optimum, plans, random_problem, with_resource

from quantplan.errors import BudgetImpossible
from quantplan.solver.problem import Choice, Distinct, Group, Problem
from quantplan.solver.program import solve


def limited(seed, most):
    """A random problem of which all groups but the last count towards the limit."""
    base = random_problem(seed)
    return replace(base, distinct=Distinct(most, tuple(range(max(len(base.groups) - 1, 1)))))


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("seed", range(40))
def test_against_every_plan(seed, most):
    task = limited(seed, most)
    if not plans(task):
        with pytest.raises(BudgetImpossible):
            solve(task)
        return
    found = solve(task)
    assert task.fits(found.choices) and len(task.labels(found.choices)) <= most
    assert found.outcome.status == "optimal"
    assert task.damage(found.choices) == pytest.approx(optimum(task), rel=1e-6)
    assert found.outcome.bound <= optimum(task) * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_with_a_further_limit(seed):
    task = with_resource(limited(seed, 2), seed)
    if not plans(task):
        with pytest.raises(BudgetImpossible):
            solve(task)
        return
    assert task.damage(solve(task).choices) == pytest.approx(optimum(task), rel=1e-6)


def test_a_dominated_type_is_taken_where_the_better_one_would_be_one_too_many():
    """B is as good everywhere, A is dominated in the first group by C, but C is of no use to the second."""
    first = Group("one", (Choice("C", 10, 0.1), Choice("A", 10, 0.2)))
    second = Group("two", (Choice("A", 10, 0.1), Choice("B", 20, 5.0)))
    free = Problem((first, second), 20)
    assert free.damage(solve(free).choices) == pytest.approx(0.2)
    task = replace(free, distinct=Distinct(1, (0, 1)))
    assert task.damage(solve(task).choices) == pytest.approx(0.3)


def test_nothing_is_common_to_all_groups():
    groups = (Group("one", (Choice("A", 1, 1.0),)), Group("two", (Choice("B", 1, 1.0),)))
    with pytest.raises(BudgetImpossible, match="at most 1 types"):
        solve(Problem(groups, 100, distinct=Distinct(1, (0, 1))))


@pytest.mark.slow
def test_few_types_of_many():
    """60 groups x 12 types: every set of three, each solved by itself, is no better."""
    from itertools import combinations

    rng = np.random.default_rng(0)
    bits = np.linspace(2, 8, 12)
    sizes = (rng.choice([256, 512, 1024], 60)[:, None] * bits).astype(int)
    damage = rng.lognormal(0, 1, (60, 1)) * 4.0**-bits * rng.lognormal(0, 0.2, (60, 12))
    groups = tuple(
        Group(str(g), tuple(Choice(f"T{t}", int(sizes[g, t]), float(damage[g, t])) for t in range(12)))
        for g in range(60)
    )
    whole = Problem(groups, int(sizes.sum(axis=0)[5]))
    best = np.inf
    for chosen in combinations(range(12), 3):
        part = replace(whole, groups=tuple(Group(g.name, tuple(g.choices[t] for t in chosen)) for g in groups))
        if part.smallest_bytes <= part.budget_bytes:
            best = min(best, solve(part).outcome.objective)
    found = solve(replace(whole, distinct=Distinct(3, tuple(range(60)))))
    assert found.outcome.objective == pytest.approx(best, rel=2e-6)
