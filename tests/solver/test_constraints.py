"""Pins, floors, ceilings, types by selector, the safe floor, and what conflicts."""

from __future__ import annotations

import pytest
from model_parts import model_of

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.selector import Selector
from quantplan.solver.constraints import Constraints, allowed, permission, types_by_tensor

MODEL = model_of(
    {"token_embd.weight": (256, 40)}
    | {
        f"blk.{block}.{role}.weight": shape
        for block in (0, 1)
        for role, shape in (("attn_v", (256, 7)), ("ffn_down", (288, 9)), ("ffn_up_exps", (256, 8, 4)))
    }
)
TENSORS = MODEL.tensors
TYPES = parse_types("k,Q8_0")
CANDIDATES = {t.name: TYPES if t.columns == 256 else parse_types("Q8_0,Q5_1,Q5_0,Q4_0") for t in TENSORS}


def constraints(pins=(), floors=(), ceilings=(), **others):
    def parsed(pairs):
        return tuple((Selector(selector), BY_NAME[kind]) for selector, kind in pairs)

    return Constraints(parsed(pins), parsed(floors), parsed(ceilings), **others)


def left(candidates=CANDIDATES, **asked):
    found = allowed(TENSORS, candidates, constraints(**asked))
    return {name: [kind.name for kind in kinds] for name, kinds in found.left.items()}


def test_without_wishes_everything_is_left():
    assert left() == {name: [kind.name for kind in kinds] for name, kinds in CANDIDATES.items()}


def test_floors():
    found = left(floors=[("attn_v", "Q4_K"), ("blk.1.attn_v", "Q6_K")])
    assert found["blk.0.attn_v.weight"] == ["Q8_0", "Q6_K", "Q5_K", "Q4_K"]
    assert found["blk.1.attn_v.weight"] == ["Q8_0", "Q6_K"]
    assert found["token_embd.weight"] == [kind.name for kind in TYPES]


def test_ceilings():
    found = left(ceilings=[("attn_v", "Q4_K")], floors=[("attn_v", "Q3_K")])
    assert found["blk.0.attn_v.weight"] == ["Q4_K", "Q3_K"]


def test_a_floor_is_met_by_the_fallback_of_its_type():
    """Q4_K is stored as Q5_0 in rows of 288: the floor is what llama-quantize would make of it."""
    assert left(floors=[("ffn_down", "Q4_K")])["blk.0.ffn_down.weight"] == ["Q8_0", "Q5_1", "Q5_0"]


def test_a_floor_above_all_types():
    with pytest.raises(
        NothingSelected,
        match=r"--min-type attn_v=F16: nothing is left for blk.0.attn_v.weight, whose candidates are Q8_0 .8.5 bits",
    ):
        left(floors=[("attn_v", "F16")])


def test_a_floor_above_the_ceiling():
    with pytest.raises(
        NothingSelected,
        match=r"--max-type attn_v=Q3_K and --min-type attn_v=Q6_K: nothing is left|--min-type .* and --max-type",
    ):
        left(floors=[("attn_v", "Q6_K")], ceilings=[("attn_v", "Q3_K")])


def test_the_narrower_pin_counts_whatever_the_order():
    for pins in ([("attn_v", "Q2_K"), ("blk.1.attn_v", "Q4_K")], [("blk.1.attn_v", "Q4_K"), ("attn_v", "Q2_K")]):
        found = left(pins=pins)
        assert found["blk.0.attn_v.weight"] == ["Q2_K"] and found["blk.1.attn_v.weight"] == ["Q4_K"]


def test_pins_that_conflict():
    with pytest.raises(
        BadUsage, match=r"--pin attn_v=Q2_K and --pin /\^blk.1/=Q4_K conflict: both name blk.1.attn_v.weight"
    ):
        left(pins=[("attn_v", "Q2_K"), ("/^blk.1/", "Q4_K")])
    assert left(pins=[("attn_v", "Q2_K"), ("/^blk.1/", "Q2_K")])["blk.1.attn_v.weight"] == ["Q2_K"]


def test_a_pin_below_a_floor():
    with pytest.raises(
        BadUsage,
        match=r"--pin attn_v=Q2_K and --min-type attn_v=Q6_K conflict .*the nearest that both allow is --pin blk.0",
    ):
        left(pins=[("attn_v", "Q2_K")], floors=[("attn_v", "Q6_K")])
    narrower = left(pins=[("blk.0.attn_v", "Q2_K")], floors=[("attn_v", "Q6_K")])
    assert narrower["blk.0.attn_v.weight"] == ["Q2_K"] and narrower["blk.1.attn_v.weight"] == ["Q8_0", "Q6_K"]


def test_a_pin_is_what_llama_quantize_would_store():
    assert left(pins=[("/^blk.1.ffn_down/", "Q4_K")])["blk.1.ffn_down.weight"] == ["Q5_0"]


@pytest.mark.parametrize("constraint", ["pins", "floors", "ceilings"])
def test_a_selector_that_matches_nothing(constraint):
    with pytest.raises(NothingSelected, match="no quantizable tensor matches"):
        left(**{constraint: [("attn_w", "Q4_K")]})


def test_1_bit_types_are_for_experts():
    types = (*TYPES, BY_NAME["IQ1_S"], BY_NAME["IQ2_XXS"])
    candidates = {tensor.name: types for tensor in TENSORS}
    found = left(candidates)
    assert "IQ1_S" not in found["blk.0.attn_v.weight"] and "IQ2_XXS" in found["blk.0.attn_v.weight"]
    assert "IQ1_S" in found["blk.0.ffn_up_exps.weight"]
    assert "IQ1_S" in left(candidates, one_bit=True)["blk.0.attn_v.weight"]
    with pytest.raises(BadUsage, match="--pin attn_v=IQ1_S: IQ1_S has 1.5625 bits, .*--allow-1-bit"):
        left(candidates, pins=[("attn_v", "IQ1_S")])
    assert left(candidates, pins=[("attn_v", "IQ1_S")], one_bit=True)["blk.0.attn_v.weight"] == ["IQ1_S"]


def test_what_excludes_a_type_is_said():
    found = allowed(
        TENSORS, CANDIDATES, constraints(floors=[("attn_v", "Q5_K")], pins=[("token_embd", "Q6_K")])
    ).excluded
    assert found["blk.0.attn_v.weight"] == dict.fromkeys(["Q4_K", "Q3_K", "Q2_K"], "--min-type attn_v=Q5_K")
    assert found["token_embd.weight"]["Q8_0"] == "--pin token_embd=Q6_K" and "Q6_K" not in found["token_embd.weight"]
    assert found["blk.0.ffn_down.weight"] == {}


def test_types_by_selector():
    only = ((Selector("blk.*"), parse_types("k")), (Selector("attn_v"), parse_types("Q8_0")))
    for order in (only, only[::-1]):
        found = types_by_tensor(TENSORS, TYPES, Constraints(only=order))
        assert found["token_embd.weight"] == TYPES
        assert found["blk.0.ffn_down.weight"] == parse_types("k")
        assert found["blk.1.attn_v.weight"] == parse_types("Q8_0")


def test_permission():
    permits = permission(TENSORS, constraints(pins=[("attn_v", "Q6_K")], floors=[("ffn_*", "Q4_K")]))
    value, up = MODEL.by_name["blk.0.attn_v.weight"], MODEL.by_name["blk.0.ffn_up_exps.weight"]
    assert permits(value, BY_NAME["Q6_K"]) and not permits(value, BY_NAME["Q8_0"])
    assert permits(up, BY_NAME["Q4_K"]) and not permits(up, BY_NAME["Q3_K"])
