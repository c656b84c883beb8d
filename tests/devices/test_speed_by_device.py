"""Speeds where tensors live on two devices: each product at its own device's speed, the rest on the GPU."""

from dataclasses import replace

import pytest
from speed_parts import DENSE, Q4, Q8, dense_table, types_of

from quantplan.devices.memory import Placement
from quantplan.devices.speed import by_device
from quantplan.devices.speed.by_device import placed_speeds, shared
from quantplan.devices.speed.measure import SpeedOptions
from quantplan.devices.speed.table import GENERATION
from quantplan.errors import BadUsage
from quantplan.execution import Execution
from quantplan.measurement import Estimate
from quantplan.quant_type import BY_NAME

MOVED = frozenset({"blk.0.ffn_up.weight", "blk.1.ffn_up.weight"})


def faster(table, factor):
    """The table of a device that is so many times as fast."""

    def less(estimate):
        return Estimate(estimate.value / factor, estimate.stderr / factor)

    speeds = tuple(replace(each, generation=less(each.generation), prompt=less(each.prompt)) for each in table.speeds)
    return replace(table, speeds=speeds, backend="gpu")


def test_each_product_at_the_speed_of_its_device():
    cpu = dense_table(fixed=1000.0)
    gpu = replace(faster(cpu, 10), overhead=dense_table(fixed=50.0).overhead)
    both = shared(gpu, cpu, MOVED)
    for kind in (Q4, Q8):
        ns = 1.0 if kind == Q4 else 2.0
        on_cpu, on_gpu = 2 * 64 * 128 * ns, (2 * 64 * 64 + 64 * 1000) * ns / 10
        assert both.token_ns(types_of(kind), GENERATION).value == pytest.approx(on_cpu + on_gpu + 50.0)
        assert both.tensor_ns("blk.0.ffn_up.weight", kind, GENERATION) == pytest.approx(64 * 128 * ns)
        assert both.tensor_ns("blk.0.attn_q.weight", kind, GENERATION) == pytest.approx(64 * 64 * ns / 10)
    assert shared(gpu, cpu, frozenset()).token_ns(types_of(Q4), GENERATION) == gpu.token_ns(types_of(Q4), GENERATION)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """``measured(names on the GPU)`` -> the table, and on how many layers each was measured."""
    from model_parts import model_of

    model, calls = model_of(DENSE), []

    def table(_model, _types, options, *_):
        calls.append(options.execution.gpu_layers)
        return faster(dense_table(), 10) if options.execution.gpu_layers else dense_table()

    monkeypatch.setattr(by_device, "speed_table", table)
    monkeypatch.setattr(by_device, "quantizable", lambda model: model.tensors)
    monkeypatch.setattr(by_device, "devices_of_type", lambda _: gpus)
    gpus = [1]

    def call(gpu, have_gpu=True):
        gpus[:] = [1] if have_gpu else []
        at = Placement(frozenset(gpu), frozenset(DENSE) - frozenset(gpu))
        options = SpeedOptions(Execution(1))
        return placed_speeds(model, (BY_NAME["Q4_0"],), at, options, tmp_path), calls

    return call


def test_only_what_is_needed_is_measured(measured):
    everything = set(DENSE) - {"token_embd.weight"}
    table, calls = measured(everything)
    assert table.backend == "gpu" and calls == [3]  # two blocks and the output
    calls.clear()
    table, calls = measured(everything - MOVED)
    assert calls == [3, 0] and table.products["blk.0.ffn_up.weight"].on_cpu
    calls.clear()
    table, calls = measured((), have_gpu=False)
    assert table.backend == "cpu" and calls == [0]


def test_a_gpu_that_is_not_here(measured):
    with pytest.raises(BadUsage, match="sees no GPU whose speed could be measured"):
        measured(["output.weight"], have_gpu=False)
