from dataclasses import replace
from pathlib import Path

import pytest

from quantplan.errors import ModelMismatch
from quantplan.plan import Plan, PlannedTensor
from quantplan.planning.difference import difference
from quantplan.planning.tensor_types import TensorTypes, check_same_model
from quantplan.quant_type import BY_NAME
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor

SHAPES = {"norm": (256,), "a": (256, 8), "b": (256, 16)}


def tensors(**types):
    return tuple(Tensor(name, shape, BY_NAME[types.get(name, "F32")]) for name, shape in SHAPES.items())


def gguf(name="file.gguf", **types):
    model = Model((Path(name),), "test", name, 1, tensors(**types), 1000, "digest of the file")
    each = {one.name: one for one in model.tensors}
    sizes = {name: one.bytes for name, one in each.items()}
    return TensorTypes(Path(name), {name: one.type for name, one in each.items()}, sizes, 1000, model=model)


def planned(name="plan.json", digest="x", **types):
    made = tuple(PlannedTensor(each.name, each.type, each.bytes, each.name in types) for each in tensors(**types))
    plan = Plan("model.gguf", "model", digest, made, "Q4_K_S", 10, 2000)
    return TensorTypes(Path(name), plan.types, {each.name: each.bytes for each in made}, 2000, plan=plan)


TABLE = SensitivityTable(
    "x",
    {
        "a": SensitivityRow("a", {"Q4_K": 0.5, "Q6_K": 0.125}, {"Q4_K": 0.25}),
        "b": SensitivityRow("b", {"Q4_K": 2.0, "Q6_K": 1.0}),
    },
)


def test_types_bytes_and_damage():
    found = difference(planned(a="Q4_K", b="Q6_K"), gguf(a="Q6_K", b="Q6_K"), TABLE)
    (line,) = found.changed
    assert (line.tensor, line.types, line.bytes, line.damage) == ("a", ("Q4_K", "Q6_K"), (1152, 1680), (0.75, 0.125))
    assert [each.damage for each in found.lines if each.tensor == "norm"] == [(0.0, 0.0)]
    assert found.file_bytes == (2000, 1000) and [kld for kld, _ in found.kld] == [1.75, 1.125]


def test_a_type_that_the_table_does_not_know_is_not_zero():
    found = difference(gguf(a="Q5_K", b="Q6_K"), gguf(a="Q4_K", b="Q6_K"), TABLE)
    assert found.changed[0].damage == (None, 0.75)
    assert found.kld[0] is None and found.kld[1][0] == 1.75


def test_what_a_plan_copies_costs_nothing():
    found = difference(planned(b="Q6_K"), planned(a="Q4_K", b="Q6_K"), TABLE)
    assert found.changed[0].damage == (0.0, 0.75) and found.kld[0][0] == 1.0


def test_without_a_table_nothing_is_known():
    found = difference(gguf(a="Q5_K"), gguf(a="Q4_K"))
    assert found.changed[0].damage == (None, None) and found.kld == (None, None)


def test_plans_of_different_models():
    with pytest.raises(ModelMismatch, match="plans of different models do not compare"):
        check_same_model(planned(), planned(digest="y"))


def test_the_table_of_another_model():
    with pytest.raises(ModelMismatch, match="made for another model"):
        difference(planned(), gguf(), replace(TABLE, model_digest="z"))
    others = {name: SensitivityRow(name, {}) for name in ("a", "c", "d")}
    with pytest.raises(ModelMismatch, match="rows for 2 tensors that are not in file.gguf"):
        difference(gguf(), gguf(), replace(TABLE, rows=others))


def test_other_tensors_and_other_shapes(monkeypatch):
    one, plan = gguf(a="Q4_K"), planned(a="Q4_K")
    monkeypatch.setitem(SHAPES, "a", (256, 9))
    for pair in ((one, gguf(a="Q4_K")), (plan, gguf(a="Q4_K")), (gguf(a="Q6_K"), plan), (plan, planned(a="Q4_K"))):
        with pytest.raises(ModelMismatch, match="a has another shape"):
            check_same_model(*pair)
    for name in "cdefg":
        monkeypatch.setitem(SHAPES, name, (256,))
    with pytest.raises(ModelMismatch, match="3 tensors in common .*has c,"):
        check_same_model(one, gguf(a="Q4_K"))


def test_what_only_one_file_has_is_a_line():
    """A published file without the block that predicts further tokens, or with a table that converters add."""
    whole = gguf(a="Q4_K", b="Q6_K")
    model = replace(whole.model, tensors=tuple(each for each in whole.model.tensors if each.name != "b"))
    types, sizes = ({n: x for n, x in each.items() if n != "b"} for each in (whole.types, whole.bytes))
    lacking = replace(whole, model=model, types=types, bytes=sizes)
    for pair, types, sizes in ((whole, lacking), ("Q6_K", ""), (3360, 0)), ((lacking, whole), ("", "Q6_K"), (0, 3360)):
        found = difference(*pair, TABLE)
        (line,) = found.changed
        assert (line.tensor, line.types, line.bytes) == ("b", types, sizes)
        assert None in line.damage and all(kld is not None for kld in found.kld)
