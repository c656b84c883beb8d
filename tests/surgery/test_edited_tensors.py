"""The sources of an edited model's tensors, from the header of the reference model."""

from dataclasses import replace

import numpy as np
import pytest

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.reader import read_model, tensor_bytes, tensor_rows
from quantplan.quant_type import BY_NAME
from quantplan.surgery import encode_tensors
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.encode_tensors import check_encodable, tensor_data


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


def parts(model, text):
    return edited_tensors(model, apply_edits(model.blocks, parse_edits(text)))


def test_the_map_that_changes_nothing_is_the_original_in_its_order(model):
    found = parts(model, "swap 1 2; swap 1 2")
    assert [part.name for part in found] == [tensor.name for tensor in model.tensors]
    assert all(part.copied and part.first is model.by_name[part.name] for part in found)


def test_a_swap_takes_the_others_tensors_and_keeps_the_order_of_names(model):
    found = parts(model, "swap 3 4")
    assert [part.name for part in found] == [tensor.name for tensor in model.tensors]
    moved = {part.name: part.first.name for part in found if part.first.name != part.name}
    assert set(moved) == {tensor.name for tensor in model.tensors if tensor.block in (3, 4)}
    assert moved["blk.3.ffn_up.weight"] == "blk.4.ffn_up.weight"


def test_a_cut_model_has_no_tensor_too_many(model):
    found = parts(model, "delete 2-4")
    assert {part.block for part in found} == {None, *range(7)}
    assert len(found) == len(model.tensors) - 3 * sum(tensor.block == 0 for tensor in model.tensors)
    assert {part.first.block for part in found if part.block == 2} == {5}


def test_blocks_beyond_the_originals_stand_behind_its_last(model):
    blocks = [part.block for part in parts(model, "repeat 3-5") if part.block is not None]
    assert blocks == sorted(blocks) and set(blocks) == set(range(13))


def test_tensors_that_do_not_lie_together_stay_where_their_names_are(model):
    mixed = replace(model, tensors=tuple(sorted(model.tensors, key=lambda tensor: (tensor.role, tensor.name))))
    assert [part.name for part in parts(mixed, "swap 3 4")] == [tensor.name for tensor in mixed.tensors]
    longer = [part.name for part in parts(mixed, "bridge 3 after 4")]
    assert len(longer) == len(set(longer)) and {"blk.10.attn_q.weight", "blk.4.ffn_up.weight"} <= set(longer)


def test_copies_are_the_originals_bytes(model):
    part = next(each for each in parts(model, "swap 3 4") if each.name == "blk.3.attn_q.weight")
    assert (tensor_data(model, part) == tensor_bytes(model, model.by_name["blk.4.attn_q.weight"])).all()


def test_a_blend_is_the_weighted_sum_rounded_once(model, monkeypatch):
    monkeypatch.setattr(encode_tensors, "PIECE_WEIGHTS", 1000)  # several pieces
    part = next(each for each in parts(model, "blend 3 5 0.25 into 4") if each.name == "blk.4.ffn_up.weight")
    one, other = (tensor_rows(model, model.by_name[f"blk.{block}.ffn_up.weight"]) for block in (3, 5))
    wanted = (np.float32(0.75) * one + np.float32(0.25) * other).astype(np.float16)
    assert not part.copied
    assert (tensor_data(model, part).view(np.float16) == wanted).all()


def test_a_scale_changes_matrices_and_leaves_norms(model):
    found = {part.name: part for part in parts(model, "scale 3 0.5")}
    assert found["blk.3.attn_norm.weight"].copied and not found["blk.3.attn_q.weight"].copied
    some = {part.name: part for part in parts(model, "scale 3 0.5 ffn_down")}
    assert [name for name, part in some.items() if not part.copied] == ["blk.3.ffn_down.weight"]


def test_scales_of_one_block_in_two_shares_come_together(model):
    found = {part.name: part for part in parts(model, "bridge 3 after 3; scale 4 3; blend 3 4 0.5 into 3; delete 4")}
    assert found["blk.3.ffn_up.weight"].sources == ((model.by_name["blk.3.ffn_up.weight"], 2.0),)
    assert found["blk.3.attn_norm.weight"].copied


def test_differently_stored_sources_become_the_finer_type(model):
    coarse = tuple(
        replace(tensor, type=BY_NAME["Q4_0"]) if tensor.name == "blk.3.ffn_up.weight" else tensor
        for tensor in model.tensors
    )
    found = parts(replace(model, tensors=coarse), "blend 3 5 into 4")
    assert next(part for part in found if part.name == "blk.4.ffn_up.weight").type.name == "F16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (256, 511)}, "ffn_up.weight is 256 x 511 in 3 and 256 x 512 in 5"),
        ({"name": "blk.3.ffn_up_exps.weight"}, "only 3 has ffn_up_exps.weight|only 5 has ffn_up.weight"),
    ],
)
def test_layers_of_two_shapes_are_not_blended(model, change, message):
    odd = tuple(replace(t, **change) if t.name == "blk.3.ffn_up.weight" else t for t in model.tensors)
    with pytest.raises(BadUsage, match=message):
        parts(replace(model, tensors=odd), "blend 3 5")
    assert parts(replace(model, tensors=odd), "swap 3 5")


def test_a_scale_of_a_role_that_is_not_there(model):
    with pytest.raises(NothingSelected, match="layer 3 has no ffn_dwon to scale; it has attn_k, "):
        parts(model, "scale 3 0.5 ffn_dwon")


def test_a_map_for_another_model(model):
    with pytest.raises(BadUsage, match="for a model of 28 layers, prose-10m-f16.gguf has 10"):
        edited_tensors(model, apply_edits(28, parse_edits("delete 10")))


def test_types_that_need_importance_are_refused_without(model):
    small = tuple(replace(t, type=BY_NAME["IQ2_XS"]) if t.role == "ffn_up" else t for t in model.tensors)
    quantized = replace(model, tensors=small)
    check_encodable(parts(quantized, "swap 3 5"))
    with pytest.raises(BadUsage, match="blk.4.ffn_up.weight: IQ2_XS cannot be encoded without imatrix data"):
        check_encodable(parts(quantized, "blend 3 5 into 4"))
