"""The bookkeeping of refinement on made-up windows, and plans inside a trust region on a small real table."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.quant_type import BY_NAME, parse_types, quant_type
from quantplan.run import refine
from quantplan.run.correction import Correction
from quantplan.run.refine import Refinement, Scored, after, moved_share, significantly_better
from quantplan.selector import Selector
from quantplan.solver.constraints import Constraints

COMMON = np.random.default_rng(0).lognormal(-5, 0.5, 128)
FACTORS = Correction(4.0, {}, {}, {}, {})


def scored(name, learning=1.0, testing=1.0, noise=0.03, seed=1):
    """A file that loses so many times the common windows' KLD, on those that teach and those that test."""
    klds = COMMON * np.random.default_rng(seed).lognormal(0, noise, len(COMMON))
    klds[::2] *= learning
    klds[1::2] *= testing
    kind = BY_NAME["Q4_K"]
    tensors = (SimpleNamespace(name="t", type=kind, bytes=144, rule=True),)
    return Scored(name, SimpleNamespace(types={"t": name}, encodings={"t": name}, tensors=tensors), tuple(klds))


PLAN = scored("plan")


def test_a_plan_that_leads_on_both_halves_counts():
    state = after(Refinement((PLAN,)), scored("new", 0.95, 0.95, seed=2), FACTORS)
    assert state.leader.name == "new" and state.counts and state.best.name == "new"
    assert state.steps[0].better and state.steps[0].relative == pytest.approx(-0.05, abs=0.02)
    assert state.region == refine.REGION


def test_a_plan_that_only_learnt_its_chunks_does_not_count():
    """The trap of FACTS: better where it was chosen, worse on text of its own."""
    state = after(Refinement((PLAN,)), scored("new", 0.9, 1.02, seed=2), FACTORS)
    assert state.leader.name == "new" and state.steps[0].better
    assert not state.counts and state.best is PLAN
    assert state.test.difference > 0


def test_a_gain_inside_the_noise_does_not_count():
    state = after(Refinement((PLAN,)), scored("new", 0.95, 0.999, noise=0.1, seed=2), FACTORS)
    assert state.leader.name == "new" and not state.counts and state.best is PLAN


def test_the_half_that_tests_does_not_choose():
    worse = scored("learnt", 0.9, 1.1, seed=2)
    better = scored("tested", 0.95, 0.8, seed=3)
    state = Refinement((PLAN, worse, better))
    assert state.leader is worse and state.best is PLAN


def test_rounds_without_a_better_plan_shrink_the_region():
    state = after(Refinement((PLAN,)), scored("new", 1.1, 0.5, seed=2), FACTORS)
    assert state.leader is PLAN and state.test is None and state.best is PLAN
    assert state.region == refine.REGION / 2
    assert after(state, None, FACTORS).region == refine.REGION / 4


def test_chance_alone_counts_seldom():
    """Plans that are no better, the best of five chosen on the one half: at most about one in twenty counts."""
    random = np.random.default_rng(0)
    counted = 0
    for _ in range(200):
        klds = COMMON * random.lognormal(0, 0.1, (6, len(COMMON)))
        own = tuple(replace(PLAN, name=str(at), klds=tuple(each)) for at, each in enumerate(klds))
        counted += Refinement(own).counts
    assert counted <= 20


def test_a_mix_gives_way_only_to_what_is_surely_better():
    stock_quant = scored("mix", seed=5)
    assert significantly_better(scored("plan", 0.9, 0.9), stock_quant)
    assert not significantly_better(scored("plan", 0.999, 0.999, noise=0.1), stock_quant)
    assert not significantly_better(scored("plan", 1.2, 1.2), stock_quant)
    same = scored("mix", 1.2, 1.2)
    assert significantly_better(same, stock_quant), "the very same types"
    otherwise = replace(same, plan=SimpleNamespace(types={"t": "mix"}, encodings={"t": "mix compensated"}))
    assert not significantly_better(otherwise, stock_quant), "the same types, rounded otherwise"


# -- on a real table


@pytest.fixture(scope="module")
def request_(case):
    return PlanRequest(case.model, case.imatrix, parse_types("k,Q8_0"), "5.2bpw")


def test_nearby_moves_no_more_than_the_region(case, priced, request_):
    table = priced[0].table
    plan, _ = plan_for(request_, table)
    other = refine.sampled(replace(table, rows={n: replace(r, relative_error=1.0) for n, r in table.rows.items()}), 1)
    free, _ = plan_for(request_, other)
    assert moved_share(plan, free) > 0.06
    for region in (0.02, 0.05):
        near = refine.nearby(request_, other, plan, region)
        assert moved_share(plan, near) <= region
        assert near.file_bytes <= near.budget_bytes == plan.budget_bytes
        assert not near.limits and "weights" not in " ".join(near.outcome.prices)
    assert refine.nearby(request_, other, plan, 1.0).types == free.types
    assert refine.nearby(request_, table, plan, 0.1).types == plan.types


def test_nearby_keeps_wishes(case, priced, request_):
    constraints = Constraints(pins=((Selector("blk.0.attn_v"), quant_type("Q8_0")),), ties=("gate-up",))
    pinned = replace(request_, constraints=constraints)
    plan, _ = plan_for(pinned, priced[0].table)
    near = refine.nearby(pinned, refine.sampled(priced[0].table, 3), plan, 0.3)
    assert near.types["blk.0.attn_v.weight"].name == "Q8_0"
    for block in (0, 1):
        assert near.types[f"blk.{block}.ffn_gate.weight"] == near.types[f"blk.{block}.ffn_up.weight"]


def test_neighbours_are_other_plans_of_the_same_request(case, priced, request_):
    table = priced[0].table
    plan, _ = plan_for(request_, table)
    found = refine.neighbours(request_, table, plan)
    again = refine.neighbours(request_, table, plan)
    assert {name: each.types for name, each in found.items()} == {name: each.types for name, each in again.items()}
    for name, other in found.items():
        assert other.types != plan.types and other.file_bytes <= plan.budget_bytes
        if name.startswith("sample"):
            assert moved_share(plan, other) <= refine.REGION
    families = {
        kind.family for name, kind in found["without legacy"].types.items() if case.model.by_name[name].columns == 256
    }
    assert "legacy" not in families and "k" in families


def test_where_nothing_else_can_be_planned_there_is_no_neighbour(case, priced):
    request = PlanRequest(case.model, case.imatrix, parse_types("Q4_K,Q8_0"), "99%")
    plan, _ = plan_for(request, priced[0].table)
    assert refine.neighbours(request, priced[0].table, plan) == {}
