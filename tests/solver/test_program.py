from dataclasses import replace

import pytest
from small_problems import optimum, plans, problem, random_problem, with_resource

from quantplan.errors import BudgetImpossible, QuantplanError
from quantplan.solver import search
from quantplan.solver.problem import Problem, Resource
from quantplan.solver.program import smallest_bytes, solve


def check(task, solution, rel=1e-6):
    """The solution holds against all plans there are, with everything added up here."""
    best = optimum(task)
    outcome = solution.outcome
    assert task.fits(solution.choices)
    assert outcome.objective == task.damage(solution.choices)
    assert outcome.bound <= best * (1 + 1e-12)
    assert outcome.objective <= best * (1 + rel)
    assert outcome.gap == pytest.approx((outcome.objective - outcome.bound) / (outcome.objective or 1))
    assert (outcome.status, outcome.gap <= rel) == ("optimal", True)


@pytest.fixture(params=["sweeps", "narrow sweep, then HiGHS", "HiGHS alone"])
def way(request, monkeypatch):
    """The steps after bounds and fixing, together and each by itself."""
    widths = {"sweeps": search.WIDTHS, "narrow sweep, then HiGHS": (1,), "HiGHS alone": ()}
    monkeypatch.setattr(search, "WIDTHS", widths[request.param])


@pytest.mark.parametrize("seed", range(40))
def test_small_problems(seed, way):
    task = random_problem(seed)
    check(task, solve(task))


@pytest.mark.parametrize("seed", range(20))
def test_large_bytes(seed, way):
    task = random_problem(seed, unit=10**10)
    check(task, solve(task))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("seed", range(10))
def test_tiny_and_large_damages(seed, scale, way):
    task = random_problem(seed, scale=scale)
    check(task, solve(task))


@pytest.mark.parametrize("seed", range(40))
def test_two_limits(seed, way):
    task = with_resource(random_problem(seed), seed)
    if plans(task):
        check(task, solve(task))
        return
    with pytest.raises(BudgetImpossible) as caught:
        solve(task)
    loose = replace(task, budget_bytes=task.largest_bytes)
    assert caught.value.smallest == min(map(task.bytes, plans(loose)), default=None)


@pytest.mark.parametrize("seed", range(20))
def test_three_limits(seed, way):
    task = with_resource(with_resource(random_problem(seed), seed), seed + 100)
    if plans(task):
        check(task, solve(task))
        return
    with pytest.raises(BudgetImpossible):
        solve(task)


@pytest.mark.parametrize("seed", range(30))
def test_at_the_smallest_and_just_below(seed):
    task = random_problem(seed)
    tight = replace(task, budget_bytes=task.smallest_bytes)
    check(tight, solve(tight))
    with pytest.raises(BudgetImpossible, match="1 more than the budget") as caught:
        solve(replace(task, budget_bytes=task.smallest_bytes - 1))
    assert caught.value.smallest == task.smallest_bytes


def test_a_loose_budget_needs_no_solver(monkeypatch):
    monkeypatch.setattr(search, "sweep", None)
    for seed in range(20):
        task = random_problem(seed)
        check(task_loose := replace(task, budget_bytes=task.largest_bytes + 1), solve(task_loose))


def test_equal_choices_give_the_first():
    task = problem([(5, 1.0), (5, 1.0)], [(3, 0.0), (3, 0.0), (3, 0.0)], budget=8)
    assert solve(task).choices == (0, 0)


def test_no_damage_at_all():
    outcome = solve(problem([(5, 0.0), (2, 1.0)], [(1, 0.0)], budget=6)).outcome
    assert (outcome.status, outcome.objective, outcome.bound, outcome.gap) == ("optimal", 0.0, 0.0, 0.0)


def test_no_groups():
    assert solve(Problem((), 0)).choices == ()


def test_the_same_problem_gives_the_same_choices(way):
    for seed in range(10):
        assert solve(random_problem(seed)).choices == solve(random_problem(seed)).choices


def test_out_of_time_is_feasible_with_its_true_gap():
    task = problem([(0, 1.0), (7, 0.25)], [(0, 2.0), (8, 0.5)], [(0, 3.0), (9, 0.125)], budget=16)
    solution = solve(task, time_limit=0.0)
    outcome = solution.outcome
    assert task.fits(solution.choices)
    assert outcome.status == "feasible"
    assert outcome.objective == task.damage(solution.choices)
    assert outcome.bound <= optimum(task)
    assert outcome.gap == (outcome.objective - outcome.bound) / outcome.objective > 1e-6


def test_out_of_time_without_a_plan_is_an_error():
    groups = [[(0, 1.0), (1, 0.0)]] * 4
    base = problem(*groups, budget=2)
    task = replace(base, resources=(Resource("time", 2, ((1, 0),) * 4),))
    check(task, solve(task))
    with pytest.raises(QuantplanError, match="allow more time"):
        solve(task, time_limit=-1.0)


def test_a_further_limit_in_the_way_is_named():
    base = problem([(3, 1.0), (7, 0.5)], budget=7)
    with pytest.raises(BudgetImpossible, match="need 2 more than the limit of 2 on time"):
        solve(replace(base, resources=(Resource("time", 2, ((4, 5),)),)))


def test_further_limits_that_exclude_each_other_are_named():
    base = problem([(3, 1.0), (7, 0.5)], budget=7)
    fast, cool = Resource("time", 1, ((1, 9),)), Resource("heat", 1, ((9, 1),))
    with pytest.raises(BudgetImpossible, match="the limit on time and the limit on heat together"):
        solve(replace(base, resources=(fast, cool)))


def test_smallest_bytes_within_another_limit():
    base = problem([(3, 1.0), (7, 0.5)], [(2, 0.0), (4, 0.0)], budget=0)
    task = replace(base, resources=(Resource("time", 10, ((11, 5), (1, 2))),))
    assert smallest_bytes(task) == 9
    with pytest.raises(BudgetImpossible, match="9 more than the budget") as caught:
        solve(task)
    assert caught.value.smallest == 9
