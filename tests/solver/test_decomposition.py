"""Groups that share no limit are planned by themselves, and the whole is as good as any plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_problems import optimum, plans, random_problem

from quantplan.errors import BudgetImpossible
from quantplan.solver.problem import Resource
from quantplan.solver.program import part_of, parts, solve


def on_two_devices(seed, budget=False):
    """Each group on one of two devices with a limit each; the bytes of all are limited too, or not."""
    base, rng = random_problem(seed), np.random.default_rng(seed)
    device = rng.integers(0, 2, len(base.groups)).tolist()
    resources = []
    for name in (0, 1):
        use = tuple(
            tuple(choice.bytes if at == name else 0 for choice in group.choices)
            for group, at in zip(base.groups, device, strict=True)
        )
        least, most = sum(map(min, use)), sum(map(max, use))
        resources.append(Resource(f"device {name}", int(rng.integers(least, most + 1)), use))
    return replace(
        base, resources=tuple(resources), budget_bytes=base.budget_bytes if budget else base.largest_bytes
    ), device


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_against_every_plan(seed, budget):
    task, _ = on_two_devices(seed, budget)
    if not plans(task):
        with pytest.raises(BudgetImpossible):
            solve(task)
        return
    found = solve(task)
    assert task.fits(found.choices) and task.damage(found.choices) == pytest.approx(optimum(task), rel=1e-6, abs=1e-12)
    assert found.outcome.bound <= optimum(task) * (1 + 1e-12) and found.outcome.status == "optimal"


def test_devices_fall_apart_and_a_budget_joins_them():
    for seed in range(40):
        task, device = on_two_devices(seed)
        for groups in parts(task):
            users = {device[group] for group in groups if len({c.bytes for c in task.groups[group].choices}) > 1}
            binding = {at for at in users if sum(map(max, task.resources[at].use)) > task.resources[at].limit}
            assert len(binding) <= 1
        assert sorted(group for groups in parts(task) for group in groups) == list(range(len(task.groups)))


def test_a_part_keeps_what_the_others_leave():
    task, _ = on_two_devices(3)
    part = part_of(task, [0])
    others = sum(min(choice.bytes for choice in group.choices) for group in task.groups[1:])
    assert part.budget_bytes == task.budget_bytes - others and part.groups == task.groups[:1]
