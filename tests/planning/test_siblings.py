"""A sensitivity table used for a model with the same names and shapes, and refused for any other."""

from dataclasses import replace

import pytest
from model_parts import model_of

from quantplan.errors import ModelMismatch
from quantplan.planning.siblings import SiblingOf, for_sibling, sibling_of, with_check
from quantplan.sensitivity.sibling import SiblingCheck
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable

SHAPES = {"output.weight": (256, 512), "blk.0.attn_v.weight": (256, 256)}
BASE = replace(model_of(SHAPES), digest="digest-of-base")
SIBLING = model_of(SHAPES)
ROWS = {name: SensitivityRow(name, {"Q4_K": 0.01}, stock={"Q4_K": 0.02}) for name in SHAPES}
TABLE = SensitivityTable(BASE.digest, ROWS, made_from={"model": "base.gguf", "second_moments": {}}).described(BASE)


def test_a_table_says_its_architecture_and_shapes():
    assert (TABLE.architecture, TABLE.shapes) == ("qwen3", SHAPES)


def test_the_table_of_a_sibling_notes_where_it_was_measured():
    table = for_sibling(TABLE, SIBLING, "t.json")
    assert table.model_digest == SIBLING.digest and table.rows == TABLE.rows
    assert sibling_of(table) == SiblingOf("base.gguf", "digest-of-base") and sibling_of(TABLE) is None
    again = for_sibling(table, replace(SIBLING, digest="a third"), "t.json")
    assert sibling_of(again) == SiblingOf("base.gguf", "digest-of-base")
    checked = with_check(table, SiblingCheck(()))
    assert sibling_of(checked) == sibling_of(table) and checked.made_from["sibling"]["check"]["verdict"] == "unknown"


@pytest.mark.parametrize(
    "table, message",
    [
        (
            replace(TABLE, shapes=TABLE.shapes | {"blk.0.attn_v.weight": (256, 128)}),
            r"blk.0.attn_v.weight has shape \(256, 128\) there and \(256, 256\) in model.gguf",
        ),
        (replace(TABLE, shapes={"blk.7.attn_v.weight": (256, 256)}), "blk.7.attn_v.weight is not in model.gguf"),
        (replace(TABLE, architecture="llama"), "that was a llama model, model.gguf is qwen3"),
        (replace(TABLE, shapes={}, architecture=""), "an older quantplan made it, which did not .*"),
    ],
)
def test_another_model_is_refused_by_the_first_tensor_that_differs(table, message):
    with pytest.raises(
        ModelMismatch, match=f"^t.json was made for another model .*{message}: only a table of the same"
    ):
        for_sibling(table, SIBLING, "t.json")
