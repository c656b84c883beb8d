import math

import pytest
from small_problems import optimum, plans, random_problem, with_resource

from quantplan.solver.bound import choice_arrays, relax, without_oversized
from quantplan.solver.dynamic_program import sweep


def swept(task, width, target=math.inf, deadline=math.inf):
    choices_arrays = without_oversized(choice_arrays(task))
    return sweep(choices_arrays, relax(choices_arrays), target, width, deadline)


def possible_problems():
    """Some of the seeds make limits that leave a group without choices: nothing to sweep."""
    for seed in range(45):
        task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
        if not without_oversized(choice_arrays(task)).empty:
            yield pytest.param(task, id=f"seed {seed}")


@pytest.mark.parametrize("task", list(possible_problems()))
def test_a_wide_sweep_proves_the_optimum(task):
    found = swept(task, width=10**6)
    if not plans(task):
        assert found.choices is None
        return
    best = tuple(found.choices.tolist())
    assert task.fits(best)
    assert task.damage(best) == pytest.approx(optimum(task), abs=1e-12)
    assert found.bound == pytest.approx(optimum(task), abs=1e-12)


@pytest.mark.parametrize("task", list(possible_problems()))
def test_a_narrow_sweep_claims_no_more_than_is_true(task):
    found = swept(task, width=1)
    assert found.choices is None or task.fits(tuple(found.choices.tolist()))
    if plans(task):
        assert found.bound <= optimum(task) + 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_below_the_optimum(seed):
    task = random_problem(seed)
    found = swept(task, width=10**6, target=optimum(task) * (1 - 1e-9))
    assert found.choices is None
    assert found.bound == pytest.approx(optimum(task), rel=1e-8)


def test_past_the_deadline_only_the_relaxation_is_proven():
    task = random_problem(6)
    choices_arrays = without_oversized(choice_arrays(task))
    assert len(choices_arrays.open) > 0
    found = sweep(choices_arrays, relax(choices_arrays), math.inf, 10**6, deadline=-math.inf)
    assert (found.choices, found.bound) == (None, relax(choices_arrays).bound)
