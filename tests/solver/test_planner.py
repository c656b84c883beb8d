"""From damages and wishes to one type for each tensor, within the budget to the byte."""

import itertools

import pytest
from model_parts import model_of

from quantplan.budget import Budget
from quantplan.errors import BadUsage, BudgetImpossible, NothingSelected
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solver.constraints import Constraints
from quantplan.solver.grouping import tensor_groups
from quantplan.solver.planner import Goal, check_budget, fixed_bytes, formulate, solve_formulation
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


def table(scales=None):
    rows = {}
    for index, tensor in enumerate(TENSORS):
        scale = (scales or {}).get(tensor.name, 1 + index)
        rows[tensor.name] = SensitivityRow(
            tensor.name, {kind.name: scale * 4**-kind.bits for kind in CANDIDATES[tensor.name]}
        )
    return SensitivityTable(MODEL.digest, rows)


# -- groups and sizes


def test_groups_have_padded_sizes_and_damages():
    groups = tensor_groups(TENSORS, CANDIDATES, table()).groups
    assert [group.name for group in groups] == [tensor.name for tensor in TENSORS]
    choices = {choice.label: choice for choice in groups[1].choices}
    assert choices["Q4_K"].bytes == padded(7 * 144) == 1024 != 7 * 144
    assert choices["Q4_K"].damage == pytest.approx(2 * 4**-4.5)


def test_types_without_damage_are_no_choice():
    only = {name: (BY_NAME["Q4_K"], BY_NAME["IQ4_XS"]) for name in ("blk.0.attn_v.weight", "blk.1.attn_v.weight")}
    tensors = [MODEL.by_name[name] for name in only]
    groups = tensor_groups(tuple(tensors), only, table()).groups
    assert [[choice.label for choice in group.choices] for group in groups] == [["Q4_K"], ["Q4_K"]]
    with pytest.raises(
        NothingSelected,
        match=r"blk.0.attn_v.weight: the sensitivity table has no value for IQ4_XS \(it has Q8_0, Q6_K",
    ):
        tensor_groups(tuple(tensors), dict.fromkeys(only, (BY_NAME["IQ4_XS"],)), table())


def test_fixed_bytes_are_those_of_copied_tensors():
    assert fixed_bytes(MODEL, TENSORS, 1000) == 1000 + padded(250 * 2)


# -- solving


def solved(size, fixed=0, scales=None, constraints=Constraints()):
    """(posed, taken choices, outcome) of the plan within a file of ``size`` bytes."""
    budget = Budget(size, f"{size}")
    formulation = formulate(tensor_groups(TENSORS, CANDIDATES, table(scales)), fixed, budget, constraints)
    solution = solve_formulation(MODEL, formulation, Goal(budget), table(scales))
    return formulation, list(formulation.problem.taken(solution.choices)), solution.outcome


def exhaustive(groups, room):
    """(damage, bytes) of the best of all plans."""
    plans = itertools.product(*(group.choices for group in groups))
    sums = ((sum(c.damage for c in plan), sum(c.bytes for c in plan)) for plan in plans)
    return min(pair for pair in sums if pair[1] <= room)


@pytest.mark.parametrize("size", [8_532, 9_000, 10_000, 12_345, 15_000])
@pytest.mark.parametrize("upside_down", [False, True])
def test_plans_are_exact_and_within_the_budget(size, upside_down):
    scales = {tensor.name: 2.0**-index for index, tensor in enumerate(TENSORS)} if upside_down else None
    fixed = fixed_bytes(MODEL, TENSORS, 500)
    formulation, taken, outcome = solved(size, fixed, scales)
    assert fixed + sum(choice.bytes for choice in taken) <= size
    best, _ = exhaustive(formulation.problem.groups, size - fixed)
    assert sum(choice.damage for choice in taken) == pytest.approx(best, rel=1e-5)
    assert outcome.status == "optimal" and outcome.gap <= 1e-6
    assert outcome.prices["bytes"] > 0


def test_more_than_enough():
    formulation, taken, outcome = solved(10**9)
    assert formulation.everything_fits and {choice.label for choice in taken} == {"Q8_0"}
    assert outcome.prices == {"bytes": 0.0}
    largest = sum(max(choice.bytes for choice in group.choices) for group in formulation.problem.groups)
    assert solved(largest + 100, 100)[0].everything_fits
    assert not solved(largest + 99, 100)[0].everything_fits


def test_the_smallest_file_is_named_and_exists():
    with pytest.raises(
        BudgetImpossible, match="no file of 5000 .5,000 bytes. exists for model with these types: the smallest has"
    ) as caught:
        solved(5000, 1000)
    smallest = caught.value.smallest
    assert f"{smallest:,} bytes" in str(caught.value)
    assert {choice.label for choice in solved(smallest, 1000)[1]} == {"Q2_K", "Q4_0"}
    for size in (smallest - 1, 10):
        with pytest.raises(BudgetImpossible):
            solved(size, 1000)


def test_ties_and_few_types_meet_in_one_plan():
    formulation, taken, _ = solved(14_000, constraints=Constraints(ties=("blocks=0-1",), most_types=2))
    assert len(formulation.problem.groups) == 3 and len({choice.label for choice in taken}) <= 2


def test_a_course_needs_layer_mode():
    with pytest.raises(BadUsage, match="--per layer"):
        solved(14_000, constraints=Constraints(course="monotone"))


def test_an_objective_that_does_not_exist_and_one_too_many():
    with pytest.raises(BadUsage, match="choose sum, tail, max"):
        Goal(None, "mean")
    with pytest.raises(BadUsage, match="leave --objective out"):
        Goal(None, "max", 0.01)


def test_check_budget():
    check_budget(MODEL, Budget(100, "x"), 100)
    with pytest.raises(BudgetImpossible):
        check_budget(MODEL, Budget(99, "x"), 100)
