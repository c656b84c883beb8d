from dataclasses import replace

import pytest
from model_parts import model_of

from quantplan.errors import BadFile, ModelMismatch, NotAsPlanned
from quantplan.plan import ImatrixUse, Outcome, Plan, PlannedTensor
from quantplan.quant_type import BY_NAME
from quantplan.records.formats import PLANS

SHAPES = {f"blk.{block}.attn_v.weight": (256, 64) for block in range(8)}
SOURCE = model_of(SHAPES)
Q4_K, Q6_K = BY_NAME["Q4_K"], BY_NAME["Q6_K"]


def plan_of(kind=Q4_K, **fields):
    tensors = tuple(PlannedTensor(tensor.name, kind, tensor.bytes_as(kind), True) for tensor in SOURCE.tensors)
    size = sum(tensor.bytes for tensor in tensors)
    return Plan("model.gguf", "model", SOURCE.digest, tensors, "Q4_K_S", 1000, size + 1000, **fields)


def built(kind, file_bytes, **changed):
    model = model_of(SHAPES, kind.name, file_bytes=file_bytes)
    tensors = tuple(
        replace(tensor, type=BY_NAME[changed.get(tensor.name, tensor.type.name)]) for tensor in model.tensors
    )
    return replace(model, tensors=tensors)


def test_figures():
    plan = plan_of()
    assert plan.tensor_bytes == 8 * 64 * 144
    assert plan.bits_per_weight(SOURCE) == 4.5
    assert set(plan.types.values()) == {Q4_K}


def test_belongs_to_one_model():
    plan_of().check_belongs_to(SOURCE)
    with pytest.raises(ModelMismatch, match="made for model .digest digest-of-mo.*plan again"):
        plan_of().check_belongs_to(replace(SOURCE, digest="another"))


def test_built_as_planned():
    plan = plan_of()
    plan.check_built(built(Q4_K, plan.file_bytes))
    with pytest.raises(NotAsPlanned, match=r"the file has 75,000 bytes, the plan says 74,728"):
        plan.check_built(built(Q4_K, 75_000))


def test_built_otherwise():
    plan = plan_of()
    with pytest.raises(NotAsPlanned, match="not as planned: blk.3.attn_v.weight is Q6_K, planned Q4_K;"):
        plan.check_built(built(Q4_K, plan.file_bytes, **{"blk.3.attn_v.weight": "Q6_K"}))
    with pytest.raises(NotAsPlanned, match="8 tensors are not as planned.* and 3 more"):
        plan.check_built(built(Q6_K, plan.file_bytes))


def test_built_with_a_tensor_too_many_or_too_few():
    plan = plan_of()
    more = model_of(SHAPES | {"blk.0.attn_k.weight": (256, 64)}, "Q4_K", file_bytes=plan.file_bytes)
    with pytest.raises(NotAsPlanned, match="blk.0.attn_k.weight is not in the plan"):
        plan.check_built(more)
    fewer = model_of({name: shape for name, shape in SHAPES.items() if ".7." not in name}, "Q4_K")
    with pytest.raises(NotAsPlanned, match="blk.7.attn_v.weight is missing, planned Q4_K"):
        plan.check_built(fewer)


def test_file_round_trip(tmp_path):
    imatrix = ImatrixUse("im/i.gguf", "d", None, 8, 10)
    plan = plan_of(
        budget_bytes=80_000,
        budget_asked="80kB",
        imatrix=imatrix,
        predicted_kld=0.01,
        predicted_kld_err=0.001,
        calibrated=True,
        outcome=Outcome("optimal", 0.01, 0.01, 0.0, 0.1),
        layer_types=((0, "Q4_K_M"),),
        flags="--x",
        made_from={"quantplan": "0"},
    )
    PLANS.write(plan, tmp_path / "plan.json")
    assert PLANS.read(tmp_path / "plan.json") == plan


def test_what_is_no_number_becomes_null(tmp_path):
    plan = plan_of(predicted_kld=float("nan"), outcome=Outcome("feasible", 1.0, float("-inf"), float("inf")))
    PLANS.write(plan, tmp_path / "plan.json")
    read = PLANS.read(tmp_path / "plan.json")
    assert (read.predicted_kld, read.outcome.bound, read.outcome.gap) == (None, None, None)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('"version": 4', '"version": 9', "version 9 of quantplan-plan is unknown"),
        ("quantplan-plan", "quantplan-damage", "a quantplan-plan file is needed"),
        ("blk.1.", "blk.0.", "a tensor is named twice"),
        ('"rule"', '"role"', "damaged plan"),
        ('"outcome"', '"result"', "damaged plan"),
    ],
)
def test_damaged_files(tmp_path, old, new, message):
    path = tmp_path / "plan.json"
    PLANS.write(plan_of(), path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BadFile, match=message):
        PLANS.read(path)
    path.write_text(path.read_text()[:300])
    with pytest.raises(BadFile, match="not JSON"):
        PLANS.read(path)
