from dataclasses import replace
from pathlib import Path

import record_parts
from report_parts import made_up, made_up_data

from quantplan.planning.rounding_gain import RoundingGain
from quantplan.report.commands import Commands
from quantplan.report.page_data import page_data
from quantplan.report.rounding import plan_rounding, rounding_fields, rounding_table, rounding_words, rules_note

PLAN = record_parts.PLAN
NOTE = (
    "the rules rebuild the types, not the compensated rounding of 1 tensor; `quantplan quantize` builds both"  # of PLAN
)


def test_words():
    assert plan_rounding(PLAN) == (
        "error-compensated for 1 of 2 tensors: expected KLD 0.0125, 0.02 with llama-quantize's rounding of the same types"
    )
    assert rules_note(1) == NOTE
    assert plan_rounding(PLAN.with_stock_rounding()) == rules_note(0) == ""
    assert rounding_words(3, 4, 0.1, None) == "error-compensated for 3 of 4 tensors", "no gain that is not known"


def test_fields():
    gain = RoundingGain("blk.0.attn_v.weight", "IQ4_XS", 0.25, 0.5)
    found = rounding_fields(PLAN, [gain])
    assert found == {
        "compensated": 1,
        "predicted_kld": 0.0125,
        "stock_rounding_kld": 0.02,
        "note": NOTE,
        "tensors": [{"name": gain.tensor, "type": "IQ4_XS", "damage": 0.25, "stock_damage": 0.5}],
    }
    assert rounding_fields(PLAN)["tensors"] == [{"name": gain.tensor, "type": "IQ4_XS"}]
    assert rounding_fields(PLAN.with_stock_rounding()) is None
    assert rounding_table([gain]).rows == ((gain.tensor, "IQ4_XS", "0.25", "0.5", "0.25"),)


def compensated_table(table):
    """Q4_K of every tensor of made-up data costs half of what ggml's rounding does."""
    rows = {
        name: replace(row, weights=row.weights | {"Q4_K": row.weights["Q4_K"] / 2}, stock={"Q4_K": row.weights["Q4_K"]})
        for name, row in table.rows.items()
    }
    return replace(table, rows=rows)


def test_the_report_page_has_both_roundings():
    data = made_up()
    plan = replace(data.plans[1], compensated=2, kld=0.5, stock_rounding_kld=0.75)
    data = replace(data, table=compensated_table(data.table), plans=(data.plans[0], plan), opens_at=1)
    page = page_data(data, Commands(["quantplan", "solve"], Path("plans"), "made-up"), "quantplan report", "now")
    q4 = [kind["name"] for kind in page["types"]].index("Q4_K")
    assert all(row[q4] is not None and sum(map(bool, row)) == 1 for row in page["stock_damage"])
    for ours, stock in zip(page["damage"], page["stock_damage"], strict=True):
        assert abs(ours[q4] / stock[q4] - 0.5) < 1e-3
    assert [each["rounding"] and each["rounding"]["compensated"] for each in page["plans"]] == [None, 2]
    assert page["plans"][1]["rounding"]["words"].endswith(
        "expected KLD 0.5, 0.75 with llama-quantize's rounding of the same types"
    )
    assert page["plans"][1]["rounding"]["note"] == rules_note(2)
    assert made_up_data()["stock_damage"] is None
