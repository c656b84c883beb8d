from quantplan.progress import SILENT, Advance, absolute


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
