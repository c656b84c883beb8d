"""Tensors that share a type: which are joined, what their group can be, and the best plan against every plan."""

from __future__ import annotations

import itertools

import pytest
from model_parts import model_of

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import parse_types
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solver.grouping import joined, tensor_groups
from quantplan.solver.problem import Problem
from quantplan.solver.program import solve
from quantplan.solver.ties import tied_groups

SHAPES = {
    "attn_q": (256, 16),
    "attn_k": (256, 8),
    "attn_v": (256, 8),
    "ffn_gate": (256, 32),
    "ffn_up": (256, 32),
    "ffn_down": (288, 16),
}
MODEL = model_of(
    {"token_embd.weight": (256, 40), "output.weight": (256, 40)}
    | {f"blk.{block}.{role}.weight": shape for block in range(4) for role, shape in SHAPES.items()}
)
TYPES = {
    t.name: parse_types("k,Q8_0") if t.columns == 256 else parse_types("Q8_0,Q5_1,Q5_0,Q4_0") for t in MODEL.tensors
}


def table():
    return SensitivityTable(
        MODEL.digest,
        {
            tensor.name: SensitivityRow(
                tensor.name, {kind.name: (1 + index % 5) * 3**-kind.bits for kind in TYPES[tensor.name]}
            )
            for index, tensor in enumerate(MODEL.tensors)
        },
    )


def grouping(names=None):
    tensors = tuple(tensor for tensor in MODEL.tensors if names is None or tensor.name in names)
    return tensor_groups(tensors, TYPES, table())


def sets(*ties, of=None):
    """The names that each tie joins."""
    whole = of or grouping()
    return {frozenset(whole.groups[index].name for index in found) for found in tied_groups(whole, ties)}


def names(block, *roles):
    return frozenset(f"blk.{block}.{role}.weight" for role in roles)


def test_named_ties():
    assert sets("qkv") == {names(block, "attn_q", "attn_k", "attn_v") for block in range(4)}
    assert sets("gate-up") == {names(block, "ffn_gate", "ffn_up") for block in range(4)}
    with pytest.raises(BadUsage, match="--tie experts: this model has no tensors for it to join; its roles are attn_k"):
        sets("experts")


def test_experts_of_a_block():
    model = model_of(
        {f"blk.{b}.ffn_{role}_exps.weight": (256, 8, 4) for b in (0, 1) for role in ("gate", "up", "down")}
    )
    rows = {t.name: SensitivityRow(t.name, {"Q4_K": 1.0}) for t in model.tensors}
    whole = tensor_groups(
        model.tensors, {t.name: parse_types("Q4_K") for t in model.tensors}, SensitivityTable("", rows)
    )
    assert sets("experts", of=whole) == {names(b, "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps") for b in (0, 1)}


def test_selectors_join_within_a_block_and_outside():
    assert sets("attn_*") == sets("qkv")
    assert sets("token_embd,output") == {frozenset({"token_embd.weight", "output.weight"})}
    with pytest.raises(NothingSelected, match="no quantizable tensor matches 'attn_w'"):
        sets("attn_q,attn_w")


def test_blocks():
    assert names(0, "attn_q") | names(1, "attn_q") in sets("blocks=2")
    assert len(sets("blocks=2")) == 2 * len(SHAPES)
    assert sets("blocks=1-3") == {frozenset(f"blk.{block}.{role}.weight" for block in (1, 2, 3)) for role in SHAPES}
    for wrong in ("blocks=x", "blocks=3-1", "blocks=0", "blocks="):
        with pytest.raises(BadUsage, match="write blocks=4 for runs of four"):
            sets(wrong)
    with pytest.raises(BadUsage, match="the model has blocks 0 to 3"):
        sets("blocks=0-9")


def test_ties_that_overlap_join_all():
    found = sets("qkv", "blocks=0-1")
    assert names(0, "attn_q", "attn_k", "attn_v") | names(1, "attn_q", "attn_k", "attn_v") in found
    assert names(2, "attn_q", "attn_k", "attn_v") in found


def test_a_joined_group_adds_up():
    whole = grouping()
    one = joined(whole, tied_groups(whole, ["qkv"]))
    at = next(at for at, members in enumerate(one.members) if members[0].name == "blk.0.attn_q.weight")
    choice = next(choice for choice in one.groups[at].choices if choice.label == "Q4_K")
    parts = [whole.groups[whole.of_tensor[f"blk.0.attn_{role}.weight"]] for role in "qkv"]
    taken = [next(choice for choice in part.choices if choice.label == "Q4_K") for part in parts]
    assert choice.bytes == sum(each.bytes for each in taken)
    assert choice.damage == pytest.approx(sum(each.damage for each in taken))
    assert sum(len(members) for members in one.members) == len(MODEL.tensors)


def test_other_shapes_have_no_type_in_common():
    tensors = tuple(MODEL.by_name[name] for name in ("blk.0.attn_q.weight", "blk.0.ffn_down.weight"))
    left = {"blk.0.attn_q.weight": parse_types("k"), "blk.0.ffn_down.weight": parse_types("Q5_0,Q4_0")}
    whole = tensor_groups(tensors, left, table())
    with pytest.raises(NothingSelected) as caught:
        joined(whole, [[0, 1]])
    said = str(caught.value)
    assert "blk.0.attn_q.weight (256 x 16) and blk.0.ffn_down.weight (288 x 16) are tied" in said
    assert "Q6_K, Q5_K, Q4_K, Q3_K, Q2_K for the first, Q5_0, Q4_0 for the second" in said
    assert "the nearest type that fits the rows of all of them is IQ4_NL: allow it, or drop the tie" in said


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_against_every_plan(share):
    some = {f"blk.{b}.attn_{role}.weight" for b in (0, 1) for role in "qkv"} | {"blk.0.ffn_gate.weight"}
    whole = grouping(some)
    task = joined(whole, tied_groups(whole, ["qkv"]))
    problem = Problem(task.groups, 0)
    room = problem.smallest_bytes + int(share * (problem.largest_bytes - problem.smallest_bytes))
    best = min(
        sum(choice.damage for choice in plan)
        for plan in itertools.product(*(group.choices for group in whole.groups))
        if sum(choice.bytes for choice in plan) <= room
        and all(
            len({plan[whole.of_tensor[f"blk.{b}.attn_{role}.weight"]].label for role in "qkv"}) == 1 for b in (0, 1)
        )
    )
    found = solve(Problem(task.groups, room))
    assert found.outcome.objective == pytest.approx(best, rel=1e-6)
    types = task.types(found.choices)
    assert all(len({types[f"blk.{b}.attn_{role}.weight"] for role in "qkv"}) == 1 for b in (0, 1))
