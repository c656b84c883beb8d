"""Reading headers: what is whole, what is not, and models in several files."""

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_parts import quantized_bytes
from tiny_models import tiny_tied

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_container, read_model, tensor_bytes, tensor_rows
from quantplan.gguf.shards import shard_paths
from quantplan.gguf.writer import metadata_bytes, write_header_only
from quantplan.llamacpp.tools import run
from quantplan.quant_type import BY_NAME
from quantplan.tensor import padded


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_tied(tmp_path_factory.mktemp("gguf") / "tied.gguf")


@pytest.fixture(scope="module")
def shards(whole):
    """The same model in three files, split by llama-gguf-split."""
    folder = whole.parent / "split"
    folder.mkdir()
    run(["llama-gguf-split", "--split-max-tensors", "9", str(whole), str(folder / "tied")])
    return sorted(folder.glob("*.gguf"))


def test_header_of_a_model(whole):
    import gguf

    model, reader = read_model(whole), gguf.GGUFReader(whole)
    assert (model.architecture, model.name, model.blocks, model.tied) == ("qwen3", "tiny-qwen3", 2, True)
    assert model.file_bytes == whole.stat().st_size
    assert [(t.name, t.shape, t.offset) for t in model.tensors] == [
        (t.name, tuple(t.shape.tolist()), t.data_offset) for t in reader.tensors
    ]
    assert model.metadata["qwen3.embedding_length"] == 256
    down = model.by_name["blk.1.ffn_down.weight"]
    assert (down.role, down.block, down.columns, down.rows, down.experts) == ("ffn_down", 1, 288, 256, 1)
    assert (down.bytes, down.bytes_as(BY_NAME["Q8_0"])) == (288 * 256 * 2, 288 // 32 * 34 * 256)
    assert model.file_type == "F16" and not model.header_only


def test_weights(whole):
    import gguf

    model = read_model(whole)
    tensor = model.by_name["blk.0.attn_q.weight"]
    stored = next(t for t in gguf.GGUFReader(whole).tensors if t.name == tensor.name).data
    assert np.array_equal(tensor_rows(model, tensor), stored.astype(np.float32))
    assert np.array_equal(tensor_rows(model, tensor, np.array([3, 200])), stored[[3, 200]].astype(np.float32))
    assert tensor_bytes(model, tensor).shape == (256, 512)


def changed(whole, tmp_path, change):
    data = bytearray(whole.read_bytes())
    path = tmp_path / "changed.gguf"
    path.write_bytes(change(data))
    return path


BAD = {
    "not a GGUF file": lambda data: b"PK\3\4 a zip archive, say" * 100,
    "an empty file: the download failed": lambda data: b"",
    r"cut short inside the header \(10 bytes\)": lambda data: data[:10],
    "damaged header .*is the download complete": lambda data: data[:2000],
    "cut short: token_embd.weight ends at byte": lambda data: data[:-4096],
    "GGUF version 1 is not supported": lambda data: data[:4] + struct.pack("<I", 1) + data[8:],
    "GGUF version 4 is not supported": lambda data: data[:4] + struct.pack("<I", 4) + data[8:],
    "a big-endian GGUF file": lambda data: data[:4] + struct.pack(">I", 3) + data[8:],
}


@pytest.mark.parametrize("message", BAD)
def test_files_that_are_no_model(whole, tmp_path, message):
    path = changed(whole, tmp_path, BAD[message])
    with pytest.raises(BadFile, match=message) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.slow
def test_a_header_damaged_anywhere_is_an_error_or_another_model(whole, tmp_path):
    """Never a crash: every field of the header is checked."""
    random, digest = np.random.default_rng(0), read_model(whole).digest
    for _ in range(100):
        place = int(random.integers(8, 3000))
        path = changed(whole, tmp_path, lambda data, at=place: data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            assert read_model(path).digest != digest
        except BadFile:
            continue


def test_a_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(BadFile, match="Is a directory"):
        read_model(tmp_path)
    with pytest.raises(BadFile, match="No such file"):
        read_model(tmp_path / "none.gguf")


def test_an_imatrix_is_no_model(reference_imatrix):
    with pytest.raises(BadFile, match="this is an imatrix, not a model; give it as --imatrix"):
        read_model(reference_imatrix)
    metadata, tensors = read_container(reference_imatrix)
    assert metadata["general.type"] == "imatrix" and len(tensors) > 100


def test_an_unknown_type_of_tensor(whole, tmp_path):
    """Type 36 was IQ4_NL_4_4 once; the table of types does not have it."""
    name = b"token_embd.weight"
    data = whole.read_bytes()
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4 + 2 * 8
    assert struct.unpack_from("<I", data, at) == (1,)  # F16
    path = changed(whole, tmp_path, lambda data: data[:at] + struct.pack("<I", 36) + data[at + 4 :])
    with pytest.raises(
        BadFile, match="token_embd.weight is stored as type 36, I2_S .*or IQ4_NL_4_4, which llama.cpp has removed"
    ):
        read_model(path)


# -- digests


def test_the_digest_names_content_and_not_place(whole, tmp_path):
    copy = shutil.copy(whole, tmp_path / "copy.gguf")
    assert read_model(copy).digest == read_model(whole).digest
    other = tiny_tied(tmp_path / "other.gguf", seed=1)
    assert read_model(other).digest != read_model(whole).digest


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_the_digest_sees_weights_change(whole, tmp_path, where):
    tensor = read_model(whole).by_name["blk.1.attn_k.weight"]
    at = tensor.offset + {"first": 0, "middle": tensor.bytes // 2, "last": tensor.bytes - 1}[where]
    path = changed(whole, tmp_path, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert read_model(path).digest != read_model(whole).digest


def test_a_header_without_weights(tmp_path):
    shape = (4096, 4096)
    rows = [(f"blk.{block}.attn_q.weight", shape, BY_NAME["F16"]) for block in range(4)]
    model = read_model(write_header_only(tmp_path / "h.gguf", "llama", {"llama.block_count": 4}, rows))
    assert model.header_only and model.file_bytes > 4 * 4096 * 4096 * 2


# -- models in several files


@pytest.mark.llamacpp
def test_shards_are_one_model(whole, shards):
    one, split = read_model(whole), read_model(shards[0])
    assert len(shards) == len(split.paths) == 3
    assert [replace(t, offset=0, shard=0) for t in split.tensors] == [replace(t, offset=0) for t in one.tensors]
    assert (split.name, split.blocks, split.file_bytes) == (
        one.name,
        one.blocks,
        sum(p.stat().st_size for p in shards),
    )
    for tensor in split.tensors:
        assert np.array_equal(tensor_bytes(split, tensor), tensor_bytes(one, one.by_name[tensor.name])), tensor.name


@pytest.mark.llamacpp
def test_any_shard_names_them_all(shards):
    assert {read_model(path).digest for path in shards} == {read_model(shards[0]).digest}
    assert shard_paths(shards[2]) == tuple(shards)


@pytest.mark.llamacpp
def test_a_changed_shard_is_another_model(shards, tmp_path):
    copies = [Path(shutil.copy(path, tmp_path)) for path in shards]
    before = read_model(copies[0]).digest
    data = bytearray(copies[2].read_bytes())
    data[-1] ^= 1
    copies[2].write_bytes(data)
    assert read_model(copies[0]).digest != before


@pytest.mark.llamacpp
def test_a_shard_is_missing_or_cut(shards, tmp_path):
    copies = [Path(shutil.copy(path, tmp_path)) for path in shards]
    copies[2].write_bytes(copies[2].read_bytes()[:-1000])
    with pytest.raises(BadFile, match="tied-00003-of-00003.gguf: cut short"):
        read_model(copies[0])
    copies[1].unlink()
    with pytest.raises(BadFile, match="1 of 3 shards are missing, first tied-00002-of-00003.gguf"):
        read_model(copies[0])


@pytest.mark.llamacpp
def test_a_quantized_file_of_a_split_model_is_as_large_as_of_the_whole(whole, shards):
    one, split = read_model(whole), read_model(shards[0])
    types = {"token_embd.weight": BY_NAME["Q4_K"]}
    assert metadata_bytes(one, None) == metadata_bytes(split, None)
    saved = padded(one.by_name["token_embd.weight"].bytes) - padded(
        one.by_name["token_embd.weight"].bytes_as(BY_NAME["Q4_K"])
    )
    assert quantized_bytes(split, types, None) == quantized_bytes(one, {}, None) - saved
