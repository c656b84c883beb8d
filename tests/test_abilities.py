"""What a model must be able to do is asked before it is run, by whatever engine or tool."""

from dataclasses import replace

import numpy as np
import pytest
from model_parts import model_of
from tiny_encoders import POSITIONS, tiny_bert, tiny_gpt2
from tiny_models import arrays_gguf

from quantplan.abilities import (
    check_language_model,
    check_loadable,
    check_positions,
    check_predicts,
    check_speed_tests,
    context_note,
)
from quantplan.api import plan_request
from quantplan.build.preflight import check_source
from quantplan.errors import BadFile, BadUsage
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.measure_with_tool import measure_with_tool
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import imatrix, quantize
from quantplan.llamacpp.engine import Engine, all_equal
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.quant_type import parse_types
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.tensor_swap import ProbeOptions

TEXT = "the quick brown fox jumps over the lazy dog and on it goes. " * 60
BLOCK = {"blk.0.attn_q.weight": (256, 256)}


def header(architecture="qwen3", shapes=BLOCK, **metadata):
    return replace(model_of(shapes), architecture=architecture, metadata=metadata)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (header("bert"), "an encoder"),
        (header("gemma-embedding"), "an encoder"),
        (header("qwen3", **{"qwen3.attention.causal": False}), "an encoder"),
        (
            header("t5", {"enc.blk.0.attn_q.weight": (256, 256), "dec.blk.0.attn_q.weight": (256, 256)}),
            "encoder-decoder",
        ),
        (header("llada"), "a diffusion model"),
        (header("wavtokenizer-dec"), "no next-token logits"),
        (header("clip"), "not a language model"),
        (header("gemma3", **{"general.type": "mmproj"}), "not a language model"),
        (header("llama", **{"tokenizer.ggml.model": "none"}), "no vocabulary"),
    ],
)
def test_models_without_predictions_are_refused_with_a_way_out(model, reason):
    with pytest.raises(BadUsage, match=f"{reason}.*--sensitivity prior"):
        check_predicts(model)


def test_a_decoder_is_not_refused():
    check_predicts(header("qwen3", **{"qwen3.attention.causal": True, "tokenizer.ggml.model": "gpt2"}))


def test_a_vision_part_is_not_a_language_model():
    for projector in (header("clip"), header("gemma3", **{"general.type": "mmproj"})):
        with pytest.raises(BadUsage, match="mmproj.*not a language model"):
            check_language_model(projector)
        check_loadable(projector)  # planned and built as it is
    blob = header("gemma3", BLOCK | {"v.blk.0.attn_q.weight": (256, 256), "mm.input_projection.weight": (256, 256)})
    assert blob.foreign_parts == ("v.blk.0.attn_q.weight", "mm.input_projection.weight")
    assert [blob.runs(tensor) for tensor in blob.tensors] == [True, False, False]
    for check in (check_loadable, check_language_model):
        with pytest.raises(BadFile, match=r"2 tensors \(v.blk.0.attn_q.weight ...\) are of a vision or audio part"):
            check(blob)
    check_language_model(header())


@pytest.mark.llamacpp
def test_a_file_with_a_vision_part_is_neither_planned_nor_built(tmp_path):
    random = np.random.default_rng(0)
    shapes = {"token_embd": 512, "blk.0.attn_q": 256, "v.blk.0.attn_q": 256}
    arrays = {f"{name}.weight": random.standard_normal((rows, 256)).astype(np.float16) for name, rows in shapes.items()}
    model = read_model(arrays_gguf(tmp_path / "blob.gguf", "llama", arrays, {"block_count": 1}))
    with pytest.raises(BadFile, match="ollama"):
        plan_request(model, "Q4_K_M")
    with pytest.raises(BadFile, match="ollama"):
        check_source(model)


def test_learned_positions_are_a_limit_and_a_trained_context_is_none():
    learned = header("gpt2", BLOCK | {"position_embd.weight": (256, 128)}, **{"gpt2.context_length": 128})
    check_positions(learned, 128)
    with pytest.raises(BadUsage, match="--ctx 129 is above its 128 positions"):
        check_positions(learned, 129)
    with pytest.raises(BadUsage, match="a speed test takes 640 tokens, and the model has 128 positions"):
        check_speed_tests(learned, 640)
    rotary = header("qwen3", **{"qwen3.context_length": 1024})
    check_positions(rotary, 2048)
    assert context_note(rotary, 1024) is None
    assert "above the 1024 tokens" in context_note(rotary, 2048)
    assert context_note(header(), 2048) is None  # nothing is known


def test_logits_that_are_all_equal_are_found_by_chunk():
    logits = np.random.default_rng(0).standard_normal((4, 3, 50), np.float32)
    logits[1] = 0
    logits[2, 0] = 7  # one position may be flat
    logits[3, :, 0] = logits[3, :, -1]
    assert all_equal(logits).tolist() == [False, True, False, False]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2") / "gpt2.gguf")


@pytest.mark.llamacpp
@pytest.mark.parametrize("engine", [measure, measure_with_tool])
def test_neither_engine_measures_an_encoder(bert, engine):
    with pytest.raises(BadUsage, match="encoder"):
        engine(bert, [bert], TEXT, MeasureOptions(32, 2, Execution(1)))


@pytest.mark.llamacpp
@pytest.mark.parametrize("engine", [measure, measure_with_tool])
def test_neither_engine_goes_past_the_positions(gpt2, engine):
    with pytest.raises(BadUsage, match=f"above its {POSITIONS} positions"):
        engine(gpt2, [gpt2], TEXT, MeasureOptions(2 * POSITIONS, 2, Execution(1)))
    (within,) = measure(gpt2, [gpt2], TEXT, MeasureOptions(POSITIONS, 2, Execution(1)))
    assert within.kld.value == 0 and within.notes == ()


@pytest.mark.llamacpp
def test_an_encoder_is_refused_before_the_round_trip_and_planned_without_a_text(bert, tmp_path):
    model = read_model(bert)
    tensors, options = quantize.quantizable(model), SensitivityOptions(parse_types("k,Q8_0"), ProbeOptions(32))
    with pytest.raises(BadUsage, match="encoder"):
        price(model, tensors, None, TEXT, options, tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(price(model, tensors, None, None, options, tmp_path).table.rows) == len(tensors)


@pytest.mark.llamacpp
def test_imatrix_is_not_begun(bert, gpt2, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    for path, reason in ((bert, "encoder"), (gpt2, "positions")):
        with pytest.raises(BadUsage, match=reason):
            imatrix.make(read_model(path), text, tmp_path / "out.gguf", imatrix.ImatrixOptions(128, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.llamacpp
def test_an_encoder_that_the_header_hides_is_found_by_its_missing_memory(bert, monkeypatch):
    monkeypatch.setattr("quantplan.abilities._ENCODERS", frozenset())
    hidden = replace(read_model(bert), metadata={})
    with (
        Engine(hidden, EngineOptions(32, Execution(1))) as engine,
        pytest.raises(BadUsage, match="runs bert as an encoder"),
    ):
        next(engine.logits(np.zeros((1, 32), np.int32)))
