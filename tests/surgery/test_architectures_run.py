"""The rules against llama.cpp itself: what is allowed loads and runs as meant; what is refused does not, or as something else.

What is meant is told by arrays of the metadata with an item per block, which llama.cpp takes in place of a period.
"""

import numpy as np
import pytest
import tiny_architectures as tiny

from quantplan.errors import BadFile, BadUsage
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.surgery import operation
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.architectures.check import check, metadata_changes
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.write_model import write_edited_model

pytestmark = pytest.mark.llamacpp
MODELS = {
    "hybrid": lambda path: tiny.tiny_hybrid(path),
    "hybrid listed": lambda path: tiny.tiny_hybrid(path, array=True),
    "predicting": lambda path: tiny.tiny_hybrid(path, predicting=True),
    "sliding": lambda path: tiny.tiny_sliding(path),
    "sliding listed": lambda path: tiny.tiny_sliding(path, sliding=[True, True, False] * 2),
    "dense lead": lambda path: tiny.tiny_dense_lead(path),
    "listed": lambda path: tiny.tiny_listed(path),
    "lite": lambda path: tiny.tiny_lite(path),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return {name: read_model(make(folder / f"{name}.gguf")) for name, make in MODELS.items()}


@pytest.fixture
def unchecked(monkeypatch):
    """The writer without the rules."""
    monkeypatch.setattr(operation, "check", lambda *_: ())


def edited(model, text):
    return apply_edits(model.blocks, parse_edits(text))


def logits(path):
    """float32 [scored positions, vocabulary] of 48 tokens, several windows of the sliding blocks long."""
    chunks = np.random.default_rng(0).integers(0, 8192, (1, 48)).astype(np.int32)
    with Engine(path, EngineOptions(n_ctx=48, execution=Execution(1))) as engine:
        return next(iter(engine.logits(chunks)))[0].copy()


RUN = {
    "hybrid": [
        "repeat 0-3",
        "repeat 1-4",
        "repeat 4-7 x3",
        "swap 3 7",
        "swap 0 5",
        "delete 0-3",
        "blend 1 2 0.3 into 2",
    ],
    "hybrid listed": ["swap 2 3", "delete 3", "repeat 0-2"],
    "predicting": ["repeat 0-3", "delete 0-3", "swap 3 7"],
    "sliding": ["repeat 0-2", "repeat 1-3", "swap 2 5", "delete 1-3"],
    "dense lead": ["delete 0", "delete 0-1", "repeat 0", "repeat 3", "swap 0 1", "delete 2-4", "blend 0 1 0.5"],
    "listed": ["swap 0 2", "delete 0-1", "repeat 1-3", "reverse 0-4", "keep 4 0"],
    "lite": ["delete 3", "delete 3-4", "repeat 3"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in RUN.items() for text in texts])
def test_what_is_allowed_loads_and_runs(models, tmp_path, name, text):
    model = models[name]
    made = edited(model, text)
    written = write_edited_model(model, made, tmp_path / "out.gguf")  # llama.cpp has run it, or it raises
    for key, value in metadata_changes(model, made).items():
        assert written.metadata[key] == value


BREAK = {
    "hybrid": ["repeat 0-2", "delete 3", "swap 2 3", "delete 4-6", "keep 0-2"],
    "hybrid listed": ["delete 3 7", "keep 3 7"],
    "predicting": ["swap 7 8", "repeat 8", "bridge 3 after 8"],
    "sliding listed": ["keep 2 5"],
    "dense lead": ["swap 1 2", "repeat 1-2", "move 0 after 4"],
    "listed": ["delete 2 4", "keep 2 4"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BREAK.items() for text in texts])
def test_what_is_refused_would_not_load(models, tmp_path, unchecked, name, text):
    made = edited(models[name], text)
    for forced in (False, True):
        with pytest.raises(BadUsage):
            check(models[name], made, forced)
    with pytest.raises(BadFile, match="llama.cpp"):
        write_edited_model(models[name], made, tmp_path / "out.gguf")
    assert not list(tmp_path.iterdir())


def logits_of_both(models, tmp_path, name, text):
    """Of the model with a period, and of the same weights with an array that says what each block is."""
    found = []
    for each in (name, f"{name} listed"):
        out = tmp_path / f"{each}.gguf"
        write_edited_model(models[each], edited(models[each], text), out, try_it=False)
        found.append(logits(out))
    return found


@pytest.mark.parametrize(
    ("name", "text"),
    [("hybrid", text) for text in ("repeat 1-4", "swap 3 7", "move 0-3 after 7")]
    + [("sliding", text) for text in ("repeat 1-3", "swap 2 5", "delete 0-2")],
)
def test_what_is_allowed_runs_as_meant(models, tmp_path, name, text):
    assert check(models[name], edited(models[name], text)) == ()
    periodic, meant = logits_of_both(models, tmp_path, name, text)
    assert (periodic == meant).all()


@pytest.mark.parametrize("text", ["swap 1 2", "delete 1", "repeat 0", "reverse 0-2"])
def test_a_refused_sliding_model_would_run_as_something_else(models, tmp_path, unchecked, text):
    with pytest.raises(BadUsage):
        check(models["sliding"], edited(models["sliding"], text), True)
    periodic, meant = logits_of_both(models, tmp_path, "sliding", text)
    assert np.abs(periodic - meant).max() > 0.01


@pytest.mark.parametrize(("name", "text"), [("hybrid", "delete 7"), ("sliding", "delete 5"), ("sliding", "keep 0 1")])
def test_a_last_period_cut_short_runs_as_meant_when_forced(models, tmp_path, unchecked, name, text):
    assert check(models[name], edited(models[name], text), skip_check=True) != ()
    periodic, meant = logits_of_both(models, tmp_path, name, text)
    assert (periodic == meant).all()


def test_dense_blocks_that_are_not_counted_anew_do_not_load(models, tmp_path, monkeypatch):
    monkeypatch.setattr(operation, "metadata_changes", lambda *_: {})
    with pytest.raises(BadFile, match="blk.1.ffn_gate.weight"):
        write_edited_model(models["dense lead"], edited(models["dense lead"], "delete 0"), tmp_path / "out.gguf")


def test_a_lite_model_of_another_length_does_not_load_without_the_key(models, tmp_path, monkeypatch):
    lead = "deepseek2.leading_dense_block_count"
    monkeypatch.setattr(operation, "metadata_changes", lambda *_: {lead: 25})
    with pytest.raises(BadFile, match="q_lora_rank"):
        write_edited_model(models["lite"], edited(models["lite"], "delete 3-4"), tmp_path / "out.gguf")


def test_what_predicts_further_tokens_is_untouched(models, tmp_path):
    model = models["predicting"]
    written = write_edited_model(model, edited(model, "repeat 0-3"), tmp_path / "out.gguf")
    assert written.blocks == 13 and "blk.12.nextn.eh_proj.weight" in written.by_name
    assert not any("nextn" in tensor.name for tensor in written.tensors if tensor.block != 12)
