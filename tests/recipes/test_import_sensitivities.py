"""Damage tables from published measurements."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from model_parts import model_of

from quantplan.errors import BadFile, BadUsage, ModelMismatch, NothingSelected
from quantplan.recipes.import_sensitivities import ImportTarget, sensitivity_table
from quantplan.recipes.published_sensitivities import Published, read_published
from quantplan.records.formats import SENSITIVITY_TABLES

BENCH = Path(__file__).resolve().parents[3] / "shared" / "solver-bench"
SHAPES = {f"blk.{block}.{role}.weight": (256, 8) for block in range(4) for role in ("attn_k", "attn_v")} | {
    "output.weight": (96, 64)
}
MODEL = model_of(SHAPES, blocks=4)
TARGET = ImportTarget(MODEL, MODEL.tensors)
CURVE = {"q2_K": 0.9, "q4_0": 0.07, "iq4_nl": 0.0, "iq4_kt": 0.07, "q8_0": 0.001, "bf16": 0.0}


def published(without=(), **fields):
    values = {name: 0.01 * (index + 1) for index, name in enumerate(SHAPES) if name not in without}
    return Published(
        **({"sensitivity": values, "curve": CURVE, "labels": tuple(CURVE), "degraded_to": "iq1_kt"} | fields)
    )


def test_sensitivity_times_curve_in_types_that_fit():
    imported = sensitivity_table(published(), TARGET)
    rows = imported.table.rows
    assert rows["blk.0.attn_k.weight"].weights == {
        "Q2_K": pytest.approx(0.01 * 0.9),
        "Q4_0": pytest.approx(0.01 * 0.07),
        "Q8_0": pytest.approx(0.01 * 0.001),
        "BF16": 0,
    }
    assert rows["output.weight"].weights.keys() == {"Q4_0", "Q8_0", "BF16"}  # rows of 96
    assert imported.table.model_digest == MODEL.digest
    assert (rows["output.weight"].source, imported.table.calibrated) == ("imported", False)
    assert "1 types that llama.cpp does not have were left out: iq4_kt" in imported.warnings
    assert "the curve is 0 at iq4_nl" in imported.warnings[1]
    kld, error = imported.table.predict({"blk.0.attn_k.weight": "Q2_K"})
    assert error == pytest.approx(kld)  # the level is known to a factor of two


def test_labels_that_were_stored_otherwise_are_no_choice():
    imported = sensitivity_table(published(otherwise={"blk.1.attn_v.weight": frozenset({"q2_K"})}))
    assert "Q2_K" not in imported.table.rows["blk.1.attn_v.weight"].weights
    assert imported.table.model_digest == ""
    with pytest.raises(NothingSelected, match="blk.1.attn_v.weight can be stored as none"):
        sensitivity_table(published(otherwise={"blk.1.attn_v.weight": frozenset(CURVE)}))
    with pytest.raises(NothingSelected, match="none of the 1 types"):
        sensitivity_table(published(labels=("iq4_kt",)))


def test_a_measurement_of_several_is_counted_once():
    pair = ("blk.0.attn_k.weight", "blk.0.attn_v.weight")
    together = published(sensitivity=dict.fromkeys(SHAPES, 0.03), together=(pair,))
    rows = sensitivity_table(together, TARGET).table.rows
    assert sum(rows[name].weights["Q2_K"] for name in pair) == pytest.approx(0.03 * 0.9)
    assert rows["output.weight"].weights["Q8_0"] == pytest.approx(0.03 * 0.001)
    whole = sensitivity_table(together, TARGET, split=False)
    assert whole.table.rows[pair[0]].weights["Q2_K"] == pytest.approx(0.03 * 0.9)
    assert whole.table.made_from["measured_together"] == "1 groups, each value counted by every tensor"


def test_holes_are_named_and_filled_only_when_asked():
    holes = ("blk.2.attn_v.weight", "output.weight")
    with pytest.raises(
        BadUsage, match=r"no measurement of blk.2.attn_v.weight, output.weight \(2 tensors\).*--fill role"
    ):
        sensitivity_table(published(without=holes), TARGET)
    with pytest.raises(BadUsage, match="cannot fill output.weight: no tensor of its role"):
        sensitivity_table(published(without=holes), TARGET, fill="role")
    imported = sensitivity_table(published(without=holes), TARGET, fill="max")
    row = imported.table.rows["blk.2.attn_v.weight"]
    assert row.weights["Q2_K"] == pytest.approx(0.9 * math.sqrt(0.04 * 0.08))  # blocks 1 and 3
    assert (row.source, row.relative_error) == ("borrowed", 1.0)
    assert imported.table.rows["output.weight"].weights["Q8_0"] == pytest.approx(0.001 * 0.08)  # the largest there is
    assert imported.table.made_from["filled"] == list(holes)
    assert "2 tensors without a measurement borrow one" in imported.warnings[-1]
    with pytest.raises(BadUsage, match="blk.2.attn_v.weight"):
        sensitivity_table(
            published(without=holes[:1], unmeasured=holes[:1])
        )  # without a model, what the file itself names


def test_another_models_measurements():
    other = published(sensitivity={f"blk.{block}.ffn_up_exps.weight": 0.1 for block in range(9)})
    with pytest.raises(ModelMismatch, match="does not have 9 of the 9 tensors that were measured"):
        sensitivity_table(other, TARGET)
    with pytest.raises(ModelMismatch, match=r"output.weight has shape \(96, 64\) .* \(96, 65\)"):
        sensitivity_table(published(shapes={"output.weight": (96, 65)}), TARGET)
    more = published(sensitivity=published().sensitivity | {"blk.9.nextn.weight": 0.1})
    imported = sensitivity_table(more, TARGET)
    assert imported.table.model_digest == "" and "1 tensors of the table are not in the model" in imported.warnings[0]


@pytest.mark.skipif(not BENCH.is_dir(), reason=f"published measurements are not at {BENCH}")
@pytest.mark.parametrize(
    ("model", "tensors", "types"),
    [("Qwen3-4B-Instruct-2507", 253, 19), ("GLM-4.5-Air", 472, 15), ("DeepSeek-V3.1-Terminus", 725, 8)],
)
def test_published_models(model, tensors, types, tmp_path):
    imported = sensitivity_table(read_published(BENCH / f"{model}.json"), fill="max")
    assert len(imported.table.rows) == tensors
    assert len({kind for row in imported.table.rows.values() for kind in row.weights}) == types
    SENSITIVITY_TABLES.write(imported.table, tmp_path / "d.json")
    assert SENSITIVITY_TABLES.read(tmp_path / "d.json") == imported.table


def test_blocks_that_are_not_run_cost_nothing():
    """The last block predicts further tokens: it was not measured, llama.cpp does not load it."""
    model = replace(MODEL, metadata={"qwen3.nextn_predict_layers": 1})
    last = tuple(f"blk.3.attn_{role}.weight" for role in "kv")
    imported = sensitivity_table(published(without=last), ImportTarget(model, model.tensors))
    rows = imported.table.rows
    assert {*rows[last[0]].weights.values(), *rows[last[1]].weights.values()} == {0.0}
    assert rows["blk.2.attn_k.weight"].weights["Q2_K"] > 0


def test_without_a_model_a_block_with_a_nextn_part_costs_nothing():
    more = published(
        sensitivity=published().sensitivity | {"blk.9.attn_k.weight": 0.003}, unmeasured=("blk.9.nextn.eh_proj.weight",)
    )
    rows = sensitivity_table(more, fill="max").table.rows
    assert {*rows["blk.9.attn_k.weight"].weights.values(), *rows["blk.9.nextn.eh_proj.weight"].weights.values()} == {
        0.0
    }


def test_a_table_of_perplexities_is_refused():
    values = {name: 4.7 + 0.01 * index for index, name in enumerate(SHAPES)}
    with pytest.raises(BadFile, match="look like perplexities"):
        sensitivity_table(published(sensitivity=values), TARGET)
    with pytest.raises(BadFile, match="the curve is 4.501 at q8_0"):
        sensitivity_table(published(curve={"q2_K": 6.9, "q4_0": 4.6, "q8_0": 4.501}), TARGET)
