"""Several GPUs: who holds what, held against llama.cpp with RPC servers as GPUs, and plans for them."""

from contextlib import ExitStack

import pytest
from model_shapes import DEEPSEEK_V3, GLM_4_5_AIR, QWEN3_1_7B, QWEN3_5_2B, dense
from rpc_server import rpc_server

from quantplan.cache_types import F16_CACHE
from quantplan.devices import fit_params as fit
from quantplan.devices.limits import Devices, memory_use
from quantplan.devices.memory import placement
from quantplan.devices.memory_formulas import ServeSettings, kv_cache_by_block
from quantplan.devices.several_gpus import splits
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.gguf.reader import read_model
from quantplan.planning.request import PlanRequest, quantizable
from quantplan.planning.solving import check, plan_for
from quantplan.quant_type import parse_types
from quantplan.sensitivity.rows import prior_table

pytestmark = pytest.mark.llamacpp
MIB, GIB = 1 << 20, 1 << 30
CTX = 8192
TYPES = parse_types("Q2_K,Q4_K,Q6_K,Q8_0")


@pytest.fixture(scope="module")
def gpus():
    """Addresses of two servers."""
    with ExitStack() as stack:
        yield ",".join(stack.enter_context(rpc_server()).address for _ in range(2))


@pytest.mark.parametrize(
    ("shape", "counts"),
    [(QWEN3_1_7B, (10, 19)), (GLM_4_5_AIR, (30, 18)), (DEEPSEEK_V3, (3, 59)), (QWEN3_5_2B, (24, 1))],
    ids=["tied", "MTP block", "MLA", "hybrid"],
)
def test_each_gpu_holds_what_llama_cpp_gives_it(shape, counts, gpus, tmp_path, monkeypatch):
    """Weights and cache to the MiB, buffers no more than is kept for them."""
    model = read_model(shape.write(tmp_path / "model.gguf"))
    needs = fit.memory_needs(model, CTX)
    (split,) = (each for each in splits(model, placement(model), needs, (GIB, GIB)) if each.counts == counts)
    monkeypatch.setenv("LLAMA_ARG_RPC", gpus)
    monkeypatch.setenv("LLAMA_ARG_TENSOR_SPLIT", ",".join(map(str, counts)))
    answer = fit.ask(model, ServeSettings(CTX, F16_CACHE), None)
    assert len(answer.gpus) == 2
    cache = kv_cache_by_block(model, ServeSettings(CTX, F16_CACHE))
    first = 0
    for device, names, need, count in zip(answer.gpus, split.weights, split.needs, counts, strict=True):
        own = sum(size for block, size in cache.items() if first <= block < first + count)
        assert device.weights // MIB == sum(model.by_name[name].bytes for name in names) // MIB
        assert device.cache // MIB == own // MIB and device.cache + device.compute <= need
        first += count


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return read_model(
        dense("qwen3", 6, 512, 1024, 4, 2, 4096, head_norms=True).write(tmp_path_factory.mktemp("m") / "m.gguf")
    )


@pytest.fixture(scope="module")
def table(model):
    return prior_table(model, quantizable(model), TYPES, None)


def asked(model, *gpus):
    return PlanRequest(model, None, TYPES, None, devices=Devices(sum(gpus), None, 1024, gpus=tuple(gpus)))


def overhead(model):
    """What a GPU takes besides weights and cache."""
    needs = fit.memory_needs(model, 1024)
    split = next(splits(model, placement(model), needs, (GIB, GIB)))
    return (sum(split.needs) - needs.kv_cache.bytes) // 2


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (0.4, 0.3, 0.3)])
def test_a_plan_for_several_gpus_keeps_each_limit(model, table, shares):
    whole = memory_use({}, model, Devices(None, None, 1024))
    room = int(0.45 * whole.gpu_weights) + whole.needs.kv_cache.bytes
    gpus = [overhead(model) + int(share * room) for share in shares]
    plan, everything = plan_for(asked(model, *gpus), table)
    assert not everything and len(plan.tensor_split) == len(gpus) and sum(plan.tensor_split) == model.blocks + 1
    splitting = splits(model, placement(model), whole.needs, gpus)
    (split,) = (each for each in splitting if each.counts == plan.tensor_split)
    sizes = {tensor.name: tensor.bytes for tensor in plan.tensors}
    for names, need, vram in zip(split.weights, split.needs, gpus, strict=True):
        assert sum(sizes[name] for name in names) + need <= vram
    alone = Devices(room + overhead(model), None, 1024)
    single, _ = plan_for(PlanRequest(model, None, TYPES, None, devices=alone), table)
    assert single.outcome.objective <= plan.outcome.objective and plan.outcome.status == "optimal"


def test_what_several_gpus_cannot_hold(model, table):
    with pytest.raises(BudgetImpossible, match="What would fit: give --vram"):
        check(asked(model, MIB, MIB))
    with pytest.raises(BudgetImpossible):
        plan_for(asked(model, overhead(model) // 2, GIB), table)
    with pytest.raises(BadUsage, match="6 blocks: too few for 7 GPUs"):
        plan_for(asked(model, *[GIB] * 7), table)
