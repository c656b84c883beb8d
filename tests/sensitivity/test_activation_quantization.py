"""The kernels' rounding of activations, against the formula and against a model that really runs so."""

import numpy as np
import pytest
from tiny_models import tiny_moe

from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.llamacpp import ggml, quantize
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.nodes import node_rows
from quantplan.records.cache import Cache, Plain
from quantplan.sensitivity import activation_quantization as kernel
from quantplan.sensitivity.activation_quantization import activation_quantization
from quantplan.sensitivity.probe_text import chunk_order

Q8_0, Q8_K = 8, 15


@pytest.fixture(scope="module")
def rounding(case, tmp_path_factory):
    journal = Cache(Plain(), tmp_path_factory.mktemp("kernel"), "kernel")
    return activation_quantization(case.model, case.tensors, case.text, 128, Execution(1), journal), journal


def test_every_matrix_has_its_figures(case, rounding):
    found, _ = rounding
    assert found.backend == "cpu"
    assert set(found.relative) == {tensor.name for tensor in case.tensors}
    for name, by_feed in found.relative.items():
        assert 1e-6 < by_feed[Q8_0] < 1e-3, name


@pytest.fixture(scope="module")
def uneven(case, tmp_path_factory):
    """The tiny model; one matrix listens to its loudest inputs most, so that rounding costs it less."""
    data = bytearray(case.model.path.read_bytes())
    tensor = case.model.by_name["blk.1.attn_v.weight"]
    weights = tensor_rows(case.model, tensor)
    gains = tensor_rows(case.model, case.model.by_name["blk.1.attn_norm.weight"])[0]
    weights[:, gains > np.quantile(gains, 0.9)] *= 10
    data[tensor.offset : tensor.offset + tensor.bytes] = weights.astype(np.float16).tobytes()
    path = tmp_path_factory.mktemp("uneven") / "uneven.gguf"
    path.write_bytes(data)
    return read_model(path)


def test_the_formula_on_the_activations_of_one_tensor(case, uneven, tmp_path):
    """r = sum_j c_j (x - x')_j^2 / sum_j c_j x_j^2, c_j = sum_i W_ij^2, on the same windows but all rows."""
    name, inputs = "blk.1.attn_v.weight", []
    tensors = (uneven.by_name[name],)
    found = activation_quantization(uneven, tensors, case.text, 128, Execution(1), Cache(Plain(), tmp_path, "kernel"))

    def watch(node, ask):
        if not node.src[0] or node.src[0].contents.name.decode() != name:
            return False
        if not ask:
            inputs.append(node_rows(node.src[1].contents))
        return True

    with Engine(uneven.path, EngineOptions(128, Execution(1)), watch=watch) as engine:
        chunks = engine.chunks(case.text)
        list(engine.logits(chunks[chunk_order(len(chunks))[:16]]))
    rows = np.concatenate(inputs)
    energy = (tensor_rows(uneven, tensors[0]) ** 2).sum(axis=0)
    for feed in (Q8_0, Q8_K):
        lost = ((ggml.quantize_activations(rows, feed) - rows) ** 2 @ energy).sum() / (rows**2 @ energy).sum()
        assert found.relative[name][feed] == pytest.approx(lost, rel=0.05)
        alike = ((ggml.quantize_activations(rows, feed) - rows) ** 2).sum() / (rows**2).sum()
        assert lost < 0.7 * alike


def test_energy_of_columns(case):
    tensor = case.model.by_name["blk.0.ffn_down.weight"]
    expected = (tensor_rows(case.model, tensor) ** 2).sum(axis=0)
    np.testing.assert_allclose(kernel.column_energy(case.model, tensor), expected, rtol=1e-5)


def test_types_are_charged_for_what_they_are_fed_with(rounding):
    found, _ = rounding
    name = "blk.0.attn_q.weight"
    assert found.of(name, "Q4_K") == found.of(name, "IQ2_XXS") == found.relative[name][Q8_K]
    assert found.of(name, "Q8_0") == found.of(name, "IQ4_NL") == found.relative[name][Q8_0]
    assert found.relative[name][Q8_K] > found.relative[name][Q8_0]  # larger blocks, coarser steps
    assert found.of(name, "F16") == found.of(name, "F32") == 0.0
    assert found.of("no such tensor", "Q4_K") == 0.0


def test_from_the_journal_without_the_model(case, rounding, monkeypatch):
    found, journal = rounding
    monkeypatch.setattr(kernel, "Engine", None)
    again = activation_quantization(
        case.model, case.tensors, case.text, 128, Execution(1), Cache(Plain(), journal.folder, "kernel")
    )
    assert again == found


def test_experts(tmp_path, case):
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    tensors = tuple(t for t in quantize.quantizable(model) if t.experts > 1 or t.name == "output.weight")
    found = activation_quantization(model, tensors, case.text, 128, Execution(1), Cache(Plain(), tmp_path, "kernel"))
    assert set(found.relative) == {tensor.name for tensor in tensors}
    assert all(1e-6 < by_feed[Q8_0] < 1e-3 for by_feed in found.relative.values())


@pytest.mark.llamacpp
def test_it_explains_what_a_swap_does_not_see(case, priced, tmp_path):
    """A Q8_0 file loses more than Q8_0 weights in an F16 model do: the kernels' part accounts for it."""
    from quantplan.llamacpp.quantize import Recipe
    from quantplan.llamacpp.token_scores import base_rows, divergence
    from quantplan.quant_type import BY_NAME

    path = tmp_path / "q8_0.gguf"
    quantize.quantize(case.model.path, Recipe("Q8_0", pure=True), path, threads=1)
    kind, rows = BY_NAME["Q8_0"], priced[0].table.rows
    with (
        Engine(case.model.path, EngineOptions(128, Execution(1), swappable=True)) as engine,
        Engine(path, EngineOptions(128, Execution(1))) as file,
    ):
        chunks = engine.chunks(case.text)[:16]
        base = base_rows(next(engine.logits(chunks)))
        whole = divergence(base, next(file.logits(chunks))).mean()
        engine.find_weights({tensor.name for tensor in case.tensors})
        for tensor in case.tensors:
            rounded = ggml.dequantize(ggml.quantize(tensor_rows(case.model, tensor), kind), kind, tensor.columns)
            engine.put(tensor.name, ggml.quantize(rounded, tensor.type))
        weights = divergence(base, next(engine.logits(chunks))).mean()
    predicted = sum(rows[tensor.name].kernel["Q8_0"] for tensor in case.tensors)
    assert whole > 1.1 * weights
    assert 0.5 < predicted / (whole - weights) < 2
