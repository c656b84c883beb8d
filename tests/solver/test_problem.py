import pytest
from small_problems import problem

from quantplan.solver.problem import Group, Problem, Resource


def test_smallest_and_largest_bytes():
    task = problem([(3, 1.0), (7, 0.5)], [(2, 0.0)], budget=9)
    assert (task.smallest_bytes, task.largest_bytes) == (5, 9)


def test_a_plan_fits_up_to_the_last_byte():
    groups = [(10**11, 1.0), (10**11 + 1, 0.5)], [(2, 0.0)]
    assert problem(*groups, budget=10**11 + 3).fits((1, 0))
    assert not problem(*groups, budget=10**11 + 2).fits((1, 0))


def test_a_further_resource_limits_too():
    task = problem([(3, 1.0), (7, 0.5)], budget=100)
    limited = Problem(task.groups, 100, (Resource("time", 4, ((4, 5),)),))
    assert limited.fits((0,))
    assert not limited.fits((1,))


def test_a_group_without_choices_is_named():
    with pytest.raises(ValueError, match=r"blk\.0\.attn_v"):
        Problem((Group("blk.0.attn_v", ()),), 10)


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -1e-12])
def test_a_damage_that_is_none_is_named(damage):
    with pytest.raises(ValueError, match="group 1.*type 0"):
        problem([(1, 0.0)], [(1, damage)], budget=10)


def test_negative_bytes_are_named():
    with pytest.raises(ValueError, match="group 0.*type 1"):
        problem([(1, 0.0), (-1, 1.0)], budget=10)


@pytest.mark.parametrize("use", [((1,),), ((1, 2), (1,)), ((1, -1),)])
def test_a_resource_must_suit_the_groups(use):
    task = problem([(3, 1.0), (7, 0.5)], budget=100)
    with pytest.raises(ValueError, match="time"):
        Problem(task.groups, 100, (Resource("time", 4, use),))
