"""Limits of VRAM, RAM and speed: what a plan uses of them, and that no better plan keeps them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tiny_models import tiny_moe

from quantplan.budget import Budget
from quantplan.devices.limits import RAM, TIME, VRAM, Devices, default_on_cpu, memory_use, within_memory
from quantplan.devices.memory import overridden
from quantplan.devices.speed.table import BATCHES, Overhead, Speed, SpeedTable, products
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.gguf.reader import read_model
from quantplan.measurement import Estimate
from quantplan.planning.request import PlanRequest, formulate_request, quantizable
from quantplan.planning.solving import check, plan_for
from quantplan.quant_type import parse_types
from quantplan.selector import Selector
from quantplan.sensitivity.rows import prior_table

pytestmark = pytest.mark.llamacpp
TYPES = parse_types("k,Q8_0")


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    return read_model(tiny_moe(tmp_path_factory.mktemp("moe") / "moe.gguf"))


@pytest.fixture(scope="module")
def table(moe):
    return prior_table(moe, quantizable(moe), TYPES, None)


def asked(model, vram=None, ram=None, on_cpu=(), budget=None, ctx=256, **fields):
    machine = Devices(vram, ram, ctx, on_cpu=tuple(Selector(text) for text in on_cpu))
    return PlanRequest(model, None, TYPES, budget, devices=machine, **fields)


def test_a_plan_for_a_card_takes_all_of_it_and_no_more(moe, table):
    whole = memory_use(plan_for(asked(moe, 1 << 40), table)[0].types, moe, Devices(None, None, 256))
    request = asked(moe, whole.vram - whole.gpu_weights // 3)
    check(request)
    plan, everything = plan_for(request, table)
    use = memory_use(plan.types, moe, request.devices)
    assert not everything and plan.outcome.status == "optimal"
    assert use.vram <= request.devices.vram and request.devices.vram - use.vram < 0.01 * use.gpu_weights
    (limit,) = plan.limits
    copied = sum(each.bytes for each in plan.tensors if not each.rule)
    assert limit.name == VRAM and limit.used + copied == use.gpu_weights
    assert plan.outcome.prices[VRAM] > 0 and plan.outcome.prices["bytes"] == 0
    assert plan.types["token_embd.weight"].name == "Q8_0"  # in RAM it costs nothing


def test_a_longer_context_leaves_less(moe, table):
    whole = memory_use(plan_for(asked(moe, 1 << 40), table)[0].types, moe, Devices(None, None, 512))
    room = whole.vram - whole.gpu_weights // 3
    short, _ = plan_for(asked(moe, room), table)
    long, _ = plan_for(asked(moe, room, ctx=512), table)
    assert long.file_bytes < short.file_bytes and long.predicted_kld > short.predicted_kld


def test_experts_in_ram(moe, table):
    free = plan_for(asked(moe, 1 << 40, 1 << 40, ["ffn_*exps"]), table)[0]
    use = memory_use(free.types, moe, asked(moe, 1, 1, ["ffn_*exps"]).devices)
    request = asked(moe, use.vram - 400_000, use.ram - 2_000_000, ["ffn_*exps"])
    plan, _ = plan_for(request, table)
    taken = memory_use(plan.types, moe, request.devices)
    assert taken.vram <= request.devices.vram and taken.ram <= request.devices.ram
    assert {limit.name for limit in plan.limits} == {VRAM, RAM}
    names = [tensor.name for tensor in moe.tensors]
    assert overridden(",".join(plan.on_cpu), names) == {name for name in names if "_exps" in name}
    assert default_on_cpu(moe)[0].select(moe.tensors) == tuple(t for t in moe.tensors if "_exps" in t.name)


def test_the_room_for_the_largest_moved_tensor_is_part_of_the_choice(moe, table):
    """Of all sizes that the copy on the GPU can have, none gives a better plan."""
    free = plan_for(asked(moe, 1 << 40, 1 << 40, ["ffn_*exps"]), table)[0]
    use = memory_use(free.types, moe, asked(moe, 1, 1, ["ffn_*exps"]).devices)
    request = asked(moe, use.vram - 700_000, None, ["ffn_*exps"])
    plan, _ = plan_for(request, table)
    formulation = list(within_memory(formulate_request(request, table), moe, request.devices))
    assert len(formulation) > 2
    from quantplan.solver.program import solve

    objectives = []
    for each in formulation:
        try:
            objectives.append(solve(each.problem).outcome.objective)
        except BudgetImpossible:
            continue
    assert plan.outcome.objective == pytest.approx(min(objectives), rel=1e-5)
    assert memory_use(plan.types, moe, request.devices).vram <= request.devices.vram


def test_a_budget_besides(moe, table):
    request = asked(moe, 1 << 40, budget="40%")
    plan, _ = plan_for(request, table)
    assert plan.file_bytes <= Budget.parse("40%", moe).bytes


def test_what_does_not_fit(moe, table):
    with pytest.raises(BudgetImpossible, match="a context of 4,096 leaves no room for weights"):
        plan_for(asked(moe, 1000, ctx=4096), table)
    with pytest.raises(BudgetImpossible, match=r"smallest file .* or keep tensors in RAM with --on-cpu \(no context"):
        check(asked(moe, 1000, ctx=4096))
    free = plan_for(asked(moe, 1 << 40), table)[0]
    use = memory_use(free.types, moe, Devices(None, None, 256))
    with pytest.raises(BudgetImpossible, match=r"VRAM: the smallest types take .* are left for them; allow"):
        plan_for(asked(moe, use.vram - use.gpu_weights + 50_000), table)


def test_what_would_fit_is_said_and_fits(moe):
    """Before anything is measured: more VRAM, or a shorter context."""
    with pytest.raises(BudgetImpossible, match="What would fit") as refused:
        check(asked(moe, 20 << 20, ctx=32_768))
    vram, ctx = re.search(r"--vram ([\d.]+)GiB, or --serve-ctx (\d+) ", str(refused.value)).groups()
    check(asked(moe, int(float(vram) * 2**30), ctx=32_768))
    check(asked(moe, 20 << 20, ctx=int(ctx)))
    with pytest.raises(BudgetImpossible, match="What would fit"):
        check(asked(moe, 20 << 20, ctx=int(ctx) + 256))


def test_a_dense_model_has_no_default_for_ram(case):
    with pytest.raises(BadUsage, match="has no experts; say with --on-cpu SELECTOR"):
        default_on_cpu(case.model)


# -- speed


def speeds_of(model):
    """Every type takes as many nanoseconds a weight as it has bits; 1000 ns beside."""
    found = products(model, quantizable(model))
    shapes = {product.shape for product in found.values()}
    rows = tuple(
        Speed(kind.name, shape, Estimate(kind.bits, 0.1), Estimate(kind.bits / 4, 0.1), 1)
        for kind in (*TYPES, *parse_types("F16"))
        for shape in sorted(shapes)
    )
    stored = {name: model.by_name[name].type for name in found}
    overhead = dict.fromkeys(BATCHES, Overhead(1000.0, 0.0, 1.0))
    return SpeedTable("machine", "build", "CPU", 1, model.digest, model.blocks, found, rows, overhead, stored)


def test_tokens_per_second_are_kept(moe, table):
    speeds = speeds_of(moe)
    slow, _ = plan_for(PlanRequest(moe, None, TYPES, "60%"), table, speeds)
    rate = slow.predicted_tps["generation"]
    plan, _ = plan_for(PlanRequest(moe, None, TYPES, None, least_tps=rate * 1.3), table, speeds)
    assert plan.predicted_tps["generation"] >= rate * 1.3 * (1 - 1e-9)
    assert plan.predicted_tps["generation"] == pytest.approx(rate * 1.3, rel=0.01)
    assert [limit.name for limit in plan.limits] == [TIME] and plan.outcome.prices[TIME] > 0


def test_more_than_the_machine_can_do(moe, table):
    speeds = speeds_of(moe)
    with pytest.raises(
        BudgetImpossible, match="attention, norms and the rest alone take 1 us .* ask for at most 1,000,000"
    ):
        plan_for(PlanRequest(moe, None, TYPES, None, least_tps=2e6), table, speeds)
    with pytest.raises(BudgetImpossible, match="time per token: the smallest types take"):
        plan_for(PlanRequest(moe, None, TYPES, None, least_tps=9e5), table, speeds)
    with pytest.raises(BadUsage, match="needs this machine's speeds"):
        plan_for(PlanRequest(moe, None, TYPES, None, least_tps=1.0), table)


def test_speed_and_memory_together(moe, table):
    speeds = speeds_of(moe)
    request = replace(
        asked(moe, 1 << 40, 1 << 40, ["ffn_*exps"]), least_tps=speeds.tokens_per_second({}, 1).value * 2.5
    )
    plan, _ = plan_for(request, table, speeds)
    assert plan.predicted_tps["generation"] >= request.least_tps * (1 - 1e-9) and len(plan.limits) == 3
