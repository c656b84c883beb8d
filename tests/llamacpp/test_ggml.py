"""libggml through ctypes against files that llama-quantize wrote."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from model_parts import imatrix_of
from tiny_models import arrays_gguf

from quantplan.gguf.imatrix_files import write_imatrix
from quantplan.gguf.reader import read_model, tensor_bytes, tensor_rows
from quantplan.llamacpp import ggml, libraries, quantize
from quantplan.llamacpp.quantize import Recipe, Rule
from quantplan.quant_type import BY_NAME

ENCODED = [kind for kind in BY_NAME.values() if kind.for_weights and kind.name != "F32"]
FREE = [kind for kind in ENCODED if not kind.needs_imatrix]
# rows of the imatrix are far from even, so that a wrong column or none at all changes the bits
COLUMNS, ROWS = 512, 24


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model of as many small F32 matrices as there are types to write."""
    random = np.random.default_rng(0)
    numbers = {
        "block_count": len(ENCODED),
        "context_length": 512,
        "embedding_length": COLUMNS,
        "feed_forward_length": COLUMNS,
        "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    tensors = {
        f"blk.{block}.attn_output.weight": random.standard_t(4, (ROWS, COLUMNS)).astype(np.float32) * 0.02
        for block in range(len(ENCODED))
    }
    return read_model(arrays_gguf(tmp_path_factory.mktemp("types") / "source.gguf", "qwen3", tensors, numbers))


@pytest.fixture(scope="module")
def imatrix(source, tmp_path_factory):
    random = np.random.default_rng(1)
    sums = {tensor.name: random.lognormal(0, 2, (1, COLUMNS)) for tensor in source.tensors}
    made = imatrix_of(sums)
    path = tmp_path_factory.mktemp("imatrix") / "i.gguf"
    write_imatrix(made, path)
    return made, path


def written(source, kinds, out, imatrix=None):
    """What llama-quantize writes: block i in the i-th type."""
    rules = [Rule(rf"^blk\.{block}\.attn_output\.weight$", kind) for block, kind in enumerate(kinds)]
    rules += [Rule(rf"^blk\.{block}\.", BY_NAME["Q8_0"]) for block in range(len(kinds), len(source.tensors))]
    quantize.quantize(source.path, Recipe("Q4_K_S", tuple(rules), imatrix=imatrix), out, threads=1)
    return read_model(out)


def check_bits(source, made, kinds, imatrix=None):
    for tensor, stored, kind in zip(source.tensors, made.tensors, kinds, strict=False):
        assert (stored.name, stored.type) == (tensor.name, kind)
        importance = imatrix.quantize_weights(tensor) if imatrix else None
        ours = ggml.quantize(tensor_rows(source, tensor), kind, importance)
        assert np.array_equal(ours, tensor_bytes(made, stored)), f"{kind} differs"


@pytest.mark.llamacpp
def test_every_type_bit_for_bit_with_imatrix(source, imatrix, tmp_path):
    values, path = imatrix
    ones = np.ones((1, 256), np.float32)
    with ThreadPoolExecutor(1) as pool:  # the IQ types' tables take seconds: make ours while the tool makes its own
        ready = pool.submit(lambda: [ggml.quantize(ones, kind, ones) for kind in ENCODED])
        made = written(source, ENCODED, tmp_path / "out.gguf", path)
        ready.result()
    check_bits(source, made, ENCODED, values)


@pytest.mark.llamacpp
def test_every_type_bit_for_bit_without_imatrix(source, tmp_path):
    check_bits(source, written(source, FREE, tmp_path / "out.gguf"), FREE)


def test_importance_of_each_expert_is_its_own():
    random = np.random.default_rng(2)
    weights = random.standard_normal((3 * 8, 256)).astype(np.float32)
    importance = random.lognormal(0, 2, (3, 256)).astype(np.float32)
    kind = BY_NAME["Q4_K"]
    together = ggml.quantize(weights, kind, importance)
    for expert in range(3):
        rows = slice(8 * expert, 8 * expert + 8)
        alone = ggml.quantize(weights[rows], kind, importance[expert : expert + 1])
        assert np.array_equal(together[rows], alone)
    assert not np.array_equal(together, ggml.quantize(weights, kind, importance[::-1]))


def test_large_matrices_are_split_over_threads_without_a_trace():
    weights = np.random.default_rng(3).standard_normal((5000, 256)).astype(np.float32)
    kind = BY_NAME["Q4_0"]
    whole = ggml.quantize(weights, kind)
    assert np.array_equal(whole, np.concatenate([ggml.quantize(part, kind) for part in np.array_split(weights, 7)]))
    back = ggml.dequantize(whole, kind, 256)
    assert np.array_equal(back[4990:], ggml.dequantize(whole[4990:], kind, 256))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_floats(name):
    weights = np.array([[1.0, -2.5, 3.14159, 1e-3, 65504.0, 0.0]], np.float32)
    back = ggml.dequantize(ggml.quantize(weights, BY_NAME[name]), BY_NAME[name], 6)
    expected = weights.astype(np.float16).astype(np.float32) if name == "F16" else weights
    assert np.allclose(back, expected, rtol=2**-8 if name == "BF16" else 0, atol=0)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_dequantize_agrees_with_the_gguf_package(name):
    import gguf

    weights = np.random.default_rng(4).standard_normal((16, 512)).astype(np.float32)
    kind = BY_NAME[name]
    encoded = ggml.quantize(weights, kind)
    expected = gguf.quants.dequantize(encoded, gguf.GGMLQuantizationType(kind.ggml_id))
    np.testing.assert_allclose(ggml.dequantize(encoded, kind, 512), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["IQ1_S", "IQ2_XXS", "IQ2_XS"])
def test_an_error_instead_of_the_end_of_the_process(name):
    with pytest.raises(ValueError, match="without an imatrix"):
        ggml.quantize(np.ones((1, 256), np.float32), BY_NAME[name])


def test_rows_that_do_not_divide():
    with pytest.raises(ValueError, match="rows of 100 weights"):
        ggml.quantize(np.ones((1, 100), np.float32), BY_NAME["Q4_0"])


# -- what kernels do to activations


def kernel_rounded(activations, feed):
    """Through ggml's own from_float of the CPU backend and to_float, for the types that have both."""
    rows, columns = activations.shape
    traits = libraries.cpu().ggml_get_type_traits_cpu(feed).contents
    block, size = ggml.installed_block(feed)
    encoded = np.empty(rows * columns // block * size, np.uint8)
    convert = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    convert(traits.from_float)(activations.ctypes.data, encoded.ctypes.data, rows * columns)
    return encoded, libraries.base().ggml_get_type_traits(feed).contents.to_float


def test_rounding_of_activations_is_that_of_the_kernels_for_q8_0():
    activations = np.random.default_rng(5).standard_t(3, (64, 512)).astype(np.float32)
    encoded, _ = kernel_rounded(activations, 8)
    expected = ggml.dequantize(encoded.reshape(64, -1), BY_NAME["Q8_0"], 512)
    ours = ggml.quantize_activations(activations, 8)
    error, difference = (np.square(expected - activations).sum(), np.square(ours - expected).sum())
    assert 0 < difference < 1e-3 * error or difference == 0  # values on the edge between two steps may go either way


def test_rounding_of_activations_is_that_of_the_kernels_for_q8_k():
    """block_q8_K is {float d; int8 qs[256]; int16 bsums[16]}: ggml has no public way back."""
    activations = np.random.default_rng(6).standard_t(3, (64, 512)).astype(np.float32)
    encoded, _ = kernel_rounded(activations, 15)
    blocks = encoded.reshape(-1, 292)
    scales = blocks[:, :4].copy().view(np.float32)
    expected = (scales * blocks[:, 4:260].view(np.int8)).reshape(64, 512)
    ours = ggml.quantize_activations(activations, 15)
    error, difference = (np.square(expected - activations).sum(), np.square(ours - expected).sum())
    assert 0.999 < np.square(ours - activations).sum() / error < 1.001
    assert difference < 2e-2 * error


def test_rounding_keeps_zeros_and_odd_widths():
    zeros = np.zeros((2, 256), np.float32)
    assert np.array_equal(ggml.quantize_activations(zeros, 8), zeros)
    odd = np.ones((2, 100), np.float32)
    assert ggml.quantize_activations(odd, 8) is odd


def test_what_kernels_are_fed_with():
    feeds = {name: ggml.activation_type(BY_NAME[name]) for name in ("Q4_K", "IQ2_XXS", "Q8_0", "IQ4_NL", "F16", "F32")}
    assert feeds == {"Q4_K": 15, "IQ2_XXS": 15, "Q8_0": 8, "IQ4_NL": 8, "F16": 1, "F32": 0}
