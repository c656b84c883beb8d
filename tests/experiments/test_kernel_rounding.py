"""The kernels' rounding of activations, against the formula and against a model that really runs so."""

import numpy as np
import pytest
from tiny_models import tiny_moe

from quantplan.experiments import kernel_rounding as kernel
from quantplan.experiments.cache import Journal
from quantplan.experiments.kernel_rounding import kernel_rounding
from quantplan.experiments.probe import window_order
from quantplan.formats.gguf import read_model, tensor_rows
from quantplan.llamacpp import ggml, quantize
from quantplan.llamacpp.engine import Engine, EngineOptions, node_rows

Q8_0, Q8_K = 8, 15


@pytest.fixture(scope="module")
def rounding(case, tmp_path_factory):
    journal = Journal(tmp_path_factory.mktemp("kernel"), "kernel")
    return kernel_rounding(case.model, case.tensors, case.text, 128, 1, journal), journal


def test_every_matrix_has_its_figures(case, rounding):
    found, _ = rounding
    assert found.backend == "cpu"
    assert set(found.relative) == {tensor.name for tensor in case.tensors}
    for name, by_feed in found.relative.items():
        assert 1e-6 < by_feed[Q8_0] < 1e-3, name


def test_the_formula_on_the_activations_of_one_tensor(case, rounding):
    """r = sum_j c_j (x - x')_j^2 / sum_j c_j x_j^2, c_j = sum_i W_ij^2, on the same windows but all rows."""
    name, inputs = "blk.1.attn_v.weight", []

    def watch(node, ask):
        if not node.src[0] or node.src[0].contents.name.decode() != name:
            return False
        if not ask:
            inputs.append(node_rows(node.src[1].contents))
        return True

    with Engine(case.model.path, EngineOptions(128, 1), watch=watch) as engine:
        windows = engine.windows(case.text)
        list(engine.logits(windows[window_order(len(windows))[:16]]))
    rows = np.concatenate(inputs)
    energy = (tensor_rows(case.model, case.model.by_name[name]) ** 2).sum(axis=0)
    for feed in (Q8_0, Q8_K):
        lost = ((ggml.round_activations(rows, feed) - rows) ** 2 @ energy).sum() / (rows**2 @ energy).sum()
        assert rounding[0].relative[name][feed] == pytest.approx(lost, rel=0.05)


def test_columns_count_by_the_energy_of_their_weights():
    """The tiny model's columns are all alike: here one column carries all the weights, another all the error."""
    rows = np.full((4, 256), 0.5, np.float32)
    rows[:, 0], rows[:, 1] = 127.0, 0.3  # the scale is 1: 0.3 is lost whole, 127 is exact
    energy = np.zeros(256, np.float32)
    energy[0] = 7
    whole, *lost = kernel._error_sums(rows, energy)
    assert whole == pytest.approx(4 * 7 * 127**2) and lost == [0, 0, 0]
    energy[:2] = 0, 3
    whole, *lost = kernel._error_sums(rows, energy)
    assert whole == pytest.approx(4 * 3 * 0.3**2, rel=1e-5) and lost == pytest.approx([whole] * 3)


def test_energy_of_columns(case):
    tensor = case.model.by_name["blk.0.ffn_down.weight"]
    expected = (tensor_rows(case.model, tensor) ** 2).sum(axis=0)
    np.testing.assert_allclose(kernel._column_energy(case.model, tensor), expected, rtol=1e-5)


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
    again = kernel_rounding(
        case.model, case.tensors, case.text, 128, 1, Journal(journal.path.parent, "kernel")
    )
    assert again == found


def test_experts(tmp_path, case):
    model = read_model(tiny_moe(tmp_path / "moe.gguf"))
    tensors = tuple(t for t in quantize.quantizable(model) if t.experts > 1 or t.name == "output.weight")
    found = kernel_rounding(model, tensors, case.text, 128, 1, Journal(tmp_path, "kernel"))
    assert set(found.relative) == {tensor.name for tensor in tensors}
    assert all(1e-6 < by_feed[Q8_0] < 1e-3 for by_feed in found.relative.values())


@pytest.mark.tools
def test_it_explains_what_a_swap_does_not_see(case, priced, tmp_path):
    """A Q8_0 file loses more than Q8_0 weights in an F16 model do: the kernels' part accounts for it."""
    from quantplan.analyze.scoring import base_rows, divergence
    from quantplan.llamacpp.quantize import Recipe
    from quantplan.quant_type import BY_NAME

    path = tmp_path / "q8_0.gguf"
    quantize.quantize(case.model.path, Recipe("Q8_0", pure=True), path, threads=1)
    kind, rows = BY_NAME["Q8_0"], priced[0].table.rows
    with (
        Engine(case.model.path, EngineOptions(128, 1, swappable=True)) as engine,
        Engine(path, EngineOptions(128, 1)) as file,
    ):
        windows = engine.windows(case.text)[:16]
        base = base_rows(next(engine.logits(windows)))
        whole = divergence(base, next(file.logits(windows))).mean()
        engine.find_weights({tensor.name for tensor in case.tensors})
        for tensor in case.tensors:
            rounded = ggml.dequantize(
                ggml.quantize(tensor_rows(case.model, tensor), kind), kind, tensor.columns
            )
            engine.put(tensor.name, ggml.quantize(rounded, tensor.type))
        weights = divergence(base, next(engine.logits(windows))).mean()
    predicted = sum(rows[tensor.name].kernel["Q8_0"] for tensor in case.tensors)
    assert whole > 1.1 * weights
    assert 0.5 < predicted / (whole - weights) < 2
