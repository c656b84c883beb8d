"""Measuring in this process, on the bundled model."""

import shutil
from dataclasses import replace

import numpy as np
import psutil
import pytest
import tiny_models
from tiny_models import tiny_tied

from quantplan.errors import BadFile, ModelMismatch, TextTooShort
from quantplan.evaluate import base_logits as module
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.same_tokens import TokenizedText, check_same_tokens, check_vocabulary, tokenize
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine, chunks_per_batch
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import base_rows, divergence

OPTIONS = MeasureOptions(n_ctx=128, chunks=9, execution=Execution(1))


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:60_000]


@pytest.fixture(scope="module")
def rounded(reference_model, tmp_path_factory):
    """The bundled model with the last bits of one tensor cleared: a file that loses a little."""
    path = tmp_path_factory.mktemp("rounded") / "rounded.gguf"
    shutil.copyfile(reference_model, path)
    tensor = read_model(path).by_name["blk.3.ffn_down.weight"]
    with path.open("r+b") as file:
        data = np.memmap(file, np.uint16, "r+", tensor.offset, (tensor.elements,))
        data &= 0xFFC0
        data.flush()
    return path


def test_a_model_loses_nothing_against_itself(reference_model, text):
    shares = []
    first, second = measure(reference_model, [reference_model, reference_model], text, OPTIONS, shares.append)
    assert first == second
    assert (first.kld.value, first.kld.stderr, first.kld_maximum) == (0, 0, 0)
    assert set(first.per_chunk_kld) == {0.0} and len(first.per_chunk_nll) == 9
    assert (first.ln_ppl_ratio.value, first.rms_dp.value, first.same_top.value) == (0, 0, 100)
    assert first.ppl == first.base_ppl
    assert first.bpw == pytest.approx(16.01, abs=0.01)
    assert sum(shares) == pytest.approx(1)


def test_the_kld_is_that_of_the_logits(reference_model, rounded, text):
    (found,) = measure(reference_model, [rounded], text, OPTIONS)
    rows = []
    for path in (reference_model, rounded):
        with Engine(path, EngineOptions(128, Execution(1))) as engine:
            batches = [batch.copy() for batch in engine.logits(engine.chunks(text, 9))]
            rows.append(np.concatenate(batches))
    expected = divergence(base_rows(rows[0]), rows[1]).reshape(9, -1)
    assert found.kld.value == pytest.approx(expected.mean(), rel=1e-12) and found.kld.value > 1e-7
    assert found.per_chunk_kld == pytest.approx(expected.mean(axis=1), rel=1e-12)


def test_little_memory_gives_the_same_figures(monkeypatch, reference_model, rounded, text):
    monkeypatch.setattr(Engine, "chunks_per_batch", 4)  # 9 chunks: groups of 4, 4 and 1
    monkeypatch.setattr(module, "chunks_per_batch", lambda _n_ctx: 4)
    loads = []
    start = Engine.__init__

    def load(self, path, options, *rest):
        loads.append(not options.vocabulary_only)
        start(self, path, options, *rest)

    monkeypatch.setattr(Engine, "__init__", load)
    at_once = measure(reference_model, [rounded, reference_model], text, OPTIONS)
    assert sum(loads) == 3
    in_groups = measure(reference_model, [rounded, reference_model], text, replace(OPTIONS, memory_bytes=1))
    assert sum(loads) == 3 + 9
    assert in_groups == at_once


def test_never_more_than_half_of_the_free_memory(monkeypatch):
    batch = chunks_per_batch(128) * 63 * 8192 * 4
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2 * batch * 3})())
    text = TokenizedText(np.zeros((1000, 128), np.int32), 8192)
    (first, *_) = module.chunk_groups(text, 2**60)
    assert first.stop == 3 * chunks_per_batch(128)


def test_finished_files_are_not_run_again(monkeypatch, tmp_path, reference_model, rounded, text):
    (first,) = measure(reference_model, [rounded], text, OPTIONS, cache=tmp_path)
    copy = tmp_path / "another-name.gguf"
    shutil.copyfile(rounded, copy)
    monkeypatch.setattr(Engine, "logits", lambda *_: pytest.fail("was run again"))
    shares = []
    (again,) = measure(reference_model, [copy], text, OPTIONS, shares.append, cache=tmp_path)
    assert again == replace(first, file=str(copy)) and shares == [1]


@pytest.mark.parametrize("change", [{"chunks": 8}, {"n_ctx": 64}])
def test_other_conditions_are_measured_anew(tmp_path, reference_model, text, change):
    measure(reference_model, [reference_model], text, OPTIONS, cache=tmp_path)
    (found,) = measure(reference_model, [reference_model], text, replace(OPTIONS, **change), cache=tmp_path)
    assert vars(found.conditions).items() >= change.items()


def test_a_short_text_is_refused(reference_model):
    with pytest.raises(TextTooShort, match="at least 256 are needed"):
        measure(reference_model, [reference_model], "a short text", OPTIONS)


def test_another_vocabulary_is_refused(reference_model):
    base = read_model(reference_model)
    smaller = [
        replace(each, shape=(each.columns, 8000)) if each.name == "token_embd.weight" else each for each in base.tensors
    ]
    with pytest.raises(ModelMismatch, match="a vocabulary of 8000 tokens, the original has 8192"):
        check_vocabulary(base, replace(base, tensors=tuple(smaller)))
    other = replace(base, tensors=tuple(smaller), metadata=base.metadata | {"tokenizer.ggml.model": "llama"})
    with pytest.raises(ModelMismatch, match="tokenizer.ggml.model is llama, in the original gpt2"):
        check_vocabulary(base, other)


def test_another_model_with_the_same_vocabulary_is_said_to_be_one(tmp_path, reference_model, text):
    other = tiny_tied(tmp_path / "other.gguf")
    own, foreign = measure(reference_model, [reference_model, other], text, OPTIONS)
    assert own.notes == ()
    (note,) = foreign.notes
    assert note.startswith(f"another model than {reference_model}: its blk.0.ffn_gate.weight is 256x288, there 256x")


def test_a_foreign_tokenizer_is_found_before_anything_runs(monkeypatch, reference_model, text):
    """The tool's engine refuses it too."""
    base = read_model(reference_model)
    own = tokenize(base, text, 128)
    changed = replace(own, chunks=own.chunks + (own.chunks == own.chunks[3, 5]))
    with pytest.raises(ModelMismatch, match=rf"first at token \d+: id {own.chunks[3, 5]}"):
        check_same_tokens(base, changed, [base], text)


def test_another_tokenizer_is_refused(monkeypatch, tmp_path, reference_model, text):
    """As many tokens, but two letters have changed places."""
    vocabulary = dict(tiny_models.vocabulary())
    tokens, *kinds = vocabulary["tokenizer.ggml.tokens"]
    one, two = tokens.index("e"), tokens.index("z")
    tokens = [{one: "z", two: "e"}.get(index, token) for index, token in enumerate(tokens)]
    vocabulary["tokenizer.ggml.tokens"] = (tokens, *kinds)
    monkeypatch.setattr(tiny_models, "vocabulary", lambda: vocabulary)
    other = tiny_tied(tmp_path / "other.gguf")
    with pytest.raises(ModelMismatch, match=r"its tokens of the same text differ; first at token \d+: id"):
        measure(reference_model, [other], "z ez jez zez. " * 50 + text, OPTIONS)


def test_a_model_that_computes_no_numbers_is_refused(tmp_path, reference_model, text):
    broken = tmp_path / "broken.gguf"
    shutil.copyfile(reference_model, broken)
    tensor = read_model(broken).by_name["output_norm.weight"]
    with broken.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(np.full(1, np.nan, np.float32).tobytes())
    with pytest.raises(BadFile, match="broken.gguf: the model produced NaN or infinite logits"):
        measure(reference_model, [broken], text, OPTIONS)


def test_a_missing_file_is_found_before_anything_runs(monkeypatch, tmp_path, reference_model, text):
    monkeypatch.setattr(Engine, "__init__", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(BadFile, match="nowhere.gguf"):
        measure(reference_model, [reference_model, tmp_path / "nowhere.gguf"], text, OPTIONS)
