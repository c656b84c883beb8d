"""Synthetic models: the model's metadata and shapes with fewer blocks; real data on disk."""

import pytest

from quantplan.devices.speed.synthetic import kept_blocks, synthetic_tensors, write_synthetic
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.quant_type import BY_NAME

Q4 = BY_NAME["Q4_0"]


@pytest.fixture
def shortened(reference_model, tmp_path):
    model = read_model(reference_model)
    types = {tensor.name: Q4 for tensor in model.tensors if len(tensor.shape) > 1}
    return model, read_model(write_synthetic(model, 3, types, tmp_path / "synthetic.gguf"))


def test_blocks_shapes_and_types(shortened):
    model, synthetic = shortened
    assert synthetic.blocks == 3
    assert {tensor.block for tensor in synthetic.tensors} == {None, 0, 1, 2}
    for tensor in synthetic.tensors:
        original = model.by_name[tensor.name]
        assert tensor.shape == original.shape
        assert tensor.type == (Q4 if len(tensor.shape) > 1 else original.type)


def test_metadata_is_the_models_own_without_its_tokenizer(shortened):
    model, synthetic = shortened
    own = {key: value for key, value in model.metadata.items() if key.startswith("qwen3.")}
    assert {key: synthetic.metadata.get(key) for key in own} == own | {"qwen3.block_count": 3}
    assert synthetic.metadata["tokenizer.ggml.model"] == "no_vocab"
    assert synthetic.metadata["qwen3.vocab_size"] == model.by_name["token_embd.weight"].rows


def test_weights_are_no_hole(shortened):
    assert not shortened[1].header_only


def header(path, keys, blocks=6, vocabulary=4096):
    tensors = [
        ("token_embd.weight", (256, vocabulary), BY_NAME["F16"]),
        ("output.weight", (256, vocabulary), BY_NAME["F16"]),
    ]
    tensors += [(f"blk.{block}.attn_q.weight", (256, 256), BY_NAME["F16"]) for block in range(blocks)]
    return read_model(write_header_only(path, "deepseek2", {"deepseek2.block_count": blocks} | keys, tensors))


def test_of_leading_dense_blocks_one_is_kept(tmp_path):
    model = header(tmp_path / "model.gguf", {"deepseek2.leading_dense_block_count": 3})
    assert kept_blocks(model, 3) == [0, 3, 4]
    names = {name: tensor.name for name, tensor in synthetic_tensors(model, 3, {}).items()}
    assert names["blk.3.attn_q.weight"] == "blk.1.attn_q.weight"
    assert "blk.1.attn_q.weight" not in names
    written = read_model(write_synthetic(model, 3, {}, tmp_path / "synthetic.gguf"))
    assert written.metadata["deepseek2.leading_dense_block_count"] == 1
    assert kept_blocks(model, 6) == [0, 1, 2, 3, 4, 5]


def test_arrays_with_an_item_per_block_keep_those_of_kept_blocks(tmp_path):
    from gguf import GGUFReader

    heads = [1, 2, 3, 4, 5, 6]
    keys = {
        "deepseek2.attention.head_count": heads,
        "deepseek2.other": [7, 8],
        "deepseek2.leading_dense_block_count": 3,
    }
    model = header(tmp_path / "model.gguf", keys)
    fields = GGUFReader(write_synthetic(model, 3, {}, tmp_path / "synthetic.gguf")).fields
    assert list(fields["deepseek2.attention.head_count"].contents()) == [1, 4, 5]
    assert list(fields["deepseek2.other"].contents()) == [7, 8]


def test_long_vocabularies_are_cut_alike_in_lookup_and_output(tmp_path):
    model = header(tmp_path / "model.gguf", {}, vocabulary=400_000)
    found = synthetic_tensors(model, 1, {})
    rows = found["output.weight"].rows
    assert rows == found["token_embd.weight"].rows < 400_000
    assert found["output.weight"].bytes <= 64 << 20
