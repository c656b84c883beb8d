"""A course over the blocks: the best plan that keeps it, against trying every plan."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from small_problems import optimum, plans, problem, random_problem

from quantplan.errors import BudgetImpossible
from quantplan.solver.problem import COURSES, Chain, Distinct
from quantplan.solver.program import solve


def chained(seed, course):
    """A random problem whose groups (but the first, where there are three or more) follow a course by their choices' ranks."""
    base, rng = random_problem(seed), np.random.default_rng(seed)
    groups = tuple(range(1 if len(base.groups) > 2 else 0, len(base.groups)))
    ranks = tuple(tuple(rng.permutation(len(base.groups[group].choices)).tolist()) for group in groups)
    return replace(base, chains=(Chain(course, groups, ranks),))


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("seed", range(30))
def test_against_every_plan(seed, course):
    task = chained(seed, course)
    if not plans(task):
        with pytest.raises(BudgetImpossible):
            solve(task)
        return
    found = solve(task)
    assert task.fits(found.choices) and task.chains[0].holds(found.choices)
    assert task.damage(found.choices) == pytest.approx(optimum(task), rel=1e-6, abs=1e-12)
    assert found.outcome.status == "optimal"


def test_courses():
    def holds(course, ranks):
        return Chain(course, tuple(range(len(ranks))), ((0, 1, 2, 3),) * len(ranks)).holds(ranks)

    for ranks in product(range(4), repeat=4):
        steps = [two - one for one, two in zip(ranks, ranks[1:], strict=False)]
        rising, falling = all(step >= 0 for step in steps), all(step <= 0 for step in steps)
        turns = any(
            all(step <= 0 for step in steps[:at]) and all(step >= 0 for step in steps[at:])
            for at in range(len(steps) + 1)
        )
        assert holds("rising", ranks) == rising and holds("falling", ranks) == falling
        assert holds("monotone", ranks) == (rising or falling) and holds("valley", ranks) == turns


def test_with_few_labels_besides():
    for seed in range(15):
        task = chained(seed, "valley")
        task = replace(task, distinct=Distinct(2, tuple(range(len(task.groups)))))
        if plans(task):
            assert task.damage(solve(task).choices) == pytest.approx(optimum(task), rel=1e-6, abs=1e-12)
        else:
            with pytest.raises(BudgetImpossible):
                solve(task)


def test_an_unknown_course_and_missing_ranks():
    base = problem([(1, 1.0), (2, 0.5)], budget=2)
    with pytest.raises(ValueError, match="is not a course"):
        replace(base, chains=(Chain("sideways", (0,), ((0, 1),)),))
    with pytest.raises(ValueError, match="rank every choice"):
        replace(base, chains=(Chain("rising", (0,), ((0,),)),))
