import pytest
from small_problems import problem

from quantplan.solver.explain import curve, standings, step_down, step_up, verdict

TASK = problem([(2, 9.0), (4, 5.0), (6, 2.0), (8, 2.5), (10, 1.0)], [(1, 1.0)], budget=99)


def test_curve_against_the_chosen():
    rungs = curve(TASK.groups[0], 1)
    assert [(each.label, each.rate) for each in rungs] == [
        ("type 0", 2.0),
        ("type 1", None),
        ("type 2", 1.5),
        ("type 3", 0.625),
        ("type 4", pytest.approx(4 / 6)),
    ]
    assert [each.chosen for each in rungs] == [False, True, False, False, False]
    assert step_up(rungs).label == "type 2" and step_down(rungs).label == "type 0"


def test_ends_of_the_curve():
    assert step_up(curve(TASK.groups[0], 4)) is None
    assert step_down(curve(TASK.groups[0], 0)) is None
    assert verdict(curve(TASK.groups[1], 0), 1.0) == "type 0: no allowed type is better; no allowed type is smaller."


def test_a_worse_type_is_no_step_up():
    assert step_up(curve(problem([(2, 1.0), (4, 1.0), (6, 3.0)], budget=9).groups[0], 0)) is None


def test_equal_sizes_have_no_rate():
    assert [each.rate for each in curve(problem([(2, 1.0), (2, 3.0)], budget=9).groups[0], 0)] == [None, None]


@pytest.mark.parametrize(
    "price, free, words",
    [
        (1.6, None, "would save 3 nats for 2 bytes = 1.5e+06 per MB, not above the price of 1.6e+06 per MB"),
        (1.2, 1, "above the price of 1.2e+06 per MB, but only 1 bytes are left and no exchange for them pays"),
        (1.2, 5, "but another condition is in the way"),
        (None, None, "type 2 would save 3 nats for 2 bytes = 1.5e+06 per MB; type 0 would cost 4 nats"),
        (2.1, None, "= 2e+06 per MB, below it, but the whole plan is better with these bytes here"),
        (1.6, None, "type 0 would cost 4 nats for 2 bytes = 2e+06 per MB, not below it"),
    ],
)
def test_verdict(price, free, words):
    assert words in verdict(curve(TASK.groups[0], 1), price, free)


def test_standings():
    first, second = standings(TASK, (1, 0), 1.5)
    assert first.surplus == pytest.approx(9 - 5 - 1.5 * 2) and first.up.label == "type 2"
    assert (second.surplus, second.up) == (0.0, None)
