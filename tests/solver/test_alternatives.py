from dataclasses import replace

import numpy as np
import pytest
from small_problems import feasible_with_resource, plans, problem, random_problem

from quantplan.errors import BudgetImpossible, QuantplanError
from quantplan.solver import search
from quantplan.solver.alternatives import alternatives
from quantplan.solver.frontier import differing
from quantplan.solver.problem import Distinct


def best_unlike(task, earlier, least):
    """The least damage of the plans that differ from all earlier ones in at least so many groups; None where none does."""
    unlike = [plan for plan in plans(task) if all(differing(plan, each) >= least for each in earlier)]
    return min(map(task.damage, unlike), default=None)


def check(task, count, least):
    found = alternatives(task, count, least)
    earlier = []
    for each in found:
        best = best_unlike(task, earlier, least)
        assert task.fits(each.choices) and all(differing(each.choices, other) >= least for other in earlier)
        assert each.outcome.objective == task.damage(each.choices) == pytest.approx(best, rel=1e-6, abs=1e-12)
        assert each.outcome.status == "optimal" and each.outcome.bound <= best * (1 + 1e-9)
        earlier.append(each.choices)
    assert len(found) == count or best_unlike(task, earlier, least) is None
    return found


@pytest.mark.parametrize("least", [1, 2, 3])
@pytest.mark.parametrize("seed", range(30))
def test_small_problems(seed, least):
    check(random_problem(seed), 5, least)


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("seed", range(30))
def test_two_limits(seed, least):
    check(feasible_with_resource(seed), 4, least)


@pytest.mark.parametrize("seed", range(15))
def test_few_types(seed):
    base = random_problem(seed)
    task = replace(base, distinct=Distinct(2, tuple(range(len(base.groups)))))
    if plans(task):
        check(task, 3, 1)
        return
    with pytest.raises(BudgetImpossible):
        alternatives(task, 3)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_tiny_and_large_damages(scale):
    for seed in range(10):
        task = random_problem(seed, scale=scale)
        found = [each.outcome.objective for each in alternatives(task, 4)]
        expected = [each.outcome.objective for each in alternatives(random_problem(seed), 4)]
        assert [each / scale for each in found] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.slow
def test_narrow_sweeps_bound_what_they_cannot_prove(monkeypatch):
    monkeypatch.setattr(search, "WIDTHS", (2,))
    for seed in range(30):
        task = random_problem(seed)
        first, *others = alternatives(task, 3, 2)
        earlier = [first.choices]
        for each in others:
            best = best_unlike(task, earlier, 2)
            assert each.outcome.bound <= best * (1 + 1e-9) and each.outcome.objective >= best * (1 - 1e-9)
            assert each.outcome.gap == pytest.approx(1 - each.outcome.bound / (each.outcome.objective or 1), abs=1e-12)
            earlier.append(each.choices)


def larger(groups, types):
    rng = np.random.default_rng(3)
    bits = np.linspace(2, 8, types)
    rows = [
        list(zip((bits * 1000).astype(int).tolist(), row, strict=True))
        for row in (np.exp(-bits) * rng.lognormal(0, 0.2, (groups, types)) * rng.lognormal(0, 1, (groups, 1))).tolist()
    ]
    return problem(*rows, budget=groups * 4500)


def test_many_groups_in_order_and_unlike():
    task = larger(80, 8)
    found = alternatives(task, 4, 3)
    damages = [each.outcome.objective for each in found]
    assert len(found) == 4 and all(b >= a * (1 - 1e-6) for a, b in zip(damages, damages[1:], strict=False))
    pairs = [(a, b) for at, a in enumerate(found) for b in found[:at]]
    assert all(differing(a.choices, b.choices) >= 3 for a, b in pairs)
    assert all(each.outcome.gap <= 1e-6 for each in found)


def test_out_of_time_without_a_plan_is_an_error():
    with pytest.raises(QuantplanError, match="allow more time"):
        alternatives(larger(80, 8), 2, 20, time_limit=0.0)


def test_fewer_than_asked_for():
    task = problem([(1, 1.0), (2, 0.0)], [(1, 0.5)], budget=9)
    assert [each.choices for each in alternatives(task, 9)] == [(1, 0), (0, 0)]
    assert len(alternatives(task, 9, 2)) == len(alternatives(task, 9, 3)) == 1


def test_no_plan_and_no_difference():
    with pytest.raises(BudgetImpossible):
        alternatives(problem([(3, 1.0)], budget=2), 2)
    with pytest.raises(ValueError, match="at least 0 groups"):
        alternatives(problem([(3, 1.0)], budget=3), 2, 0)
