"""Weights and cache types in one budget: the best total of all pairs, by brute force too."""

import math
from dataclasses import replace

import pytest
from tiny_models import tiny_tied

from quantplan.cache_sensitivity import CachePair, CacheSensitivity
from quantplan.cache_types import F16_CACHE, USUAL_PAIRS, kv_name, parse_kv
from quantplan.devices.limits import Devices, memory_use
from quantplan.errors import BadUsage, BudgetImpossible, ModelMismatch
from quantplan.gguf.reader import read_model
from quantplan.measurement import Estimate
from quantplan.planning.cache_choice import plan_with_cache
from quantplan.planning.request import PlanRequest, quantizable
from quantplan.planning.solving import plan_for
from quantplan.quant_type import parse_types
from quantplan.sensitivity.rows import prior_table
from quantplan.sensitivity_table import Interaction

pytestmark = pytest.mark.llamacpp
TYPES = parse_types("k,Q8_0,F16")
CTX = 8192
COSTS = {"F16": 0.0, "Q8_0": 1e-5, "Q5_1": 4e-4, "Q5_0": 7e-4, "Q4_1": 2e-3, "Q4_0": 3e-3}  # of V; K costs twice that


def given(*names, scale=1.0):
    """Made-up KLDs of these pairs, of all 36 without names."""
    pairs = [parse_kv(name) for name in names] or USUAL_PAIRS
    klds = {
        kv_name(pair): scale * (2 * COSTS[pair[0].name] + COSTS[pair[1].name]) for pair in pairs if pair != F16_CACHE
    }
    return CacheSensitivity("", 512, tuple(CachePair(name, Estimate(kld, kld / 10)) for name, kld in klds.items()))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return read_model(tiny_tied(tmp_path_factory.mktemp("tied") / "tied.gguf"))


@pytest.fixture(scope="module")
def table(model):
    return replace(prior_table(model, quantizable(model), TYPES, None), interaction=Interaction(1.25))


@pytest.fixture(scope="module")
def room(model, table):
    """A function: share -> VRAM for that share of the weights next to an F16 cache."""
    use = memory_use({}, model, Devices(None, None, CTX))
    return lambda share: use.vram - int((1 - share) * use.gpu_weights)


def asked(model, vram, **fields):
    return PlanRequest(model, None, TYPES, None, devices=Devices(vram, None, CTX), **fields)


def of_each_pair(request, table, caches):
    """Objective and plan of every pair, each planned alone."""
    plans = {}
    for pair in caches.klds:
        try:
            plans[pair] = plan_for(replace(request, devices=replace(request.devices, kv=pair)), table)[0]
        except BudgetImpossible:
            continue
    return plans


@pytest.mark.parametrize("share", [0.2, 0.35, 0.6, 1.1])
def test_no_pair_has_a_better_total(model, table, room, share):
    caches, request = given("q8_0", "q8_0,q5_1", "f16,q4_0", "q5_0,q4_1", "q4_0"), asked(model, room(share))
    plan, _ = plan_with_cache(request, table, caches)
    totals = {
        pair: alone.outcome.objective + caches.klds[pair].value / 1.25
        for pair, alone in of_each_pair(request, table, caches).items()
    }
    best = min(totals, key=totals.get)
    assert plan.cache.types == kv_name(best) and plan.outcome.objective == pytest.approx(totals[best], rel=1e-6)
    assert (
        plan.outcome.status == "optimal"
        and plan.outcome.bound <= plan.outcome.objective <= min(totals.values()) * 1.000001
    )
    assert (plan.cache.ctx, plan.cache.n_ctx, plan.cache.kld) == (CTX, 512, caches.klds[best])
    devices = replace(request.devices, kv=best)
    assert memory_use(plan.types, model, devices).vram <= request.devices.vram
    assert parse_kv(plan.made_from["wishes"]["kv"]) == best


def test_less_room_takes_smaller_caches(model, table, room):
    caches = given(scale=30)
    bits = []
    for share in (1.2, 0.5, 0.05):
        plan, _ = plan_with_cache(asked(model, room(share)), table, caches)
        bits.append(sum(quant.bits for quant in parse_kv(plan.cache.types)))
    assert bits[0] == 32 and bits == sorted(bits, reverse=True) and bits[2] < 20


def test_a_cache_that_costs_nothing_is_the_smallest(model, table, room):
    plan, _ = plan_with_cache(asked(model, room(0.3)), table, given(scale=0.0))
    assert plan.cache.types == "q4_0"


@pytest.mark.parametrize("objective", ["tail", "max"])
def test_other_objectives(model, table, room, objective):
    caches, request = given("q8_0", "q4_0"), asked(model, room(0.35), objective=objective)
    plan, _ = plan_with_cache(request, table, caches)
    join = math.hypot if objective == "tail" else max
    totals = [
        join(alone.outcome.objective, caches.klds[pair].value / 1.25)
        for pair, alone in of_each_pair(request, table, caches).items()
    ]
    assert plan.outcome.objective == pytest.approx(min(totals), rel=1e-6) and plan.outcome.minimised == objective


def test_a_limit_on_the_kld_holds_for_both(model, table, room):
    caches, request = given("q8_0", "q4_0", scale=0.1), asked(model, room(1.1), most_kld=0.02)
    plan, _ = plan_with_cache(request, table, caches)
    assert plan.predicted_kld + plan.cache.kld.value <= 0.02 * (1 + 1e-6)
    sizes = [
        plan_for(replace(request, most_kld=0.02 - caches.klds[pair].value), table)[0].file_bytes for pair in caches.klds
    ]
    assert plan.file_bytes == min(sizes)
    with pytest.raises(BudgetImpossible, match="KV cache alone costs a KLD"):
        plan_with_cache(asked(model, room(0.0), most_kld=1e-9), table, given("q4_0"))


def test_what_cannot_be(model, table, room):
    with pytest.raises(BudgetImpossible, match="smallest types take|leaves no room"):
        plan_with_cache(asked(model, 100_000), table, given("q4_0"))
    with pytest.raises(BadUsage, match="give --vram"):
        plan_with_cache(PlanRequest(model, None, TYPES, "50%"), table, given("q4_0"))
    with pytest.raises(ModelMismatch, match="another model"):
        plan_with_cache(asked(model, room(1)), table, replace(given("q4_0"), model_digest="0" * 64))
