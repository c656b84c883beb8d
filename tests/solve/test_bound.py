import numpy as np
import pytest
from small_problems import optimum, plans, problem, random_problem, with_resource

from quantplan.solve.bound import relax, tabulate, without_dominated, without_oversized, without_worse


def offered(task, plan, tableau):
    return all(tableau.offered[group, choice] for group, choice in enumerate(plan))


def test_use_counts_from_the_smallest_in_common_units():
    tableau = tabulate(problem([(100, 2.0), (160, 1.0)], [(50, 1.0), (90, 0.0), (50, 3.0)], budget=230))
    assert tableau.use.tolist() == [[[0, 3, 0], [0, 2, 0]]]
    assert tableau.limit.tolist() == [4]
    assert tableau.damage.tolist() == [[2.0, 1.0, np.inf], [1.0, 0.0, 3.0]]


def test_dominated_choices_fall_and_of_equals_the_first_stays():
    group = [(5, 1.0), (5, 1.0), (5, 2.0), (6, 1.0), (6, 0.5), (4, 1.5)]
    tableau = without_dominated(tabulate(problem(group, budget=9)))
    assert tableau.offered.tolist() == [[True, False, False, False, True, True]]


def test_a_choice_above_the_convex_hull_stays():
    tableau = without_dominated(tabulate(problem([(0, 1.0), (5, 0.9), (10, 0.0)], budget=9)))
    assert tableau.offered.all()


@pytest.mark.parametrize("seed", range(30))
def test_without_dominated_keeps_the_optimum(seed):
    task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
    tableau = without_dominated(tabulate(task))
    kept = [task.damage(plan) for plan in plans(task) if offered(task, plan, tableau)]
    assert kept == [] == plans(task) or min(kept) == optimum(task)


@pytest.mark.parametrize("seed", range(40))
def test_the_bound_is_never_above_the_optimum(seed):
    task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
    if plans(task):
        relaxation = relax(without_oversized(tabulate(task)))
        assert relaxation.bound <= optimum(task) + 1e-12
        assert (relaxation.reduced >= 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_no_price_gives_a_better_bound_with_one_resource(seed):
    tableau = without_oversized(tabulate(random_problem(seed)))
    bound = relax(tableau).bound
    for price in np.linspace(0, 3, 301):
        least = (tableau.damage + price * tableau.use[0]).min(axis=1).sum()
        assert least - price * tableau.limit[0] <= bound + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_the_relaxations_choices_fit_one_resource(seed):
    tableau = without_oversized(tabulate(random_problem(seed)))
    assert tableau.fits(relax(tableau).choices)


@pytest.mark.parametrize("seed", range(40))
def test_fixing_keeps_every_plan_below_the_target(seed):
    task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
    damages = sorted({task.damage(plan) for plan in plans(task)})
    if not damages:
        return
    target = damages[len(damages) // 2]
    tableau = without_oversized(tabulate(task))
    fixed = without_worse(tableau, relax(tableau), target)
    for plan in plans(task):
        assert task.damage(plan) > target - 1e-12 or offered(task, plan, fixed)


def test_fixing_rules_out_what_costs_too_much():
    tableau = tabulate(problem([(0, 1.0), (10, 0.0), (1, 50.0)], [(0, 1.0), (9, 0.0)], budget=10))
    fixed = without_worse(tableau, relax(tableau), 1.0 + 1e-9)
    assert fixed.offered.tolist() == [[True, True, False], [True, True, False]]


def test_a_choice_that_leaves_no_room_for_the_others_falls():
    tableau = tabulate(problem([(0, 1.0), (6, 0.0)], [(5, 1.0), (11, 0.0)], budget=10))
    assert without_oversized(tableau).offered.tolist() == [[True, False], [True, False]]
