"""Blocks that only predict further tokens: decided as their roles cost elsewhere, and in no expected KLD."""

from dataclasses import replace

import pytest
from model_parts import model_of

from quantplan.planning.request import PlanRequest, formulate_request
from quantplan.quant_type import parse_types
from quantplan.sensitivity.drafts import stands_for, with_draft_costs
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable

SHAPES = {
    "token_embd.weight": (256, 512),
    "output.weight": (256, 512),
    "blk.0.ssm_out.weight": (256, 256),
    "blk.0.attn_v.weight": (256, 256),
    "blk.1.attn_v.weight": (256, 256),
    "blk.1.ffn_down.weight": (256, 256),
    "blk.2.attn_v.weight": (256, 256),
    "blk.2.ssm_out.weight": (256, 256),
    "blk.2.nextn.eh_proj.weight": (512, 256),
    "blk.2.nextn.shared_head_head.weight": (256, 512),
    "blk.2.nextn.embed_tokens.weight": (256, 512),
}
MODEL = replace(model_of(SHAPES, blocks=3), metadata={"qwen3.nextn_predict_layers": 1})
COSTS = {"output.weight": 9.0, "token_embd.weight": 2.0, "blk.0.ssm_out.weight": 3.0, "blk.0.attn_v.weight": 5.0}
COSTS |= {"blk.1.attn_v.weight": 4.0, "blk.1.ffn_down.weight": 6.0}


def row(name):
    cost = COSTS.get(name, 0.0)
    weights = {"Q2_K": cost, "Q4_K": cost / 16, "Q8_0": cost / 4000}
    stock = {"Q2_K": 2 * cost} if cost else {}
    return SensitivityRow(name, weights, {"Q8_0": cost / 1000}, 0.1, "probed" if cost else "not run", stock)


TABLE = SensitivityTable(MODEL.digest, {name: row(name) for name in SHAPES})


def test_each_stands_for_its_role_in_the_last_block_that_runs():
    assert stands_for(MODEL, TABLE) == {
        "blk.2.attn_v.weight": "blk.1.attn_v.weight",
        "blk.2.ssm_out.weight": "blk.0.ssm_out.weight",
        "blk.2.nextn.eh_proj.weight": "blk.1.ffn_down.weight",
        "blk.2.nextn.shared_head_head.weight": "output.weight",
        "blk.2.nextn.embed_tokens.weight": "token_embd.weight",
    }
    tied = replace(MODEL, tensors=tuple(t for t in MODEL.tensors if t.name != "output.weight"))
    rows = {name: each for name, each in TABLE.rows.items() if name != "output.weight"}
    others = stands_for(tied, replace(TABLE, rows=rows))
    assert others["blk.2.nextn.shared_head_head.weight"] == "token_embd.weight"
    assert stands_for(replace(MODEL, metadata={}), TABLE) == {}


def test_costs_are_those_of_stock_rounding():
    priced = with_draft_costs(TABLE, MODEL).rows["blk.2.attn_v.weight"]
    assert priced.weights == {"Q2_K": 8.0, "Q4_K": 0.25, "Q8_0": 0.001} and priced.kernel == {"Q8_0": 0.004}
    assert priced.stock == {} and priced.source == "not run; as blk.1.attn_v.weight"
    plain = replace(MODEL, metadata={})
    assert with_draft_costs(TABLE, plain) is TABLE


@pytest.fixture
def quantizes_all(monkeypatch):
    """No file, so no tool can be asked."""
    matrices = lambda model: model.tensors  # noqa: E731
    for place in ("planning.request", "planning.solving"):
        monkeypatch.setattr(f"quantplan.{place}.quantizable", matrices)
    monkeypatch.setattr("quantplan.planning.request._metadata_bytes", lambda _request: 0)


def test_the_solver_sees_costs_that_no_prediction_has(quantizes_all):
    request = PlanRequest(MODEL, None, parse_types("Q2_K,Q4_K,Q8_0"), None)
    formulation = formulate_request(request, TABLE)
    at = formulation.grouping.of_tensor["blk.2.attn_v.weight"]
    damages = {choice.label: choice.damage for choice in formulation.problem.groups[at].choices}
    assert damages == {"Q2_K": 8.0, "Q4_K": 0.25, "Q8_0": pytest.approx(0.005)}
    assert TABLE.predict({"blk.2.attn_v.weight": "Q2_K"}) == (0.0, 0.0)
