import numpy as np
import pytest
from small_problems import feasible_with_resource, optimum, plans, problem, random_problem, with_resource

from quantplan.solver.bound import choice_arrays, relax, without_dominated, without_oversized, without_worse


def offered(task, plan, choices_arrays):
    return all(choices_arrays.offered[group, choice] for group, choice in enumerate(plan))


def test_use_counts_from_the_smallest_in_common_units():
    choices_arrays = choice_arrays(problem([(100, 2.0), (160, 1.0)], [(50, 1.0), (90, 0.0), (50, 3.0)], budget=230))
    assert choices_arrays.use.tolist() == [[[0, 3, 0], [0, 2, 0]]]
    assert choices_arrays.limit.tolist() == [4]
    assert choices_arrays.damage.tolist() == [[2.0, 1.0, np.inf], [1.0, 0.0, 3.0]]


def test_dominated_choices_fall_and_of_equals_the_first_stays():
    group = [(5, 1.0), (5, 1.0), (5, 2.0), (6, 1.0), (6, 0.5), (4, 1.5)]
    choices_arrays = without_dominated(choice_arrays(problem(group, budget=9)))
    assert choices_arrays.offered.tolist() == [[True, False, False, False, True, True]]


def test_a_choice_above_the_convex_hull_stays():
    choices_arrays = without_dominated(choice_arrays(problem([(0, 1.0), (5, 0.9), (10, 0.0)], budget=9)))
    assert choices_arrays.offered.all()


@pytest.mark.parametrize("seed", range(30))
def test_without_dominated_keeps_the_optimum(seed):
    task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
    choices_arrays = without_dominated(choice_arrays(task))
    kept = [task.damage(plan) for plan in plans(task) if offered(task, plan, choices_arrays)]
    assert kept == [] == plans(task) or min(kept) == optimum(task)


@pytest.mark.parametrize("seed", range(40))
def test_the_bound_is_never_above_the_optimum(seed):
    task = feasible_with_resource(seed) if seed % 2 else random_problem(seed)
    relaxation = relax(without_oversized(choice_arrays(task)))
    assert relaxation.bound <= optimum(task) + 1e-12
    assert (relaxation.reduced >= 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_no_price_gives_a_better_bound_with_one_resource(seed):
    choices_arrays = without_oversized(choice_arrays(random_problem(seed)))
    bound = relax(choices_arrays).bound
    for price in np.linspace(0, 3, 301):
        least = (choices_arrays.damage + price * choices_arrays.use[0]).min(axis=1).sum()
        assert least - price * choices_arrays.limit[0] <= bound + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_the_relaxations_choices_fit_one_resource(seed):
    choices_arrays = without_oversized(choice_arrays(random_problem(seed)))
    assert choices_arrays.fits(relax(choices_arrays).choices)


@pytest.mark.parametrize("seed", range(40))
def test_fixing_keeps_every_plan_below_the_target(seed):
    task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
    damages = sorted({task.damage(plan) for plan in plans(task)})
    if not damages:
        return
    target = damages[len(damages) // 2]
    choices_arrays = without_oversized(choice_arrays(task))
    fixed = without_worse(choices_arrays, relax(choices_arrays), target)
    for plan in plans(task):
        assert task.damage(plan) > target - 1e-12 or offered(task, plan, fixed)


def test_fixing_rules_out_what_costs_too_much():
    choices_arrays = choice_arrays(problem([(0, 1.0), (10, 0.0), (1, 50.0)], [(0, 1.0), (9, 0.0)], budget=10))
    fixed = without_worse(choices_arrays, relax(choices_arrays), 1.0 + 1e-9)
    assert fixed.offered.tolist() == [[True, True, False], [True, True, False]]


def test_a_choice_that_leaves_no_room_for_the_others_falls():
    choices_arrays = choice_arrays(problem([(0, 1.0), (6, 0.0)], [(5, 1.0), (11, 0.0)], budget=10))
    assert without_oversized(choices_arrays).offered.tolist() == [[True, False], [True, False]]
