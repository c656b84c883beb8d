from itertools import product

import pytest

from quantplan.errors import BadUsage
from quantplan.quant_type import BY_NAME
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solver.layers import chain, layer_groups
from quantplan.tensor import Tensor, padded

F16, Q4, Q6, Q5_0 = (BY_NAME[name] for name in ("F16", "Q4_K", "Q6_K", "Q5_0"))
TENSORS = (
    Tensor("token_embd.weight", (256, 100), F16),
    Tensor("output.weight", (288, 3), F16),  # rows that no K-type fits
    *(Tensor(f"blk.{block}.{role}.weight", (256, 8), F16) for block in (1, 0) for role in ("attn_v", "ffn_up")),
)
MIXES = {
    "Q4_K_M": {each.name: Q6 if "attn" in each.name else Q4 for each in TENSORS},
    "Q6_K": {each.name: Q6 for each in TENSORS},
    "F16": {each.name: F16 for each in TENSORS},
}


def table(without=()):
    values = {"Q4_K": 0.5, "Q6_K": 0.125, "Q5_0": 0.25}
    weights = {name: value for name, value in values.items() if name not in without}
    return SensitivityTable("digest", {each.name: SensitivityRow(each.name, weights) for each in TENSORS})


def test_a_block_is_a_group_of_mixes():
    layers = layer_groups(TENSORS, MIXES, table(), lambda _: (Q4, Q6))
    assert layers.blocks == ((0,), (1,), (), ())
    block = layers.groups[0]
    assert [choice.label for choice in block.choices] == ["Q4_K_M", "Q6_K", "F16"]
    assert [choice.damage for choice in block.choices] == [0.625, 0.25, 0.0]
    assert [choice.bytes for choice in block.choices] == [
        1696 + 1152,
        1696 + 1696,
        2 * 8 * 512,
    ]  # 8 x 210 padded


def test_tensors_outside_the_blocks_take_types_that_fit():
    layers = layer_groups(TENSORS, MIXES, table(), lambda _: (Q6, Q4, BY_NAME["Q5_K"]))
    embeddings, output = layers.groups[2:]
    assert [choice.label for choice in embeddings.choices] == ["Q6_K", "Q4_K"]
    assert [choice.label for choice in output.choices] == ["Q5_0"]  # for Q6_K and Q5_K nothing was measured
    assert output.choices[0].bytes == padded(3 * 288 // 32 * 22)


def test_every_choice_folds_back_to_types_and_text():
    layers = layer_groups(TENSORS, MIXES, table(), lambda _: (Q4, Q6))
    for choices in product(*(range(len(group.choices)) for group in layers.groups)):
        types = layers.types(choices)
        assert types.keys() == {each.name for each in TENSORS}
        size = sum(padded(each.bytes_as(types[each.name])) for each in TENSORS)
        assert size == sum(group.choices[index].bytes for group, index in zip(layers.groups, choices, strict=True))
        for block, ftype in layers.layer_types(choices):
            assert types[f"blk.{block}.attn_v.weight"] == MIXES[ftype][f"blk.{block}.attn_v.weight"]
    assert layers.layer_types((0, 1, 0, 0)) == ((0, "Q4_K_M"), (1, "Q6_K"))


def test_what_was_not_measured_is_not_offered():
    with pytest.raises(BadUsage, match=r"output\.weight"):
        layer_groups(TENSORS, MIXES, table(without=("Q5_0",)), lambda _: (Q4, Q6))
    inside = tuple(each for each in TENSORS if each.block is not None)
    layers = layer_groups(inside, MIXES, table(without=("Q4_K",)), lambda _: ())
    assert [choice.label for choice in layers.groups[0].choices] == ["Q6_K", "F16"]
    with pytest.raises(BadUsage, match="block 0"):
        layer_groups(inside, {"Q4_K_M": MIXES["Q4_K_M"]}, table(without=("Q4_K",)), lambda _: ())


def test_what_stays_as_it_is_stored_needs_no_price():
    """F16 is in no row of the table, and the blocks of an F16 model may stay so."""
    layers = layer_groups(TENSORS, MIXES, table(), lambda _: (Q4, Q6))
    stays = next(at for at, choice in enumerate(layers.groups[0].choices) if choice.label == "F16")
    priced = layers.priced((stays, 0, 0, 0), table())
    assert not [name for name in priced if name.startswith("blk.0.")]
    expected = sum(group.choices[0].damage for group in layers.groups[1:])
    assert table().predict(priced)[0] == expected


def test_wishes_leave_out_mixes():
    def no_q4_in_block_0(tensor, kind):
        return not (tensor.block == 0 and kind.name == "Q4_K")

    layers = layer_groups(TENSORS, MIXES, table(), lambda _: (Q4, Q6), no_q4_in_block_0)
    assert [choice.label for choice in layers.groups[0].choices] == ["Q6_K", "F16"]
    assert [choice.label for choice in layers.groups[1].choices] == ["Q4_K_M", "Q6_K", "F16"]


def test_blocks_are_ranked_from_first_to_last():
    layers = layer_groups(TENSORS, MIXES, table(), lambda _: (Q4, Q6))
    found = chain(layers, "valley", ["Q4_K_M", "Q6_K", "F16"])
    assert found.groups == (0, 1) and found.ranks == ((0, 1, 2), (0, 1, 2)) and found.course == "valley"
