"""From damages and wishes to one type for each tensor, within the budget to the byte."""

import itertools

import pytest
from model_parts import model_of

from quantplan.budget import Budget
from quantplan.damage import DamageRow, DamageTable
from quantplan.errors import BudgetImpossible, NothingSelected
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.selector import Selector
from quantplan.solve.planner import Wishes, allowed, check_budget, fixed_bytes, solve_within, tensor_groups
from quantplan.tensor import padded

MODEL = model_of(
    {"token_embd.weight": (256, 40), "norm.weight": (250,)}
    | {
        f"blk.{block}.{role}.weight": shape
        for block in (0, 1)
        for role, shape in (("attn_v", (256, 7)), ("ffn_down", (288, 9)))
    }
)
TENSORS = tuple(tensor for tensor in MODEL.tensors if tensor.name != "norm.weight")
TYPES = parse_types("k,Q8_0")
CANDIDATES = {t.name: TYPES if t.columns == 256 else parse_types("Q8_0,Q5_1,Q5_0,Q4_0") for t in TENSORS}


def wishes(pins=(), floors=()):
    def parsed(pairs):
        return tuple((Selector(selector), BY_NAME[kind]) for selector, kind in pairs)

    return Wishes(parsed(pins), parsed(floors))


def left(pins=(), floors=()):
    found = allowed(TENSORS, CANDIDATES, wishes(pins, floors))
    return {name: [kind.name for kind in kinds] for name, kinds in found.items()}


def table(scales=None):
    rows = {}
    for index, tensor in enumerate(TENSORS):
        scale = (scales or {}).get(tensor.name, 1 + index)
        rows[tensor.name] = DamageRow(
            tensor.name, {kind.name: scale * 4**-kind.bits for kind in CANDIDATES[tensor.name]}
        )
    return DamageTable(MODEL.digest, rows)


# -- pins and floors


def test_without_wishes_everything_is_left():
    assert left() == {name: [kind.name for kind in kinds] for name, kinds in CANDIDATES.items()}


def test_floors():
    found = left(floors=[("attn_v", "Q4_K"), ("blk.1.attn_v", "Q6_K")])
    assert found["blk.0.attn_v.weight"] == ["Q8_0", "Q6_K", "Q5_K", "Q4_K"]
    assert found["blk.1.attn_v.weight"] == ["Q8_0", "Q6_K"]
    assert found["token_embd.weight"] == [kind.name for kind in TYPES]


def test_a_floor_is_met_by_the_fallback_of_its_type():
    """Q4_K is stored as Q5_0 in rows of 288: the floor is what llama-quantize would make of it."""
    assert left(floors=[("ffn_down", "Q4_K")])["blk.0.ffn_down.weight"] == ["Q8_0", "Q5_1", "Q5_0"]


def test_a_floor_above_all_types():
    with pytest.raises(
        NothingSelected, match=r"--min attn_v=F16: no allowed type has so many bits for blk.0.attn_v.weight"
    ):
        left(floors=[("attn_v", "F16")])


def test_pins_are_exact_the_last_one_counts_and_they_override_floors():
    found = left(pins=[("attn_v", "Q2_K"), ("/^blk.1/", "Q4_K")], floors=[("attn_v", "Q6_K")])
    assert found["blk.0.attn_v.weight"] == ["Q2_K"]
    assert found["blk.1.attn_v.weight"] == ["Q4_K"]
    assert found["blk.1.ffn_down.weight"] == ["Q5_0"]


@pytest.mark.parametrize("wish", [{"pins": [("attn_w", "Q4_K")]}, {"floors": [("norm", "Q4_K")]}])
def test_a_selector_that_matches_nothing(wish):
    with pytest.raises(NothingSelected, match="no quantizable tensor matches"):
        left(**wish)


# -- groups and sizes


def test_groups_have_padded_sizes_and_damages():
    groups = tensor_groups(TENSORS, CANDIDATES, table())
    assert [group.name for group in groups] == [tensor.name for tensor in TENSORS]
    choices = {choice.label: choice for choice in groups[1].choices}
    assert choices["Q4_K"].bytes == padded(7 * 144) == 1024 != 7 * 144
    assert choices["Q4_K"].damage == pytest.approx(2 * 4**-4.5)


def test_types_without_damage_are_no_choice():
    only = {name: (BY_NAME["Q4_K"], BY_NAME["IQ4_XS"]) for name in ("blk.0.attn_v.weight", "blk.1.attn_v.weight")}
    tensors = [MODEL.by_name[name] for name in only]
    groups = tensor_groups(tuple(tensors), only, table())
    assert [[choice.label for choice in group.choices] for group in groups] == [["Q4_K"], ["Q4_K"]]
    with pytest.raises(
        NothingSelected,
        match=r"blk.0.attn_v.weight: the damage table has no value for IQ4_XS \(it has Q8_0, Q6_K",
    ):
        tensor_groups(tuple(tensors), dict.fromkeys(only, (BY_NAME["IQ4_XS"],)), table())


def test_fixed_bytes_are_those_of_copied_tensors():
    assert fixed_bytes(MODEL, TENSORS, 1000) == 1000 + padded(250 * 2)


# -- solving


def exhaustive(groups, room):
    """(damage, bytes) of the best of all plans."""
    plans = itertools.product(*(group.choices for group in groups))
    sums = ((sum(c.damage for c in plan), sum(c.bytes for c in plan)) for plan in plans)
    return min(pair for pair in sums if pair[1] <= room)


@pytest.mark.parametrize("size", [8_532, 9_000, 10_000, 12_345, 15_000])
@pytest.mark.parametrize("upside_down", [False, True])
def test_plans_are_exact_and_within_the_budget(size, upside_down):
    scales = {tensor.name: 2.0**-index for index, tensor in enumerate(TENSORS)} if upside_down else None
    groups, fixed = tensor_groups(TENSORS, CANDIDATES, table(scales)), fixed_bytes(MODEL, TENSORS, 500)
    solution, _ = solve_within(MODEL, groups, fixed, Budget(size, str(size)))
    taken = [group.choices[index] for group, index in zip(groups, solution.choices, strict=True)]
    assert fixed + sum(choice.bytes for choice in taken) <= size
    assert sum(choice.damage for choice in taken) == pytest.approx(exhaustive(groups, size - fixed)[0], rel=1e-5)
    assert solution.outcome.status == "optimal" and solution.outcome.gap <= 1e-6


def test_more_than_enough():
    groups = tensor_groups(TENSORS, CANDIDATES, table())
    solution, everything = solve_within(MODEL, groups, 0, Budget(10**9, "1GB"))
    assert everything and {group.choices[i].label for group, i in zip(groups, solution.choices, strict=True)} == {
        "Q8_0"
    }
    largest = sum(max(choice.bytes for choice in group.choices) for group in groups)
    assert solve_within(MODEL, groups, 100, Budget(largest + 100, "x"))[1]
    assert not solve_within(MODEL, groups, 100, Budget(largest + 99, "x"))[1]


def test_the_smallest_file_is_named_and_exists():
    groups = tensor_groups(TENSORS, CANDIDATES, table())
    with pytest.raises(
        BudgetImpossible,
        match="no file of 5kB .5,000 bytes. exists for model with these types: the smallest has",
    ) as caught:
        solve_within(MODEL, groups, 1000, Budget(5000, "5kB"))
    smallest = caught.value.smallest
    assert f"{smallest:,} bytes" in str(caught.value)
    solution, _ = solve_within(MODEL, groups, 1000, Budget(smallest, "exactly"))
    assert {group.choices[i].label for group, i in zip(groups, solution.choices, strict=True)} == {
        "Q2_K",
        "Q4_0",
    }
    with pytest.raises(BudgetImpossible):
        solve_within(MODEL, groups, 1000, Budget(smallest - 1, "a byte less"))
    with pytest.raises(BudgetImpossible):
        solve_within(MODEL, groups, 1000, Budget(10, "less than the header"))


def test_check_budget():
    check_budget(MODEL, Budget(100, "x"), 100)
    with pytest.raises(BudgetImpossible):
        check_budget(MODEL, Budget(99, "x"), 100)
