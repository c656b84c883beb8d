import pytest

from quantplan.progress import SILENT, Advance, StagePace, absolute, human_seconds


def test_silence_takes_everything():
    with SILENT.stage("outer", 3) as outer, SILENT.stage("inner", unit="B") as inner:
        outer(1)
        inner(0.5)
    SILENT.say("a line")
    SILENT.warn("a line")


def test_absolute_amounts_become_steps():
    steps: list[float] = []
    reached: Advance = absolute(steps.append)
    for amount in (0.25, 0.5, 1.0):
        reached(amount)
    assert steps == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (40, "40 s"), (600, "10 min"), (9000, "2.5 h")])
def test_seconds_in_words(seconds, words):
    assert human_seconds(seconds) == words


def test_the_rest_of_a_stage_goes_on_as_it_went_so_far():
    now = 100.0
    pace = StagePace(10, lambda: now)
    pace.advance(4)  # of an earlier run
    assert pace.left is None
    now += 120
    pace.advance(1)
    assert pace.left == 120 * 5  # steps of two minutes each
    now += 60
    pace.advance(2)
    assert pace.left == pytest.approx(60 * 3) and pace.done == 7
    now += 60
    pace.advance(4)
    assert pace.left == 0
