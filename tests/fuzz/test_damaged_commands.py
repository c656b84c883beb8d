"""Commands with damaged files and odd words: an exit code with a sentence, no traceback, nothing half-written."""

import os
from collections import Counter
from random import Random

import pytest
from fuzz_commands import LOADING, Place, damaged_command, make_place, try_command
from fuzz_inputs import Fault

from quantplan.errors import ToolFailed
from quantplan.llamacpp import isolated

COMMANDS_TRIED, LOADS_TRIED = 150, 40


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("QUANTPLAN_CACHE", "XDG_STATE_HOME", "COLUMNS"):
        monkeypatch.setenv(name, "")
    return make_place(tmp_path)


@pytest.mark.llamacpp
def test_commands_end_with_a_sentence(place):
    codes = Counter()
    for number in range(COMMANDS_TRIED):
        words, contents = damaged_command(Random(f"command {number}"), place)
        codes[try_command(words, contents, place)] += 1
    assert codes.total() == COMMANDS_TRIED and codes[0] < COMMANDS_TRIED / 2 and {2, 3, 5} <= codes.keys()


@pytest.mark.llamacpp
def test_models_that_llama_cpp_gets_do_not_end_without_a_sentence(place):
    """In child processes, many in each: an assertion of ggml ends one of them with its own exit code."""
    codes = loaded(place, LOADS_TRIED)
    assert codes.total() == LOADS_TRIED and codes[0] and codes[3]


def loaded(place, count):
    """Exit codes of commands that load a damaged model."""
    codes, number = Counter(), 0
    while number < count:
        told = []
        try:
            isolated.call(load_all, place, number, count, reports={"tell": told.append})
        except isolated.Died as died:
            if died.code != ToolFailed.exit_code:
                words, _ = damaged_command(Random(f"loading {number + len(told)}"), place, LOADING)
                raise Fault(f"{words}: the process ended with {died.code}: {died.said}") from died
            told.append(ToolFailed.exit_code)
        codes.update(told)
        number += len(told)
    return codes


def load_all(place: Place, first: int, count: int, tell):
    os.chdir(place.folder)
    for number in range(first, count):
        words, contents = damaged_command(Random(f"loading {number}"), place, LOADING)
        tell(try_command(words, contents, place))
