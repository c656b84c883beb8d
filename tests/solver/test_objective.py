"""Tail and maximum of damage, and the smallest file at a given KLD, against trying every plan."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from model_parts import model_of
from small_problems import plans, random_problem, with_resource

from quantplan.errors import BudgetImpossible
from quantplan.quant_type import BY_NAME
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable
from quantplan.solver.grouping import tensor_groups
from quantplan.solver.objective import minimise, smallest_within
from quantplan.solver.problem import Distinct, Problem


def damages(task, plan):
    return [choice.damage for choice in task.taken(plan)]


@pytest.mark.parametrize("seed", range(40))
def test_tail(seed):
    task = random_problem(seed)
    best = min(math.sqrt(sum(each**2 for each in damages(task, plan))) for plan in plans(task))
    found = minimise(task, "tail")
    assert math.hypot(*damages(task, found.choices)) == pytest.approx(best, rel=1e-6, abs=1e-12)
    assert found.outcome.objective == pytest.approx(best, rel=1e-6, abs=1e-12)
    assert found.outcome.bound <= best * (1 + 1e-9) and found.outcome.minimised == "tail"


@pytest.mark.parametrize("resources", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_maximum_and_then_the_sum(seed, resources):
    task = with_resource(random_problem(seed), seed) if resources else random_problem(seed)
    if not plans(task):
        with pytest.raises(BudgetImpossible):
            minimise(task, "max")
        return
    best = min((max(damages(task, plan)), sum(damages(task, plan))) for plan in plans(task))
    found = minimise(task, "max")
    assert task.fits(found.choices)
    assert max(damages(task, found.choices)) == best[0] == found.outcome.objective
    assert sum(damages(task, found.choices)) == pytest.approx(best[1], rel=1e-6, abs=1e-12)


def test_maximum_with_few_types():
    for seed in range(20):
        task = random_problem(seed)
        task = replace(task, distinct=Distinct(2, tuple(range(len(task.groups)))))
        if plans(task):
            best = min(max(damages(task, plan)) for plan in plans(task))
            assert max(damages(task, minimise(task, "max").choices)) == best
        else:
            with pytest.raises(BudgetImpossible):
                minimise(task, "max")


# -- a target

KINDS = tuple(BY_NAME[name] for name in ("Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q8_0"))


def formulation(seed, interaction):
    rng = np.random.default_rng(seed)
    model = model_of(
        {f"blk.{block}.ffn_up.weight": (256, int(rows)) for block, rows in enumerate(rng.integers(8, 40, 5))}
    )
    rows = {
        tensor.name: SensitivityRow(
            tensor.name,
            {kind.name: float(rng.lognormal(-2, 0.5) * 3**-kind.bits) for kind in KINDS},
            {kind.name: float(rng.random() * 1e-4) for kind in KINDS},
        )
        for tensor in model.tensors
    }
    table = SensitivityTable(model.digest, rows, interaction)
    grouping = tensor_groups(model.tensors, {tensor.name: KINDS for tensor in model.tensors}, table)
    task = Problem(grouping.groups, 0)
    return replace(task, budget_bytes=task.largest_bytes), grouping, table


def predicted(grouping, table, plan):
    return table.predict({name: kind.name for name, kind in grouping.types(plan).items()})[0]


@pytest.mark.parametrize(
    "interaction", [Interaction(), Interaction(0.9, 2.0), Interaction(1.1, 40.0), Interaction(1.0, -0.5)]
)
@pytest.mark.parametrize("seed", range(8))
def test_the_smallest_file_of_a_given_kld(seed, interaction):
    task, grouping, table = formulation(seed, interaction)
    every = [(predicted(grouping, table, plan), task.bytes(plan)) for plan in plans(task)]
    for share in (0.02, 0.2, 0.7):
        target = sorted(kld for kld, _ in every)[int(share * len(every))] * (1 + 1e-9)
        found = smallest_within(task, grouping, table, target)
        assert predicted(grouping, table, found.choices) <= target * (1 + 1e-9)
        best = min(size for kld, size in every if kld <= target)
        if interaction.curvature >= 0:
            assert task.bytes(found.choices) == best
        assert found.outcome.minimised == "bytes"


def test_of_plans_of_one_size_the_least_damage():
    task, grouping, table = formulation(1, Interaction())
    found = smallest_within(task, grouping, table, 0.01)
    same = [plan for plan in plans(task) if task.bytes(plan) == task.bytes(found.choices)]
    assert task.damage(found.choices) == pytest.approx(min(map(task.damage, same)), rel=1e-6)


def test_a_target_beyond_all_types():
    task, grouping, table = formulation(1, Interaction())
    least = min(predicted(grouping, table, plan) for plan in plans(task))
    with pytest.raises(BudgetImpossible, match=r"the least is .*; ask for --max-kld"):
        smallest_within(task, grouping, table, least * 0.5)
    smallest_within(task, grouping, table, least * (1 + 1e-6))


def test_a_target_within_a_budget():
    task, grouping, table = formulation(1, Interaction())
    found = smallest_within(task, grouping, table, 0.01)
    tight = replace(task, budget_bytes=task.bytes(found.choices))
    assert task.bytes(smallest_within(tight, grouping, table, 0.01).choices) == task.bytes(found.choices)
    with pytest.raises(BudgetImpossible):
        smallest_within(replace(task, budget_bytes=task.bytes(found.choices) - 1), grouping, table, 0.01)
