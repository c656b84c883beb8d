"""The largest context for each pair of cache types, held against llama-fit-params."""

import pytest
from model_shapes import DEEPSEEK_V3, GLM_4_5_AIR, QWEN3_5_35B_A3B, QWEN3_8B

from quantplan.cache_types import F16_CACHE, USUAL_PAIRS, kv_name, parse_kv
from quantplan.devices import fit_params as fit
from quantplan.devices import largest_context as largest
from quantplan.devices.largest_context import Machine, largest_contexts
from quantplan.devices.memory import placement
from quantplan.devices.memory_formulas import ServeSettings
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.gguf.reader import read_model

pytestmark = pytest.mark.llamacpp
GIB = 1 << 30
MIB = 1 << 20
MODELS = {  # with the MiB that are left for cache and buffers, by types of the cache
    "GQA": (QWEN3_8B, {"f16": 2000, "q8_0,q5_1": 1000}),
    "experts, MTP block": (GLM_4_5_AIR, {"q8_0": 2000}),
    "attention, SSM, experts": (QWEN3_5_35B_A3B, {"f16": 902, "q4_0,f16": 850}),
    "MLA": (DEEPSEEK_V3, {"q4_1": 803}),
}


@pytest.fixture
def model(request, tmp_path):
    return read_model(MODELS[request.param][0].write(tmp_path / "model.gguf"))


def contexts(model, vram, pairs, flash_attention=None):
    sizes = {tensor.name: tensor.bytes for tensor in model.tensors}
    return largest_contexts(model, placement(model), sizes, Machine(int(vram), 512, flash_attention), pairs)


def weights(model):
    return placement(model).gpu_bytes({tensor.name: tensor.bytes for tensor in model.tensors})


def asked(model, ctx, kv):
    """What llama-fit-params prints, cut to MiB, with one more for the buffer; next to the weights on the GPU."""
    answer = fit.ask(model, ServeSettings(ctx, kv), None)
    return weights(model) + answer.cache[0] + answer.compute


@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_equal_to_what_llama_fit_params_allows(model, request):
    for kv, room in MODELS[request.node.callspec.params["model"]][1].items():
        vram = weights(model) + room * MIB
        (found,) = contexts(model, vram, [parse_kv(kv)])
        assert 256 < found.ctx < largest.trained_ctx(model) and found.ctx % 256 == 0
        assert found.use.vram <= vram and found.use.needs.ctx == found.ctx
        assert asked(model, found.ctx, found.kv) <= vram < asked(model, found.ctx + 256, found.kv)


@pytest.mark.parametrize("model", ["GQA"], indirect=True)
def test_few_questions_are_enough(model, monkeypatch):
    questions = []

    def counting(*asked):
        questions.append(asked)
        return fit.memory_needs(*asked)

    monkeypatch.setattr(largest, "memory_needs", counting)
    (found,) = contexts(model, 17 * GIB, [F16_CACHE])
    assert 16_384 < found.ctx < 32_768 and len(questions) <= 6
    (whole,) = contexts(model, 24 * GIB, [F16_CACHE])
    assert whole.ctx == 32_768 and len(questions) <= 7


@pytest.mark.parametrize("model", ["MLA"], indirect=True)
def test_what_llama_cpp_refuses_is_said(model):
    found = contexts(model, 1300 * GIB, [parse_kv("q8_0"), parse_kv("q8_0,q5_1")])
    assert found[0].ctx and "one cache for K and V" in found[1].refused and found[1].use is None
    with pytest.raises(BadUsage, match="one cache for K and V"):
        contexts(model, 1300 * GIB, [parse_kv("q8_0,f16")])


@pytest.mark.parametrize("model", ["GQA"], indirect=True)
def test_too_little_vram_says_what_would_do(model):
    with pytest.raises(BudgetImpossible, match=r"no context fits into 10\.74 GB .* a cache of q4_0 and 256 tokens"):
        contexts(model, 10 * GIB, [F16_CACHE, parse_kv("q4_0")])
    without = contexts(model, 17 * GIB, [F16_CACHE, parse_kv("f16,q8_0")], flash_attention=False)
    assert without[0].ctx and "flash attention" in without[1].refused


def test_all_pairs_have_a_name_of_their_own():
    assert len({kv_name(kv) for kv in USUAL_PAIRS}) == 36 and parse_kv(kv_name(USUAL_PAIRS[7])) == USUAL_PAIRS[7]
