"""Commands with damaged files and odd words: an exit code with a sentence, no traceback, nothing half-written."""

from collections import Counter
from random import Random

import pytest
from fuzz_commands import damaged_command, load_models, make_place, try_command
from fuzz_inputs import Fault

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
    ended = load_models(place, [f"loading {number}" for number in range(LOADS_TRIED)])
    assert [fault for fault in ended if isinstance(fault, Fault)] == []
    assert len(ended) == LOADS_TRIED and {0, 3} <= {*ended}
