"""A function in a process of its own."""

import os
import signal

import pytest

from quantplan.errors import BudgetImpossible
from quantplan.llamacpp import libraries
from quantplan.llamacpp.isolated import Died, call


def reporting(number, tell):
    for done in range(number):
        tell("stage", done)
    return os.getpid(), number


def raising():
    raise BudgetImpossible("too small", smallest=12)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def aborted():
    libraries.base().ggml_abort(b"here.c", 7, b"nothing left to do")


def test_what_it_returns_and_reports():
    told = []
    pid, number = call(reporting, 3, reports={"tell": lambda *each: told.append(each)})
    assert (number, told) == (3, [("stage", 0), ("stage", 1), ("stage", 2)])
    assert pid != os.getpid()


def test_what_it_raises():
    with pytest.raises(BudgetImpossible, match="too small") as caught:
        call(raising)
    assert caught.value.smallest == 12 and "raising" in str(caught.value.__cause__)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_its_death_is_told():
    with pytest.raises(Died) as caught:
        call(killed)
    assert (caught.value.code, caught.value.said) == (-signal.SIGKILL, "")


def test_last_words_of_ggml(capfd):
    with pytest.raises(Died) as caught:
        call(aborted)
    assert caught.value.said == "here.c:7: nothing left to do"
    assert capfd.readouterr().err == ""


def test_what_a_report_raises_ends_it():
    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    with pytest.raises(Enough):
        call(reporting, 1, reports={"tell": stop})
