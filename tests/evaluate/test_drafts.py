"""Drafts of a model's own MTP block: each next to what the model predicts at the same place."""

import json
from dataclasses import replace

import gguf
import numpy as np
import pytest
from tiny_architectures import tiny_hybrid
from tiny_models import WIDTH, tiny_tied

from quantplan.errors import BadUsage, ToolMissing
from quantplan.evaluate.drafts import draft_acceptance
from quantplan.evaluate.measure import MeasureOptions
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import drafting
from quantplan.llamacpp.drafting import DraftEngine

pytestmark = pytest.mark.llamacpp
OPTIONS = MeasureOptions(64, 3, Execution(1))


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:4000]


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """A model whose block of drafts only hands on the state that it is given: it predicts what the model did a token before."""
    path = tiny_hybrid(tmp_path_factory.mktemp("drafts") / "mtp.gguf", blocks=4, predicting=True)
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path, "r+").tensors}
    tensors["blk.4.nextn.eh_proj.weight"][:] = np.hstack([np.zeros((WIDTH, WIDTH)), np.eye(WIDTH)])
    tensors["blk.4.attn_output.weight"][:] = tensors["blk.4.ffn_down.weight"][:] = 0
    tensors["blk.4.nextn.hnorm.weight"][:] = 1
    tensors["blk.4.nextn.shared_head_norm.weight"][:] = tensors["output_norm.weight"]
    for data in tensors.values():
        data.flush()
    return path


def test_a_draft_is_made_of_the_state_before(late, text):
    with DraftEngine(read_model(late), OPTIONS.engine) as engine:
        chunks = engine.chunks(text, 2)
        for model, draft in engine.predictions(chunks):
            assert model.shape == draft.shape == (31, engine.vocabulary)
            assert np.abs(draft[1:] - model[:-1]).max() < 0.02 * np.abs(model).max()
            assert (draft[1:].argmax(axis=1) == model[:-1].argmax(axis=1)).all()


def test_a_context_for_drafts_that_runs_other_blocks_is_refused(late, text):
    """As of architectures whose graph for drafts llama.cpp does not have: it would run the model itself."""
    other = replace(read_model(late), blocks=9)
    with (
        DraftEngine(other, OPTIONS.engine) as engine,
        pytest.raises(BadUsage, match="runs no MTP block of qwen35 models"),
    ):
        next(engine.predictions(engine.chunks(text, 2)))


def test_acceptance(late, text):
    (found,) = draft_acceptance([late], text, OPTIONS)
    assert found.chunks == 3 and 0 <= found.greedy.value <= 1 and 0 < found.sampled.value < 1
    assert found.sampled.stderr > 0


def test_as_a_command_and_what_drafts_nothing(late, text, tmp_path, monkeypatch, capsys):
    from quantplan.cli.main import main

    (tmp_path / "text.txt").write_text(text)
    monkeypatch.setenv("QUANTPLAN_CACHE", str(tmp_path / "cache"))
    words = ["measure", late, "--model", late, "--text", tmp_path / "text.txt", "-c", 64, "--chunks", 2, "-t", 1]
    monkeypatch.setattr("sys.argv", ["quantplan", *map(str, words), "--drafts", "--json"])
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    (of_file,) = json.loads(capsys.readouterr().out)
    assert of_file["kld"] == 0 and of_file["drafts"]["sampled"] == of_file["drafts"]["of_model"]["sampled"]
    plain = tiny_tied(tmp_path / "tied.gguf")
    with pytest.raises(BadUsage, match="no block of it predicts further tokens .*leave --drafts out"):
        draft_acceptance([plain], text, OPTIONS)
    monkeypatch.setattr(drafting, "_GET", "no_such_function")
    with pytest.raises(ToolMissing, match="does not have what MTP blocks are run with here"):
        draft_acceptance([late], text, OPTIONS)
