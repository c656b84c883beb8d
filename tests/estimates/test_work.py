"""What work will take: counted from a pace that is given, and a pace that is a pace."""

from dataclasses import replace

import numpy as np
import pytest
from model_parts import model_of

from quantplan.estimates.pace import Pace, forward_pace
from quantplan.estimates.work import WorkEstimate, joined, of_measuring, of_probe, why_not_timed
from quantplan.evaluate.same_tokens import TokenizedText
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.perplexity import base_file_bytes
from quantplan.planning.request import quantizable
from quantplan.sensitivity.tensor_swap import ProbeOptions

MODEL = model_of({"token_embd.weight": (256, 1000), "output.weight": (256, 1000)})
TEXT = TokenizedText(np.zeros((8, 512), np.int32), 1000)
PACE = Pace(2.0, 0.01)


def test_a_measurement_runs_every_model_over_every_chunk():
    work = of_measuring([MODEL, MODEL, MODEL], TEXT, 1 << 30, PACE)
    assert work.seconds == pytest.approx(3 * 2 + 3 * 8 * 512 * 0.01)
    assert work.memory_bytes == MODEL.file_bytes + 8 * 256 * 1000 * 4 and work.disk_bytes == 0
    tool = of_measuring([MODEL], TEXT, 1 << 30, PACE, by_tool=True)
    assert tool.disk_bytes == base_file_bytes(1000, 512, 8)
    assert str(replace(tool, memory_bytes=10**9)) == "about 43 s, 1.00 GB of memory, 4.11 MB of disk"


def test_little_memory_loads_models_again():
    at_once = of_measuring([MODEL, MODEL], TEXT, 1 << 30, PACE)
    in_groups = of_measuring([MODEL, MODEL], TEXT, 1, PACE)
    assert in_groups.seconds == pytest.approx(at_once.seconds + 2 * 2) and in_groups.memory_bytes < at_once.memory_bytes


def test_a_probe_swaps_every_tensor():
    few, many = (of_probe(MODEL, count, ProbeOptions(512, 4), PACE).seconds for count in (10, 110))
    assert many - few == pytest.approx(100 * 1.25 * 4 * 512 * 0.01)


def test_what_cannot_be_timed_is_said():
    header = replace(MODEL, header_only=True)
    assert why_not_timed(header, Execution()) == "the file has no weights" and not why_not_timed(MODEL, Execution())
    unknown = of_probe(header, 10, ProbeOptions(512, 4), None, why_not_timed(MODEL, Execution(jobs=2)))
    assert unknown.seconds is None and str(unknown).startswith("unknown time (it runs in other processes), ")
    assert str(WorkEstimate(0.2, 2000)) == "about 1 s, 2.00 kB of memory"


def test_stages_join():
    first, second = WorkEstimate(10, 100, 1, name="a"), WorkEstimate(5, 300, 2, name="b")
    assert joined([first, second.times(2)]) == WorkEstimate(20, 300, 3)
    unknown = WorkEstimate(None, 1, unknown="why")
    assert joined([first, unknown]) == WorkEstimate(None, 100, 1, "why") and unknown.times(3) == unknown
    assert joined([]) == WorkEstimate(0, 0)


@pytest.mark.llamacpp
def test_a_pace_of_this_machine(reference_model):
    model = read_model(reference_model)
    pace = forward_pace(model, 64, Execution(1), with_inputs=True)
    assert pace.per_token > 0 and pace.load >= 0
    names = {name for each in pace.inputs for name in each.tensors}
    assert {tensor.name for tensor in quantizable(model) if tensor.block is not None} <= names
    assert forward_pace(model, 64, Execution(1)).inputs == ()
