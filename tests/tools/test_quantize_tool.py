"""What llama-quantize itself says: types, mixes, what it quantizes; checked against published sizes."""

from functools import cache

import pytest
from model_shapes import QWEN3_8B, QWQ_32B
from tiny_models import tiny_moe, tiny_tied

from quantplan.build.build import stock_plan
from quantplan.errors import BadUsage, NothingSelected, ToolFailed
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.llamacpp.quantize import Rule, dry_run, ftypes, known_ftype, quantizable, stock_quant
from quantplan.quant_type import BY_NAME

pytestmark = pytest.mark.llamacpp


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def headers(folder):
    """name -> Model, written when asked for."""
    shapes = {"qwq": QWQ_32B, "qwen3": QWEN3_8B}
    return cache(lambda name: read_model(shapes[name].write(folder / f"{name}.gguf")))


@pytest.mark.parametrize(
    ("ftype", "size"),
    [
        ("IQ3_M", 3.890),
        ("IQ4_NL", 4.813),
        ("Q3_K_M", 4.118),
        ("Q4_K_M", 5.022),
        ("Q5_K_M", 5.845),
        ("Q6_K", 6.720),
        ("Q8_0", 8.704),
    ],
)
def test_published_sizes_of_qwen3_8b(headers, ftype, size):
    assert stock_plan(headers("qwen3"), ftype).tensor_bytes == pytest.approx(size * 1e9, abs=1e6)


def test_published_size_of_qwq_32b(headers):
    assert stock_plan(headers("qwq"), "IQ4_XS").tensor_bytes == pytest.approx(17.865e9, abs=1e6)


def test_mixes_depend_on_the_imatrix(reference_model, reference_imatrix):
    model = read_model(reference_model)
    without, with_it = stock_quant(model, "iq4_xs"), stock_quant(model, "IQ4_XS", reference_imatrix)
    assert without["blk.0.ffn_down.weight"].name == "Q5_K"
    assert with_it["blk.0.ffn_down.weight"].name == "IQ4_XS"


def test_quantizable_tensors(reference_model, folder):
    model = read_model(reference_model)
    assert {each.name for each in quantizable(model)} == {
        each.name for each in model.tensors if each.type.name == "F16"
    }
    moe = read_model(tiny_moe(folder / "moe.gguf"))
    names = {each.name for each in quantizable(moe)}
    assert "blk.0.ffn_down_exps.weight" in names
    assert not any("ffn_gate_inp" in name or "norm" in name for name in names)


def test_what_can_only_be_f16_is_not_quantizable(folder):
    model = read_model(tiny_tied(folder / "odd.gguf", feed_forward=300))
    assert "blk.0.ffn_down.weight" not in {each.name for each in quantizable(model)}


def test_quantized_sources_and_sources_in_one_of_the_two_types(folder):
    tensors = [
        ("blk.0.attn_v.weight", (256, 64), BY_NAME["Q8_0"]),
        ("blk.0.ffn_up.weight", (256, 64), BY_NAME["Q4_0"]),
    ]
    tensors += [("output_norm.weight", (256,), BY_NAME["F32"])]
    metadata = {
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 256,
        "llama.vocab_size": 64,
        "llama.attention.head_count": 4,
        "llama.feed_forward_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
    }
    model = read_model(write_header_only(folder / "q.gguf", "llama", metadata, tensors))
    assert [each.name for each in quantizable(model)] == ["blk.0.attn_v.weight", "blk.0.ffn_up.weight"]


def test_rules_of_a_dry_run(reference_model):
    rules = (Rule(r"^blk\.3\.attn_v\.weight$", BY_NAME["Q8_0"]), Rule("attn_v", BY_NAME["Q5_0"]))
    types = dry_run(reference_model, "Q4_K_S", rules=rules, token_embedding_type=BY_NAME["Q3_K"])
    assert types["blk.3.attn_v.weight"].name == "Q8_0"  # the first match wins in this build
    assert types["blk.4.attn_v.weight"].name == "Q5_0"
    assert types["token_embd.weight"].name == "Q3_K"


def test_unknown_ftypes_and_broken_models(reference_model, tmp_path):
    assert {"Q4_K_M", "IQ2_XXS", "F16"} <= set(ftypes())
    assert "COPY" not in ftypes()
    assert known_ftype(" q4_k_m") == known_ftype("15") == "Q4_K_M"
    assert (known_ftype("12"), known_ftype("30")) == ("Q3_K_M", "IQ4_XS")
    with pytest.raises(NothingSelected, match="Q4_K_M"):
        stock_quant(read_model(reference_model), "Q4_KM")
    broken = tmp_path / "x.gguf"
    broken.write_bytes(reference_model.read_bytes()[:100_000])
    with pytest.raises(ToolFailed, match="exit code 1"):
        dry_run(broken, "Q4_K_M")


def test_a_mix_that_needs_an_imatrix_says_so(reference_model, reference_imatrix):
    model = read_model(reference_model)
    with pytest.raises(BadUsage, match=r"blk\.0\.attn_q\.weight \(IQ2_XS\).*--imatrix"):
        stock_plan(model, "IQ2_XS")
    assert stock_plan(model, "IQ2_XS", read_imatrix(reference_imatrix)).imatrix is not None
