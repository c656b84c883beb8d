import math
from dataclasses import replace

import numpy as np
import pytest
from small_problems import optimum, plans, problem, random_problem, with_resource

from quantplan.errors import BudgetImpossible
from quantplan.solver import search
from quantplan.solver.frontier import Point, even_budgets, frontier, knee, span
from quantplan.solver.problem import Choice, Distinct, Group, Problem, Resource
from quantplan.solver.program import solve


def every_budget(task):
    return range(task.smallest_bytes, task.largest_bytes + 2)


@pytest.mark.parametrize("seed", range(40))
def test_every_point_is_the_optimum(seed):
    task = random_problem(seed)
    for point in frontier(task, every_budget(task)):
        within = replace(task, budget_bytes=point.budget_bytes)
        assert within.fits(point.choices) and point.bytes == task.bytes(point.choices)
        assert point.damage == task.damage(point.choices) == pytest.approx(optimum(within), rel=1e-6, abs=0)
        assert point.bound <= point.damage and point.gap <= 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_large_bytes_in_odd_units(seed):
    task = random_problem(seed, unit=3 * 10**9)
    for point in frontier(task, points=7):
        assert point.damage == pytest.approx(optimum(replace(task, budget_bytes=point.budget_bytes)), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_with_another_limit(seed):
    task = with_resource(random_problem(seed), seed)
    for budget in every_budget(task):
        within = replace(task, budget_bytes=budget)
        if plans(within):
            (point,) = frontier(task, [budget])
            assert point.damage == pytest.approx(optimum(within), rel=1e-6, abs=0) and within.fits(point.choices)
        else:
            with pytest.raises(BudgetImpossible):
                frontier(task, [budget])


@pytest.mark.parametrize("seed", range(20))
def test_with_few_types(seed):
    base = random_problem(seed)
    task = replace(base, distinct=Distinct(2, tuple(range(len(base.groups)))))
    if not plans(replace(task, budget_bytes=task.largest_bytes)):
        with pytest.raises(BudgetImpossible):
            frontier(task, points=5)
        return
    for point in frontier(task, points=5):
        assert point.damage == pytest.approx(optimum(replace(task, budget_bytes=point.budget_bytes)), rel=1e-6)


def test_ends_of_the_span():
    task = problem([(2, 3.0), (5, 1.0), (9, 1.0)], [(1, 2.0), (4, 0.5)], budget=0)
    assert span(task) == (3, 9)  # 9 bytes for the first group would gain nothing
    found = frontier(task, points=3)
    assert [each.budget_bytes for each in found] == [3, 6, 9]
    assert [each.damage for each in found] == [5.0, 3.0, 1.5]


def test_a_budget_below_every_plan():
    task = problem([(2, 3.0), (5, 1.0)], budget=0)
    with pytest.raises(BudgetImpossible, match="1 more than the budget of 1"):
        frontier(task, [1, 5])


@pytest.mark.parametrize("points", [1, 2, 5])
def test_even_budgets(points):
    budgets = even_budgets(10, 18, points)
    assert len(budgets) == points and budgets[-1] == 18
    assert points == 1 or budgets[0] == 10


def test_even_budgets_of_few_bytes():
    assert even_budgets(10, 12, 100) == (10, 11, 12)


def test_price_is_the_slope_of_the_hull():
    # the second group's step saves 2 nats for 4 bytes, the first's 2 for 3
    task = problem([(2, 3.0), (5, 1.0)], [(1, 4.0), (5, 2.0)], budget=0)
    prices = {each.budget_bytes: each.price for each in frontier(task, [3, 4, 7, 10])}
    assert prices == pytest.approx({3: 2 / 3, 4: 2 / 3, 7: 0.5, 10: 0.0})


def smooth(groups, types, seed=0):
    """Damage falls exponentially in bits, with noise, as it does in models."""
    rng = np.random.default_rng(seed)
    bits = np.linspace(1.5, 8.5, types)
    sizes = (rng.choice([1, 4, 11, 28], groups)[:, None] * 2**20 * bits / 8).astype(np.int64) // 32 * 32
    damage = rng.lognormal(-8, 1.5, (groups, 1)) * np.exp(-1.2 * bits) * rng.lognormal(0, 0.1, (groups, types))
    rows = zip(sizes.tolist(), damage.tolist(), strict=True)
    return Problem(tuple(Group(f"t{i}", tuple(map(Choice, map(str, bits), *row))) for i, row in enumerate(rows)), 0)


@pytest.mark.slow
def test_many_tensors_as_the_solver_itself():
    task = smooth(200, 12)
    found = frontier(task, points=9)
    for point in found:
        own = solve(replace(task, budget_bytes=point.budget_bytes)).outcome
        assert point.damage == pytest.approx(own.objective, rel=2e-6) and point.gap <= 1e-6
        if point is not found[0]:
            assert point.price == pytest.approx(own.prices["bytes"], rel=1e-6, abs=1e-18)
    assert found[0].price > found[1].price > found[-2].price > 0


def test_out_of_time_is_said(monkeypatch):
    task = smooth(60, 8)
    late = frontier(task, even_budgets(*span(task), 5), time_limit=0.0)
    assert max(each.gap for each in late) > 1e-6
    for point in late:
        best = solve(replace(task, budget_bytes=point.budget_bytes)).outcome.objective
        assert point.bound <= best * (1 + 1e-6) and point.damage >= best * (1 - 1e-6)


def test_what_a_sweep_leaves_open_goes_to_highs(monkeypatch):
    monkeypatch.setattr(search, "WIDTHS", (1,))
    for seed in range(20):
        task = random_problem(seed)
        for point in frontier(task, points=3):
            assert point.damage == pytest.approx(
                optimum(replace(task, budget_bytes=point.budget_bytes)), rel=1e-6, abs=0
            )


def points_of(*pairs):
    return [Point(size, size, damage, damage, 0.0, 0.0, ()) for size, damage in pairs]


def test_knee_of_two_lines():
    steep = [(b, math.exp(-b)) for b in range(5)]
    flat = [(b, math.exp(-4 - 0.1 * (b - 4))) for b in range(5, 12)]
    assert knee(points_of(*steep, *flat)).bytes == 4


def test_no_knee():
    assert knee(points_of(*((b, 3 * math.exp(-b / 7)) for b in range(9)))) is None
    assert knee(points_of((1, 2.0), (2, 1.9), (3, 0.1))) is None  # falls faster and faster
    assert knee(points_of((1, 2.0), (2, 0.0))) is None


def test_points_without_damage_are_no_part_of_the_knee():
    lossy = [(0, 1.0), (1, 0.1), (2, 0.05), (3, 0.04)]
    assert knee(points_of(*lossy, (4, 0.0))).bytes == knee(points_of(*lossy)).bytes == 1


def test_a_limit_that_only_the_smallest_budget_lets_bind():
    """Time does not bind, bytes do: the tableau has one row whatever the budget."""
    task = problem([(3, 1.0), (7, 0.5)], [(2, 0.25), (4, 0.0)], budget=0)
    task = replace(task, resources=(Resource("time", 99, ((1, 2), (3, 4))),))
    assert [each.damage for each in frontier(task, [5, 7, 9, 11])] == [1.25, 1.0, 0.75, 0.5]
