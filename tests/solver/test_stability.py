import math
from dataclasses import replace

import numpy as np
import pytest
from small_problems import feasible_with_resource, plans, problem, random_problem

from quantplan.solver.frontier import differing
from quantplan.solver.problem import Distinct, Problem
from quantplan.solver.program import solve
from quantplan.solver.stability import error_factors, stability


def redrawn(task: Problem, factors):
    groups = tuple(
        replace(group, choices=tuple(replace(each, damage=each.damage * float(factor)) for each in group.choices))
        for group, factor in zip(task.groups, factors, strict=True)
    )
    return replace(task, groups=groups)


@pytest.mark.parametrize("limits", [1, 2])
@pytest.mark.parametrize("seed", range(15))
def test_every_draw_against_every_plan(seed, limits):
    task = random_problem(seed) if limits == 1 else feasible_with_resource(seed)
    errors = [0.5] * len(task.groups)
    plan = solve(task).choices
    found = stability(task, plan, errors, draws=8, seed=seed)
    for draw, factors in enumerate(error_factors(errors, 8, seed)):
        drawn = redrawn(task, factors)
        best = min(map(drawn.damage, plans(drawn)))
        if best > 0:
            assert found.regret[draw] == pytest.approx(drawn.damage(plan) / best - 1, abs=2e-6)
        nearest = min(differing(plan, each) for each in plans(drawn) if drawn.damage(each) <= best * (1 + 1e-9))
        assert found.changed[draw] >= nearest
    assert sum(found.changed) == sum(sum(each.values()) for each in found.instead)


def test_without_errors_nothing_changes():
    task = random_problem(3)
    plan = solve(task).choices
    found = stability(task, plan, [0.0] * len(task.groups), draws=3)
    assert found.changed == (0, 0, 0) and found.regret == (0.0, 0.0, 0.0)


def test_what_changes_and_to_what():
    # two alike groups compete for one better type: either may win
    task = problem([(1, 1.0), (2, 0.0)], [(1, 1.01), (2, 0.0)], budget=3)
    found = stability(task, (0, 1), [0.2, 0.2], draws=400)
    share = found.frequency(0)
    assert share == found.frequency(1) == pytest.approx(0.5, abs=0.1)
    assert found.instead == ({"type 1": round(share * 400)}, {"type 0": round(share * 400)})
    assert set(found.changed) == {0, 2} and found.draws == 400


def test_the_same_for_few_types():
    base = random_problem(5)
    task = replace(base, distinct=Distinct(2, tuple(range(len(base.groups)))))
    plan = solve(task).choices
    found = stability(task, plan, [0.5] * len(task.groups), draws=4)
    assert all(regret >= -1e-6 for regret in found.regret)


def test_factors_have_the_mean_and_error_asked_for():
    drawn = error_factors([0.05, 1.0, 0.0], 20_000, 1)
    assert drawn.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.03)
    assert drawn.std(axis=0) == pytest.approx([0.05, 1.0, 0.0], rel=0.1)
    assert np.array_equal(drawn, error_factors([0.05, 1.0, 0.0], 20_000, 1))
    assert math.isclose(drawn[:, 2].max(), 1)


def test_nonsense():
    with pytest.raises(ValueError, match="at least one draw"):
        stability(random_problem(1), (0,), [], draws=0)
