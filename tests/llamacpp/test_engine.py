"""The loaded model: windows, logits, and the swap of one tensor."""

import ctypes

import numpy as np
import pytest
from tiny_models import tiny_moe, tiny_tied

from quantplan.errors import BadFile, TextTooShort
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_bytes, tensor_rows
from quantplan.llamacpp import ggml
from quantplan.llamacpp.engine import Engine, chunks_per_batch
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.nodes import node_rows
from quantplan.llamacpp.quantize import Recipe, quantize
from quantplan.llamacpp.token_scores import base_rows, divergence
from quantplan.quant_type import BY_NAME

OPTIONS = EngineOptions(n_ctx=64, execution=Execution(1), swappable=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_tied(tmp_path_factory.mktemp("engine") / "tied.gguf", feed_forward=256)


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:2000]


@pytest.fixture(scope="module")
def bases(source):
    """The model as llama-quantize stores it in one type."""

    def of(kind):
        if kind == "F16":
            return source
        path = source.with_name(f"{kind}.gguf")
        if not path.exists():
            quantize(source, Recipe(kind, pure=True), path, threads=1)
        return path

    return of


def test_chunks_are_whole_and_in_order(source, text):
    with Engine(source, OPTIONS) as engine:
        tokens, chunks = engine.tokenize(text), engine.chunks(text)
        assert chunks.shape == (len(tokens) // 64, 64)
        assert np.array_equal(chunks.ravel(), tokens[: chunks.size])
        assert len(engine.chunks(text, limit=2)) == 2
        back = b"".join(piece(engine, token) for token in tokens[:40]).decode("utf-8", "ignore")
        assert back.strip() and text.startswith(back.strip()[:20])


def piece(engine, token):
    import llama_cpp  # loads the library: only where a test needs it

    buffer = ctypes.create_string_buffer(64)
    size = llama_cpp.llama_token_to_piece(engine.vocab, int(token), buffer, 64, 0, True)
    return buffer.raw[:size]


@pytest.mark.llamacpp
def test_perplexity_is_that_of_llama_perplexity(source, text, tmp_path):
    """Windows, positions that are scored, tokens before them: any difference moves this number."""
    import re

    from quantplan.llamacpp.token_scores import base_rows
    from quantplan.llamacpp.tools import run

    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    words = ["llama-perplexity", "-m", str(source), "-f", str(tmp_path / "text.txt"), "-c", "64", "-t", "1"]
    # the tool's last lines are cut off now and then
    finals = (re.search(r"Final estimate: PPL = ([\d.]+)", run(words).log) for _ in range(8))
    theirs = float(next(filter(None, finals)).group(1))
    with Engine(source, OPTIONS) as engine:
        chunks, nll = engine.chunks(text), []
        for start, logits in zip(range(0, len(chunks), engine.chunks_per_batch), engine.logits(chunks), strict=True):
            targets = chunks[start : start + len(logits), engine.first_scored + 1 :].ravel()
            rows = logits.reshape(-1, logits.shape[-1])
            nll.append(base_rows(rows).log_sum - rows[np.arange(len(rows)), targets])
    ours = float(np.exp(np.concatenate(nll).mean()))
    assert ours == pytest.approx(theirs, rel=2e-5)


def test_vocabulary_only_cuts_the_same_chunks(source, text):
    with Engine(source, OPTIONS) as engine, Engine(source, EngineOptions(64, vocabulary_only=True)) as light:
        assert np.array_equal(engine.chunks(text), light.chunks(text))


def test_chunks_per_batch():
    assert [chunks_per_batch(n) for n in (128, 512, 2048, 4096)] == [16, 4, 1, 1]


def test_text_too_short(source):
    with (
        Engine(source, OPTIONS) as engine,
        pytest.raises(TextTooShort, match=r"at least 128 are needed for chunks of 64"),
    ):
        engine.chunks("a few words")


def test_no_model(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    for name in ("no.gguf", "nothing.gguf"):
        with pytest.raises(BadFile, match=rf"{name}: llama.cpp cannot load this model"):
            Engine(tmp_path / name, OPTIONS)


def test_logits_do_not_depend_on_the_chunks_beside(source, text):
    """The second half of each window is scored, all but its last position."""
    with Engine(source, OPTIONS) as engine:
        chunks = engine.chunks(text)
        together = next(engine.logits(chunks)).copy()
        alone = next(engine.logits(chunks[3:4])).copy()
    assert together.shape == (len(chunks), 31, engine.vocabulary)
    np.testing.assert_allclose(together[3], alone[0], atol=2e-3)


def kld(engine, base, chunks):
    return divergence(base, next(engine.logits(chunks)))


@pytest.mark.llamacpp
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K", "Q4_0"])
def test_a_swap_shows_and_restoring_is_exact(bases, text, kind):
    path = bases(kind)
    model = read_model(path)
    names = {"blk.0.attn_v.weight", "blk.1.ffn_down.weight", "token_embd.weight"}
    with Engine(path, OPTIONS) as engine:
        assert engine.find_weights(names) == names
        chunks = engine.chunks(text)[:4]
        base = base_rows(next(engine.logits(chunks)))
        assert (kld(engine, base, chunks) == 0).all()
        for name in sorted(names):
            tensor = model.by_name[name]
            assert engine.stored_type(name) is tensor.type
            coarse = ggml.dequantize(
                ggml.quantize(tensor_rows(model, tensor), BY_NAME["Q2_K"]), BY_NAME["Q2_K"], tensor.columns
            )
            engine.put(name, ggml.quantize(coarse, tensor.type))
            assert kld(engine, base, chunks).mean() > 1e-5
            engine.put(name, tensor_bytes(model, tensor))
            assert (kld(engine, base, chunks) == 0).all()


def test_a_swap_is_what_the_model_with_those_weights_gives(source, text, tmp_path):
    """The logits after a swap are those of a file that holds the rounded weights."""
    other = tiny_tied(tmp_path / "other.gguf", seed=5, feed_forward=256)
    name = "blk.1.attn_output.weight"
    theirs, data = read_model(other), bytearray(source.read_bytes())
    here, there = read_model(source).by_name[name], theirs.by_name[name]
    data[here.offset : here.offset + here.bytes] = tensor_bytes(theirs, there).tobytes()
    (tmp_path / "joined.gguf").write_bytes(data)
    with Engine(source, OPTIONS) as engine, Engine(tmp_path / "joined.gguf", OPTIONS) as expected:
        chunks = engine.chunks(text)[:4]
        engine.find_weights({name})
        engine.put(name, tensor_bytes(theirs, there))
        assert np.array_equal(next(engine.logits(chunks)), next(expected.logits(chunks)))


def test_experts_are_found_and_norms_too(tmp_path, text):
    path = tiny_moe(tmp_path / "moe.gguf")
    wanted = {
        "blk.0.ffn_up_exps.weight",
        "blk.2.ffn_gate_inp.weight",
        "output.weight",
        "token_embd.weight",
        "blk.0.nothing",
    }
    with Engine(path, OPTIONS) as engine:
        assert engine.find_weights(wanted) == wanted - {"blk.0.nothing"}


def test_no_swap_in_mapped_memory(source):
    with Engine(source, EngineOptions(64, Execution(1))) as engine, pytest.raises(ValueError, match="swappable=True"):
        engine.put("token_embd.weight", np.zeros(4, np.uint8))


def test_what_a_watcher_raises_comes_through(source, text):
    class Odd(Exception):
        pass

    def watch(node, ask):
        raise Odd("from inside a decode")

    with (
        Engine(source, EngineOptions(64, Execution(1)), watch=watch) as engine,
        pytest.raises(Odd, match="inside a decode"),
    ):
        list(engine.logits(engine.chunks(text)[:2]))


def test_a_watcher_sees_inputs_and_outputs(source, text):
    """node = weights x inputs, to the rounding of activations to half precision."""
    seen = {}

    def watch(node, ask):
        if not node.src[0] or node.src[0].contents.name != b"blk.0.attn_v.weight":
            return False
        if not ask:
            seen["in"], seen["out"] = node_rows(node.src[1].contents), node_rows(node)
        return True

    model = read_model(source)
    weights = tensor_rows(model, model.by_name["blk.0.attn_v.weight"])
    with Engine(source, EngineOptions(64, Execution(1)), watch=watch) as engine:
        list(engine.logits(engine.chunks(text)[:2]))
    assert seen["in"].shape == (128, 256)
    np.testing.assert_allclose(seen["in"] @ weights.T, seen["out"], atol=2e-2)


def test_close_twice(source):
    engine = Engine(source, OPTIONS)
    engine.close()
    engine.close()
