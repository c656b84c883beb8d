"""The frontier of a model within limits on memory, speed and KLD."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantplan.devices.limits import Devices, memory_use
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.planning.frontier import best_alternatives, model_frontier, plan_stability
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.planning.stock_quants import stock_quants
from quantplan.quant_type import parse_types

QUANTS = ("Q4_K_M", "Q8_0")


@pytest.fixture(scope="module")
def request_(case):
    return PlanRequest(case.model, None, parse_types("k,Q8_0"), None)


@pytest.fixture(scope="module")
def table(priced):
    return priced[0].table


def test_points_are_the_plans_of_their_sizes(request_, table):
    curve = model_frontier(request_, table, 5, QUANTS)
    for entry in curve.entries:
        plan, _ = plan_for(replace(request_, budget=f"{entry.budget_bytes}B"), table)
        assert entry.kld == pytest.approx(plan.predicted_kld, rel=1e-5) and entry.file_bytes <= entry.budget_bytes
    assert [quant.name for quant in curve.stock_quants] == list(QUANTS) and curve.notes == ()
    assert all(quant.ratio < 1.001 for quant in curve.stock_quants)


def test_memory_limits_the_frontier_and_marks_stock_quants(request_, table):
    model = request_.model
    plan, _ = plan_for(replace(request_, budget="40%"), table)
    nothing = Devices(None, None, 256)
    room = memory_use(plan.types, model, nothing).vram
    curve = model_frontier(replace(request_, devices=replace(nothing, vram=room)), table, 5, QUANTS)
    assert curve.entries[-1].kld == pytest.approx(plan.predicted_kld, rel=0.05)
    assert any(note.startswith("Q8_0 is shown for comparison only: needs") and "VRAM" in note for note in curve.notes)
    free = model_frontier(request_, table, 5, QUANTS)
    assert curve.entries[-1].file_bytes < free.entries[-1].file_bytes


def test_points_above_the_kld_are_left_out_and_counted(request_, table):
    free = model_frontier(request_, table, 6, QUANTS)
    most = free.entries[2].kld
    curve = model_frontier(replace(request_, most_kld=most), table, 6, QUANTS)
    assert [entry.file_bytes for entry in curve.entries] == [entry.file_bytes for entry in free.entries[2:]]
    assert any(note.startswith("2 smaller sizes") for note in curve.notes)
    with pytest.raises(BudgetImpossible, match="has a predicted KLD"):
        model_frontier(replace(request_, most_kld=1e-12), table, 3, QUANTS)


def test_one_size_keeps_the_limits_too(request_, table):
    plan, _ = plan_for(replace(request_, budget="40%"), table)
    devices = Devices(memory_use(plan.types, request_.model, Devices(None, None, 256)).vram, None, 256)
    limited = replace(request_, budget="90%", devices=devices)
    for alternative in best_alternatives(limited, table, 3, None):
        assert not devices.exceeded(memory_use(alternative.types, request_.model, devices))
    formulation, solution, _ = plan_stability(limited, table, 3)
    assert not devices.exceeded(memory_use(formulation.grouping.types(solution.choices), request_.model, devices))
    with pytest.raises(BadUsage, match="give --budget"):
        best_alternatives(request_, table, 3, None)


def test_stock_quants_that_need_an_imatrix_are_left_out_without_one(request_, table):
    quants, left_out = stock_quants(replace(request_, imatrix=None), table)
    assert quants and any(note.startswith("IQ2_XXS: ") for note in left_out)
    with pytest.raises(BadUsage, match="IQ2_XXS: "):
        stock_quants(replace(request_, imatrix=None), table, ["IQ2_XXS"])
