"""The error of the round trip against the plain formula, whole and sampled."""

import tracemalloc

import numpy as np
import pytest
from model_parts import imatrix_of, model_of
from tiny_models import arrays_gguf

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.sensitivity.round_trip import RoundTrip, round_trips, stored_candidates

K = parse_types("k")


def file_of(path, tensors):
    """A GGUF with these matrices, float32 or float16 as they come."""
    return read_model(arrays_gguf(path, "llama", tensors, {"block_count": 1}))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A plain matrix, one whose rows differ in size by a factor of 100, and four experts."""
    random = np.random.default_rng(0)
    uneven = random.standard_t(4, (900, 512)) * np.exp(random.uniform(0, 4.6, (900, 1)))
    tensors = {
        "blk.0.attn_q.weight": random.standard_normal((700, 512)).astype(np.float16),
        "blk.0.ffn_down.weight": uneven.astype(np.float32),
        "blk.0.ffn_up_exps.weight": random.standard_normal((4, 300, 256)).astype(np.float16),
    }
    return file_of(tmp_path_factory.mktemp("round") / "m.gguf", tensors)


@pytest.fixture(scope="module")
def imatrix():
    random = np.random.default_rng(1)
    sums = {
        "blk.0.attn_q.weight": random.lognormal(0, 2, (1, 512)),
        "blk.0.ffn_down.weight": random.lognormal(0, 1, (1, 512)),
        "blk.0.ffn_up_exps.weight": random.lognormal(0, 2, (4, 256)),
    }
    return imatrix_of(sums, {"blk.0.ffn_up_exps.weight": [10, 20, 0, 5]})


def measured(model, name, types, imatrix=None, **options) -> RoundTrip:
    return next(round_trips(model, [(model.by_name[name], tuple(types))], imatrix, **options))


def plain(model, name, kind, encode_with=None, judge_with=None):
    """sum_ij w_j (W - Q)_ij^2 / sum_ij w_j W_ij^2 in float64; weights [experts, columns]."""
    tensor = model.by_name[name]
    weights = tensor_rows(model, tensor)
    rounded = ggml.dequantize(ggml.quantize(weights, kind, encode_with), kind, tensor.columns)
    judge = np.ones((tensor.experts, tensor.columns)) if judge_with is None else judge_with.astype(np.float64)
    per_row = np.repeat(judge, tensor.rows // tensor.experts, axis=0)
    weights = weights.astype(np.float64)
    return (per_row * (weights - rounded) ** 2).sum() / (per_row * weights**2).sum()


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up_exps.weight"])
def test_the_formula_without_imatrix(model, name):
    found = measured(model, name, K)
    assert list(found.errors) == [kind.name for kind in K]
    assert found.rows == model.by_name[name].rows
    assert set(found.sampling_errors.values()) == {0.0}
    for kind in K:
        assert found.errors[kind.name] == pytest.approx(plain(model, name, kind), rel=1e-5)


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.0.ffn_down.weight"])
def test_the_formula_with_imatrix(model, imatrix, name):
    weights = imatrix.entries[name].sum2 / 10
    found = measured(model, name, K, imatrix)
    for kind in K:
        assert found.errors[kind.name] == pytest.approx(plain(model, name, kind, weights, weights), rel=1e-5)
        assert found.errors[kind.name] != pytest.approx(plain(model, name, kind), rel=0.01)


def test_experts_have_importance_of_their_own(model, imatrix):
    """Encoded with their own means, expert 2 that was never hit with ones; judged shrunk to the mean of all."""
    name = "blk.0.ffn_up_exps.weight"
    encode = imatrix.entries[name].sum2 / np.array([[10], [20], [1], [5]], np.float32)
    encode[2] = 1
    trust = np.array([[10 / 42], [20 / 52], [0], [5 / 37]])  # n / (n + 32)
    judge = trust * encode + (1 - trust) * (trust * encode).sum(axis=0) / trust.sum()
    found = measured(model, name, K, imatrix)
    for kind in K:
        assert found.errors[kind.name] == pytest.approx(plain(model, name, kind, encode, judge), rel=1e-5)


def test_the_stored_type_loses_nothing(model):
    assert measured(model, "blk.0.attn_q.weight", [BY_NAME["F16"], BY_NAME["Q8_0"]]).errors["F16"] == 0.0
    lost = measured(model, "blk.0.ffn_down.weight", [BY_NAME["F16"], BY_NAME["BF16"]]).errors
    assert 0 < lost["F16"] < lost["BF16"] < 1e-5


@pytest.mark.parametrize("name", ["blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up_exps.weight"])
@pytest.mark.parametrize("sample", [10_000, 60_000])
def test_the_sampling_error_is_honest(model, imatrix, name, sample):
    whole = measured(model, name, K, imatrix)
    part = measured(model, name, K, imatrix, sample_elements=sample)
    assert part.rows < whole.rows / 2
    for kind in whole.errors:
        error = part.sampling_errors[kind]
        assert 0 < error < 0.6 * whole.errors[kind]
        assert abs(part.errors[kind] - whole.errors[kind]) < 4 * error
    assert measured(model, name, K, imatrix, sample_elements=sample) == part  # seeded


def test_the_sampling_error_shrinks_with_rows_and_ends_at_zero(model):
    errors = [
        measured(model, "blk.0.attn_q.weight", K, sample_elements=n).sampling_errors["Q4_K"]
        for n in (20_000, 160_000, 10**9)
    ]
    assert errors[0] > 1.5 * errors[1] > 0
    assert errors[2] == 0


def test_estimates_scatter_as_their_errors_say(tmp_path):
    """Twenty tensors whose rows differ as in trained ones: squared deviations over squared errors are 1.

    The error is that of a linearised ratio: where a few of the rows hold most of the energy, it is too small.
    """
    random = np.random.default_rng(7)
    tensors = {
        f"blk.0.{'x' * (1 + index)}.weight": (
            random.standard_normal((400, 256)) * np.exp(random.normal(0, 0.3, (400, 1)))
        ).astype(np.float32)
        for index in range(20)
    }
    model = file_of(tmp_path / "m.gguf", tensors)
    kinds = (BY_NAME["Q4_0"],)
    wanted = [(tensor, kinds) for tensor in model.tensors]
    whole = [found.errors["Q4_0"] for found in round_trips(model, wanted, None)]
    parts = list(round_trips(model, wanted, None, sample_elements=60 * 256))
    deviations = [
        (part.errors["Q4_0"] - true) / part.sampling_errors["Q4_0"] for part, true in zip(parts, whole, strict=True)
    ]
    assert 0.4 < np.mean(np.square(deviations)) < 2


def test_order_and_threads_change_nothing(model):
    wanted = [(tensor, K) for tensor in model.tensors]
    one = list(round_trips(model, wanted, None, threads=1))
    assert [found.tensor for found in one] == [tensor.name for tensor in model.tensors]
    assert list(round_trips(model, wanted, None, threads=3)) == one


def test_memory_stays_far_below_the_tensor(tmp_path):
    values = np.random.default_rng(0).standard_normal((12_000, 1024)).astype(np.float16)
    model = file_of(tmp_path / "large.gguf", {"blk.0.ffn_up.weight": values})
    as_float32 = 4 * model.tensors[0].elements
    del values
    for sample in (None, 1 << 20):
        tracemalloc.start()
        measured(model, "blk.0.ffn_up.weight", [BY_NAME["Q4_0"]], sample_elements=sample, threads=2)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < as_float32 / 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    good = np.ones((64, 256), np.float32)
    bad = good.copy()
    bad[63, 255] = value
    model = file_of(tmp_path / "m.gguf", {"blk.0.attn_k.weight": good, "blk.0.attn_v.weight": bad})
    with pytest.raises(BadFile, match="blk.0.attn_v.weight has NaN or infinite weights"):
        list(round_trips(model, [(tensor, (BY_NAME["Q4_0"],)) for tensor in model.tensors], None))


def test_zeros_lose_nothing(tmp_path):
    model = file_of(tmp_path / "m.gguf", {"blk.0.attn_k.weight": np.zeros((64, 256), np.float32)})
    assert measured(model, "blk.0.attn_k.weight", K).errors == dict.fromkeys((kind.name for kind in K), 0.0)


# -- what a tensor can be stored as


def stored(shape, types, has_importance=True, kind="F16", name="blk.0.ffn_down.weight"):
    tensor = model_of({name: shape}, kind).tensors[0]
    return [each.name for each in stored_candidates(tensor, parse_types(types), has_importance)]


def test_candidates_take_their_fallback_once():
    assert stored((288, 8), "k") == ["Q8_0", "Q5_1", "Q5_0", "Q4_0"]
    assert stored((288, 8), "IQ4_XS,IQ2_XXS,IQ4_NL") == ["IQ4_NL"]
    assert stored((256, 8), "k") == ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"]
    assert stored((100, 8), "k") == ["F16"]


def test_candidates_that_need_an_imatrix():
    needing = ["IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"]
    free = ["IQ4_NL", "IQ4_XS", "IQ3_S"]
    assert stored((256, 8), "iq") == free + needing
    assert stored((256, 8), "iq", False) == free
    # llama-quantize exempts these two, ggml aborts at three of the types all the same
    for name in ("token_embd.weight", "output.weight"):
        assert stored((256, 8), "iq", False, name=name) == [*free, "IQ3_XXS", "IQ2_S", "IQ1_M"]


def test_nothing_larger_than_the_source():
    assert {"Q4_K", "IQ4_NL", "Q4_0"} <= set(stored((256, 8), "all", kind="Q4_K"))
    assert max(BY_NAME[name].bits for name in stored((256, 8), "all", kind="Q4_K")) == 4.5
    assert "F16" in stored((256, 8), "all,F32") and "F32" not in stored((256, 8), "all,F32")
    assert stored((256, 8), "Q8_0", kind="Q4_K") == ["Q4_K"]  # the type that it has is always a candidate


def test_an_imatrix_that_lacks_the_tensor_is_as_none(model, imatrix):
    other = Imatrix(imatrix.path, {}, (), 0, 0, False, "")
    name = "blk.0.attn_q.weight"
    assert measured(model, name, K, other) == measured(model, name, K)
