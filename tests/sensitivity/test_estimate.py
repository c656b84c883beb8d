"""From a model to its damage table: what is measured, borrowed, assumed, and taken from the cache."""

import math
from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of, model_of
from model_shapes import QWEN3_8B

from quantplan.errors import BadUsage, NothingSelected, TextTooShort
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import quantize
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.sensitivity import estimate as pricing
from quantplan.sensitivity import prior
from quantplan.sensitivity import probe as probing
from quantplan.sensitivity import scales as scales_of
from quantplan.sensitivity.candidates import candidates, check_left, check_storable
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.probe import Probe, Scale
from quantplan.sensitivity.round_trip import round_trips
from quantplan.sensitivity.rows import prior_table

TYPES = parse_types("k,Q8_0,F16")


def options(case, **changed):
    return replace(SensitivityOptions(TYPES, case.options, sample_elements=1 << 16, compensate=False), **changed)


# -- a probed table


def test_every_tensor_has_a_measured_row(case, priced):
    table, found = priced[0].table, priced[0].probe
    assert set(table.rows) == {tensor.name for tensor in case.tensors}
    assert (table.model_digest, table.calibrated, table.backend) == (case.model.digest, True, "cpu")
    for name, row in table.rows.items():
        assert row.source == "probed"
        values = [row.damage(kind) for kind in sorted(row.weights, key=lambda kind: -BY_NAME[kind].bits)]
        assert values[0] == row.damage("F16") == 0.0
        assert values == sorted(values), f"{name}: fewer bits cost less"
        scale = found.scales[name]
        assert row.relative_error >= scale.stderr / scale.value > 0


def test_damage_is_scale_times_error(case, priced):
    table, found = priced[0].table, priced[0].probe
    tensor = case.model.by_name["blk.0.attn_q.weight"]
    errors = next(round_trips(case.model, [(tensor, TYPES)], case.imatrix)).errors
    for kind in ("Q2_K", "Q4_K", "Q8_0"):
        expected = found.scales[tensor.name].value * errors[kind]
        assert table.rows[tensor.name].weights[kind] == pytest.approx(expected, rel=0.02)
        assert table.rows[tensor.name].kernel[kind] > 0
    assert table.rows[tensor.name].kernel["F16"] == 0


def test_shapes_that_fall_back_are_priced_as_stored(priced):
    assert set(priced[0].table.rows["blk.0.ffn_down.weight"].weights) == {
        "F16",
        "Q8_0",
        "Q5_1",
        "Q5_0",
        "Q4_0",
    }


def test_the_uniform_swaps_are_predicted(priced):
    """The interaction is fitted on them: what it leaves is within the error that the table states."""
    table, found = priced[0].table, priced[0].probe
    for entry in found.uniform.values():
        total = sum(found.scales[name].value * error for name, error in entry["errors"].items())
        assert table.interaction.total(total) == pytest.approx(
            np.mean(entry["klds"]), rel=3 * table.interaction.relative_error
        )


def test_provenance(case, priced):
    made_from = priced[0].table.made_from
    assert made_from["imatrix"] == case.imatrix.digest
    assert (made_from["ctx"], made_from["scales"], made_from["windows"]) == (128, "probe", [16])
    assert made_from["model"] == "tied.gguf" and "llama_cpp" in made_from


def test_again_from_the_cache(case, priced, monkeypatch):
    """No weight is read, no model loaded; the table is the same to the last bit."""
    first, cache = priced

    def none(*_arguments, **_named):
        raise AssertionError("nothing should be measured")

    monkeypatch.setattr(probing, "TensorSwapper", none)
    monkeypatch.setattr(pricing, "Engine", none)
    monkeypatch.setattr("quantplan.llamacpp.ggml.quantize", none)
    again = price(case.model, case.tensors, case.imatrix, case.text, options(case), cache)
    assert again.table == first.table


def test_a_new_type_costs_a_round_trip_and_no_probe(case, priced, monkeypatch):
    monkeypatch.setattr(probing, "TensorSwapper", None)
    table = price(
        case.model, case.tensors, case.imatrix, case.text, options(case, types=parse_types("Q4_1")), priced[1]
    ).table
    assert {"Q4_1", "Q4_K"} <= set(table.rows["blk.0.attn_q.weight"].weights)


def test_another_text_or_imatrix_is_another_probe(case, priced):
    journals = {
        pricing.probe_results(case.model, imatrix, text, options(case), priced[1]).name
        for imatrix in (case.imatrix, None)
        for text in (case.text, case.text + ".")
    }
    assert len(journals) == 4
    assert pricing.probe_results(
        case.model,
        case.imatrix,
        case.text,
        options(case, probe=replace(case.options, execution=Execution(7))),
        priced[1],
    ).get("#available")


# -- tables without a probe


def test_weights_and_prior(case, tmp_path):
    done = price(case.model, case.tensors, case.imatrix, None, options(case), tmp_path)
    assert done.probe is None and not done.table.calibrated and done.table.backend == ""
    row = done.table.rows["blk.0.attn_q.weight"]
    tensor = case.model.by_name["blk.0.attn_q.weight"]
    assert (row.source, row.relative_error, row.kernel) == ("prior", prior.RELATIVE_ERROR, {})
    errors = next(round_trips(case.model, [(tensor, TYPES)], case.imatrix)).errors
    assert row.weights["Q3_K"] == pytest.approx(prior.scale(case.model, tensor) * errors["Q3_K"], rel=0.02)


@pytest.mark.llamacpp
def test_shapes_alone(tmp_path):
    """A model of 16 GB of which only the header exists."""
    model = read_model(QWEN3_8B.write(tmp_path / "8b.gguf"))
    tensors = quantize.quantizable(model)
    table = prior_table(model, tensors, parse_types("all"), None)
    assert not table.calibrated and set(table.rows) == {tensor.name for tensor in tensors}
    row = table.rows["blk.7.ffn_down.weight"]
    assert "IQ2_XXS" not in row.weights and "IQ3_S" in row.weights
    values = [row.weights[kind] for kind in ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")]
    assert values == sorted(values) and values[0] > 0
    assert table.rows["output.weight"].weights["Q4_K"] > 10 * row.weights["Q4_K"]


def test_prior_scales():
    names = (
        "token_embd.weight",
        "output.weight",
        "blk.3.attn_v.weight",
        "blk.3.attn_k.weight",
        "blk.3.odd.weight",
        "blk.3.attn_qkv.weight",
    )
    model = model_of(dict.fromkeys(names, (256, 8)), blocks=20)
    scale = {name: prior.scale(model, model.by_name[name]) for name in names}
    assert (
        scale["output.weight"]
        > scale["token_embd.weight"]
        > scale["blk.3.attn_v.weight"]
        > scale["blk.3.attn_k.weight"]
        > 0
    )
    assert scale["blk.3.attn_qkv.weight"] > scale["blk.3.attn_k.weight"]
    tied = model_of({"token_embd.weight": (256, 8)})
    assert prior.scale(tied, tied.tensors[0]) == scale["output.weight"]
    shallow = replace(model, blocks=10)
    assert prior.scale(shallow, shallow.by_name["blk.3.attn_v.weight"]) == 2 * scale["blk.3.attn_v.weight"]


def test_prior_errors_fall_with_bits():
    errors = [
        prior.error(BY_NAME[name])
        for name in ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ2_XXS", "IQ1_S")
    ]
    assert errors == sorted(errors)
    assert 0.01 < prior.error(BY_NAME["TQ2_0"]) < 1 and 0 < prior.error(BY_NAME["MXFP4"]) < 0.02


# -- borrowing and adding up


def found_with(values, **uniform):
    scales = {name: Scale(name, value, 1.0, value, 0.05 * value, 16) for name, value in values.items()}
    return Probe(scales=scales, uniform=uniform)


def test_borrowed_from_the_nearest_blocks_of_the_role():
    names = [f"blk.{block}.{role}.weight" for block in (0, 4, 5, 9) for role in ("attn_v", "ffn_up")]
    model = model_of(dict.fromkeys([*names, "output.weight"], (256, 8)), blocks=10)
    values = {
        "blk.0.attn_v.weight": 1.0,
        "blk.4.attn_v.weight": 0.1,
        "blk.9.attn_v.weight": 0.4,
        "blk.4.ffn_up.weight": 7.0,
    }
    prices = scales_of.all_scales(model, model.tensors, found_with(values))
    lent = prices["blk.5.attn_v.weight"]
    assert (lent.value, lent.source) == (pytest.approx(math.sqrt(0.1 * 0.4)), "borrowed")
    assert lent.relative_error == pytest.approx(np.log([0.1, 0.4]).std())
    only = prices["blk.9.ffn_up.weight"]
    assert (only.value, only.relative_error) == (pytest.approx(7.0), 1.0)
    assert prices["output.weight"].value == pytest.approx(np.exp(np.mean(np.log(list(values.values())))))
    own = prices["blk.0.attn_v.weight"]
    assert (own.value, own.relative_error, own.source) == (1.0, pytest.approx(0.05), "probed")


def test_nothing_to_borrow_from():
    model = model_of({"blk.0.attn_v.weight": (256, 8)})
    price_ = scales_of.all_scales(model, model.tensors, Probe())["blk.0.attn_v.weight"]
    assert (price_.value, price_.source) == (prior.scale(model, model.tensors[0]), "prior")


def uniform_entry(total, factor, curvature):
    """All singles sum to ``total`` (scales 1 and 2); every window has the KLD that the law gives."""
    return {
        "klds": [factor * total * (1 + curvature * total)] * 16,
        "errors": {"a": total / 3, "b": total / 3},
    }


@pytest.mark.parametrize("factor, curvature", [(0.9, 1.4), (1.1, 0.0), (0.8, 6.0)])
def test_the_interaction_is_recovered(factor, curvature):
    entries = {str(total): uniform_entry(total, factor, curvature) for total in (0.02, 0.08, 0.3)}
    scales = {"a": scales_of.TensorScale(1.0, 0.05, "probed"), "b": scales_of.TensorScale(2.0, 0.05, "probed")}
    found = scales_of.interaction(Probe(uniform=entries), scales)
    assert found.factor == pytest.approx(factor, rel=1e-6)
    assert found.curvature == pytest.approx(curvature, abs=1e-6)
    assert found.relative_error == pytest.approx(scales_of.LEAST_INTERACTION_ERROR)


def test_no_negative_curvature_and_no_fit_to_one_point():
    scales = {"a": scales_of.TensorScale(1.0, 0.05, "probed"), "b": scales_of.TensorScale(2.0, 0.05, "probed")}
    entries = {str(total): uniform_entry(total, 1.0, -1.0) for total in (0.02, 0.1, 0.3)}
    found = scales_of.interaction(Probe(uniform=entries), scales)
    assert found.curvature == 0 and 0.7 < found.factor < 1 and found.relative_error > 0.05
    single = scales_of.interaction(Probe(uniform={"Q4_K": entries["0.1"]}), scales)
    assert (single.factor, single.curvature) == (1.0, 0.0)


# -- refusals before anything is measured


@pytest.mark.parametrize("has_imatrix", [True, False])
def test_types_that_a_tensor_cannot_take(has_imatrix):
    model = model_of({"blk.0.attn_v.weight": (256, 8), "blk.0.attn_k.weight": (256, 8)}, "Q4_K")
    imatrix = imatrix_of({"blk.0.attn_k.weight": np.ones((1, 256))}) if has_imatrix else None
    tensor = model.by_name["blk.0.attn_v.weight"]
    check_left(tensor, parse_types("Q8_0,Q4_K"), imatrix)
    with pytest.raises(NothingSelected, match="cannot be stored as Q8_0, Q6_K: they are larger than Q4_K"):
        check_left(tensor, parse_types("Q8_0,Q6_K"), imatrix)
    reason = "model.imatrix has none for it" if has_imatrix else "they need an imatrix; make one with"
    with pytest.raises(NothingSelected, match=reason):
        check_left(tensor, parse_types("IQ2_XXS"), imatrix)
    full = model_of({"blk.0.attn_v.weight": (256, 8)}).by_name["blk.0.attn_v.weight"]
    with pytest.raises(NothingSelected, match=reason):
        check_storable(full, parse_types("IQ2_XXS"), None if imatrix is None else imatrix)


@pytest.mark.parametrize(
    ("stored", "columns", "types", "expected"),
    [
        ("MXFP4", 288, "k,legacy,F16", ["MXFP4"]),  # every other type that fits these rows is larger
        ("MXFP4", 256, "Q8_0", ["MXFP4"]),
        ("Q4_K", 256, "Q8_0,Q3_K", ["Q4_K", "Q3_K"]),
        ("BF16", 256, "Q8_0,F16", ["BF16", "F16", "Q8_0"]),
        ("F16", 256, "Q8_0", ["Q8_0"]),  # no float type was asked for
        ("F32", 256, "Q8_0,F16", ["F16", "Q8_0"]),
    ],
)
def test_the_stored_type_is_a_candidate_without_damage(stored, columns, types, expected):
    model = model_of({"blk.0.ffn_up_exps.weight": (columns, 8, 4)}, stored)
    tensor = model.tensors[0]
    assert [kind.name for kind in candidates(tensor, parse_types(types), None)] == expected
    check_storable(tensor, parse_types(types), None)
    row = prior_table(model, model.tensors, parse_types(types), None).rows[tensor.name]
    assert row.weights.get(stored, 0.0) == 0.0 and (len(row.weights) == 1 or max(row.weights.values()) > 0)


def test_what_is_not_run_costs_nothing():
    """Blocks that predict further tokens, and vision tensors: neither borrowed, nor assumed, nor the largest of the model."""
    shapes = {f"blk.{block}.attn_q.weight": (256, 256) for block in range(3)} | {"v.blk.0.attn_q.weight": (256, 256)}
    model = replace(model_of(shapes, blocks=3), metadata={"qwen3.nextn_predict_layers": 1})
    found = found_with({"blk.0.attn_q.weight": 0.2, "blk.1.attn_q.weight": 0.3})
    scales = scales_of.all_scales(model, model.tensors, found)
    assert [scales[name].source for name in shapes] == ["probed", "probed", "not run", "not run"]
    assert [scales[name].value > 0 for name in shapes] == [True, True, False, False]
    table = prior_table(model, model.tensors, parse_types("k"), None)
    assert [max(table.rows[name].weights.values()) > 0 for name in shapes] == [True, True, False, False]


def test_a_short_text_is_found_before_the_round_trip(case, tmp_path):
    with pytest.raises(TextTooShort):
        price(case.model, case.tensors, case.imatrix, "a few words", options(case), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_weights_no_measurement(case, tmp_path):
    with pytest.raises(BadUsage, match="--sensitivity prior for a first sketch"):
        price(replace(case.model, header_only=True), case.tensors, None, None, options(case), tmp_path)
