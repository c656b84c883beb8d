from dataclasses import replace
from pathlib import Path

import pytest

from quantplan.plan import Plan, PlannedTensor, RoundingUse
from quantplan.planning.difference import difference
from quantplan.planning.rounding_gain import RoundingGain, rounding_gains
from quantplan.planning.score import score
from quantplan.planning.tensor_types import TensorTypes
from quantplan.quant_type import BY_NAME
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable

TABLE = SensitivityTable(
    "x",
    {
        "a": SensitivityRow("a", {"Q4_K": 0.5, "Q6_K": 0.125}, {"Q4_K": 0.25}, stock={"Q4_K": 1.0}),
        "b": SensitivityRow("b", {"Q4_K": 2.0, "Q6_K": 1.0}, stock={"Q4_K": 4.0}),
        "c": SensitivityRow("c", {"Q4_K": 0.25, "Q8_0": 0.125}, stock={"Q4_K": 0.5}),
    },
)


def planned(compensated=("a", "b"), **types):
    kinds = {"norm": "F32", "a": "Q4_K", "b": "Q4_K", "c": "Q8_0"} | types
    tensors = tuple(PlannedTensor(name, BY_NAME[kind], 100, name != "norm") for name, kind in kinds.items())
    plan = Plan("model.gguf", "model", "x", tensors, "Q4_K_S", 10, 2000, predicted_kld=2.875, predicted_kld_err=0.575)
    plan = plan.with_compensation(compensated, RoundingUse("t", 512, 128))
    return replace(plan, stock_rounding_kld=5.375) if compensated else plan


def stored(plan, name="plan.json"):
    return TensorTypes(Path(name), plan.types, {each.name: each.bytes for each in plan.tensors}, 2000, plan=plan)


def test_the_largest_gain_comes_first():
    assert rounding_gains(planned(), TABLE) == (
        RoundingGain("b", "Q4_K", 2.0, 4.0),
        RoundingGain("a", "Q4_K", 0.75, 1.25),
    )
    assert rounding_gains(planned(compensated=()), TABLE) == ()


def test_a_file_is_scored_by_its_own_rounding():
    """A stock quant has the types of a plan, not its rounding."""
    assert score(planned(), TABLE)[0] == 0.75 + 2.0 + 0.125
    assert score(planned().with_stock_rounding(), TABLE)[0] == 1.25 + 4.0 + 0.125
    assert score(planned(compensated=("a",)), TABLE)[0] == 0.75 + 4.0 + 0.125


def test_the_plan_with_stock_rounding_expects_its_own_kld():
    plan = planned().with_stock_rounding()
    assert plan.compensated == () and plan.rounding is None and plan.stock_rounding_kld is None
    assert (plan.predicted_kld, plan.predicted_kld_err) == (5.375, pytest.approx(0.2 * 5.375))
    unknown = replace(planned(), stock_rounding_kld=None).with_stock_rounding()
    assert (unknown.predicted_kld, unknown.predicted_kld_err) == (None, None)


def test_plans_that_differ_in_rounding_alone():
    found = difference(stored(planned()), stored(planned().with_stock_rounding()), TABLE)
    assert [line.tensor for line in found.changed] == ["a", "b"]
    assert [line.compensated for line in found.changed] == [(True, False)] * 2
    assert [line.damage for line in found.changed] == [(0.75, 1.25), (2.0, 4.0)]
    assert [kld for kld, _ in found.kld] == [2.875, 5.375]


def test_a_gguf_does_not_tell_its_rounding():
    gguf = replace(stored(planned()), plan=None)
    found = difference(stored(planned()), gguf, TABLE)
    assert found.changed == () and found.lines[1].compensated == (True, None)
    assert found.lines[1].damage == (0.75, 1.25), "taken for llama-quantize's"
