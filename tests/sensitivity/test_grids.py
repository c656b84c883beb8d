"""Weights that were quantized before: they lie on a grid, which says nothing of what their tensor costs."""

import shutil

import numpy as np
import pytest
from model_parts import model_of
from reporters import Recorder

from quantplan.execution import Execution
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.llamacpp import quantize
from quantplan.llamacpp.quantize import Recipe
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.records.cache import Cache, Plain
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.grids import grid_note, lossless_types
from quantplan.sensitivity.probe import Probe, probe
from quantplan.sensitivity.probe_types import LEAST_ERROR, MOST_ERROR, probe_types
from quantplan.sensitivity.scales import all_scales, interaction
from quantplan.sensitivity.swap_scale import Scale
from quantplan.sensitivity.tensor_swap import ProbeOptions, TensorSwapper

NAMES = ("blk.0.attn_v.weight", "blk.1.ffn_down.weight", "blk.1.attn_k.weight")


@pytest.mark.parametrize(
    ("stored", "columns", "names"),
    [
        ("F16", 256, ["Q4_K", "IQ4_XS", "Q3_K", "Q5_K", "Q2_K"]),
        ("F16", 288, ["Q5_0", "IQ4_NL", "Q4_0", "Q5_1"]),
        ("Q4_K", 256, ["Q3_K", "IQ4_XS", "Q2_K"]),
    ],
)
def test_what_may_take_the_place_of_the_probes_type(stored, columns, names):
    assert [kind.name for kind in probe_types(BY_NAME[stored], columns)] == names


@pytest.fixture(scope="module")
def dequantized(case, tmp_path_factory):
    """``case``'s model through Q4_K (Q5_0 where rows are no multiple of 256) and back to F16."""
    folder = tmp_path_factory.mktemp("grid")
    quantize.quantize(case.model.path, Recipe("Q4_K_S", pure=True), folder / "q.gguf", threads=1)
    quantize.quantize(folder / "q.gguf", Recipe("F16", allow_requantize=True), folder / "again.gguf", threads=1)
    return read_model(folder / "again.gguf")


@pytest.mark.llamacpp
def test_scales_are_those_of_the_original(case, dequantized, tmp_path):
    options = ProbeOptions(n_ctx=128, chunks=16, extend=False, execution=Execution(1))
    scales = {}
    for model in (case.model, dequantized):
        tensors = tuple(model.by_name[name] for name in NAMES)
        results = Cache(Plain(), tmp_path, f"probe-{model.digest[:8]}")
        scales[model] = probe(model, tensors, case.imatrix, case.text, options, results).scales
    for name in NAMES:
        before, after = scales[case.model][name], scales[dequantized][name]
        assert LEAST_ERROR < after.error < MOST_ERROR
        assert 0.5 < after.value / before.value < 2, name


@pytest.mark.llamacpp
def test_noise_takes_over_where_every_type_is_lossless(case, dequantized, monkeypatch):
    monkeypatch.setattr("quantplan.sensitivity.tensor_swap.probe_types", lambda _stored, _columns: (BY_NAME["Q4_K"],))
    tensor = dequantized.by_name["blk.0.attn_v.weight"]
    with TensorSwapper(dequantized, None, case.text, case.options) as swapper:
        swapper.find([tensor])
        assert swapper.probe_type(tensor) is None
        assert swapper.disturb(tensor) == pytest.approx(5e-3, rel=0.05)


@pytest.mark.llamacpp
def test_the_loudest_type_is_the_coarsest_that_prices(case):
    tensor = case.model.by_name["blk.0.attn_v.weight"]
    with TensorSwapper(case.model, None, case.text, case.options) as swapper:
        swapper.find([tensor])
        assert swapper.probe_type(tensor).name == "Q4_K" and swapper.probe_type(tensor, loud=True).name == "Q2_K"


@pytest.mark.llamacpp
def test_a_person_is_told_which_types_are_lossless(dequantized, tmp_path):
    options = SensitivityOptions(parse_types("k,legacy"), ProbeOptions(128), sample_elements=1 << 14)
    report = Recorder()
    table = price(dequantized, quantize.quantizable(dequantized), None, None, options, tmp_path, report).table
    found = table.made_from["lossless"]
    assert found["blk.0.attn_v.weight"] == "Q4_K" and found["blk.1.ffn_down.weight"] == "Q5_0"
    assert any("lie on the grid of a quantized type" in line and "Q4_K (" in line for line in report.said)
    assert table.rows["blk.0.attn_v.weight"].weights["Q3_K"] > 0


def test_lossless_types_are_the_smallest_and_zeros_are_none():
    model = model_of(
        {"blk.0.attn_q.weight": (256, 256), "blk.0.attn_k.weight": (256, 256), "blk.0.attn_v.weight": (256, 256)}
    )
    errors = {
        "blk.0.attn_q.weight": {"F16": 0.0, "Q6_K": 2e-9, "Q4_K": 4e-8, "Q3_K": 0.02},
        "blk.0.attn_k.weight": {"F16": 0.0, "Q6_K": 3e-4, "Q4_K": 4e-3, "Q3_K": 0.02},
        "blk.0.attn_v.weight": {"F16": 0.0, "Q6_K": 0.0, "Q4_K": 0.0, "Q3_K": 0.0},
    }
    assert lossless_types(model, errors) == {"blk.0.attn_q.weight": "Q4_K"}
    assert "1 of 3 tensors" in grid_note({"blk.0.attn_q.weight": "Q4_K"}, 3)
    assert grid_note({}, 3) is None


def test_a_uniform_swap_that_hits_the_grid_says_nothing():
    found = Probe({"a": Scale("a", 1e-3, 5e-3, 0.2, 0.01, 8)}, floor=1.5e-7)
    found.uniform = {
        "Q4_K": {"klds": [2e-7] * 8, "errors": {"a": 4e-8}},
        "Q3_K": {"klds": [0.0044] * 8, "errors": {"a": 0.02}},
        "Q2_K": {"klds": [0.0176] * 8, "errors": {"a": 0.08}},
    }
    fitted = interaction(
        found, all_scales(model_of({"a": (256, 256)}), (model_of({"a": (256, 256)}).by_name["a"],), found)
    )
    assert fitted.factor == pytest.approx(1.1)


@pytest.mark.llamacpp
def test_tensors_of_zeros_cost_nothing(case, tmp_path):
    """A block that does nothing yet, as block expansion adds it: attn_output and ffn_down are zero."""
    path = shutil.copyfile(case.model.path, tmp_path / "grown.gguf")
    names = ("blk.1.attn_output.weight", "blk.1.ffn_down.weight")
    with path.open("r+b") as file:
        for name in names:
            file.seek(case.model.by_name[name].offset)
            file.write(bytes(case.model.by_name[name].bytes))
    model = read_model(path)
    assert not tensor_rows(model, model.by_name[names[0]]).any()
    tensors = tuple(model.by_name[name] for name in (*names, "blk.0.attn_v.weight"))
    options = SensitivityOptions(parse_types("Q3_K,Q4_K"), case.options, sample_elements=1 << 14)
    table = price(model, tensors, None, case.text, options, tmp_path / "cache").table
    for name in names:
        assert set(table.rows[name].weights.values()) == {0.0}
    assert min(table.rows["blk.0.attn_v.weight"].weights.values()) > 0 and np.isfinite(table.interaction.factor)
