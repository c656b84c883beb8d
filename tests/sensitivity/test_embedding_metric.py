"""The metric of embeddings that are looked up: made of the first block's weights, for models in which that holds."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_architectures import tiny_hybrid
from tiny_models import tiny_moe, tiny_tied

from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.quant_type import quant_type
from quantplan.sensitivity import prior
from quantplan.sensitivity.embedding_metric import EMBEDDINGS, with_embeddings
from quantplan.sensitivity.moment_metric import MomentMetric
from quantplan.sensitivity.probe import ProbeOptions
from quantplan.sensitivity.second_moments import MomentOptions, collect
from quantplan.sensitivity.tensor_swap import TensorSwapper

pytestmark = pytest.mark.llamacpp
READERS = ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight")
OPTIONS = MomentOptions(n_ctx=128, chunks=24, execution=Execution(threads=1))


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


@pytest.fixture(scope="module")
def moments(model, text, tmp_path_factory):
    return collect(model, [model.by_name[EMBEDDINGS]], text[:40_000], OPTIONS, tmp_path_factory.mktemp("embeddings"))


def test_it_is_what_the_first_block_reads(model, moments):
    assert moments.tensors == {EMBEDDINGS, *READERS}, "the readers' second moments are collected for it"
    gains = tensor_rows(model, model.by_name["blk.0.attn_norm.weight"]).astype(np.float64).reshape(-1)
    expected = 0.0
    for name in READERS:
        weights = tensor_rows(model, model.by_name[name]).astype(np.float64)
        energy = np.trace(weights @ moments.of(name, shrink=False).matrix @ weights.T)
        expected = expected + prior.scale(model, model.by_name[name]) / energy * (weights * gains).T @ (weights * gains)
    metric = moments.of(EMBEDDINGS).matrix
    ours, theirs = metric / np.trace(metric), expected / np.trace(expected)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * theirs.max())


def test_embeddings_rounded_in_it_lose_less_than_half(model, moments, text):
    tensor, kind = model.by_name[EMBEDDINGS], quant_type("IQ4_XS")
    losses = []
    for folder in (None, moments.folder):
        options = ProbeOptions(n_ctx=128, chunks=8, execution=Execution(threads=1), moments=folder)
        with TensorSwapper(model, None, text[60_000:], options) as swapper:
            swapper.find([tensor])
            swapper.take_base(8)
            swapper.swap(tensor, kind)
            losses.append(float(np.mean(swapper.chunk_klds(0, 8))))
    assert losses[1] < 0.5 * losses[0]


def test_ggmls_encoder_gets_no_importance_for_them(model, moments):
    errors = MomentMetric(model, moments).errors([model.by_name[EMBEDDINGS]], (quant_type("Q4_K"),), 4096)[0]
    assert 0 < errors.compensated["Q4_K"] < 0.7 * errors.stock["Q4_K"]


def test_finished_work_is_kept(model, moments, text, monkeypatch):
    monkeypatch.setattr("quantplan.sensitivity.second_moments.Engine", None)
    again = collect(model, [model.by_name[EMBEDDINGS]], text[:40_000], OPTIONS, moments.folder.parent)
    assert again.tensors == moments.tensors


def test_no_imatrix_data_comes_of_it(moments):
    assert EMBEDDINGS not in moments.imatrix("text").entries


@pytest.mark.parametrize("maker", [tiny_tied, tiny_moe, tiny_hybrid], ids=["tied", "experts", "hybrid"])
def test_models_of_other_kinds(maker, text, tmp_path):
    """Tied embeddings are multiplied; in all others they are looked up, and the metric can be used."""
    model = read_model(maker(tmp_path / "model.gguf"))
    options = replace(OPTIONS, n_ctx=64, chunks=4)
    moments = collect(model, [model.by_name[EMBEDDINGS]], text[:8000], options, tmp_path)
    looked_up = [each for each in moments.inputs if each.looked_up]
    assert len(looked_up) == (0 if model.tied else 1)
    weights = tensor_rows(model, model.by_name[EMBEDDINGS])
    rounded = MomentMetric(model, moments).rounded(model.by_name[EMBEDDINGS], weights, quant_type("Q4_0"))
    assert np.isfinite(rounded).all()


def test_embeddings_with_a_norm_of_their_own_are_left_out(model, moments):
    norm = replace(model.by_name["output_norm.weight"], name="token_embd_norm.weight")
    inputs = tuple(each for each in moments.inputs if not each.looked_up)
    assert len(with_embeddings(model, inputs)) == len(inputs) + 1
    assert with_embeddings(replace(model, tensors=(*model.tensors, norm)), inputs) == inputs
