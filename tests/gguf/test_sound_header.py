"""Headers that llama.cpp would end the process for."""

import struct

import pytest
from mutated_gguf import GgufParts, small_llama

from quantplan.errors import BadFile
from quantplan.gguf.reader import read_model

NVFP4 = 40


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return GgufParts.of(small_llama(tmp_path_factory.mktemp("sound") / "small.gguf"))


def u32(number):
    return 4, struct.pack("<I", number)


def text(word):
    return 8, struct.pack("<Q", len(word)) + word


@pytest.mark.parametrize(
    ("kind", "reason"), [(b"adapter", r"an adapter \(LoRA\), not a model"), (b"control-vector", "a control vector")]
)
def test_what_is_no_model(parts, tmp_path, kind, reason):
    changed = parts.copy()
    changed.entries.append((b"general.type", *text(kind)))
    (tmp_path / "odd.gguf").write_bytes(changed.bytes)
    with pytest.raises(BadFile, match=f"this is {reason}"):
        read_model(tmp_path / "odd.gguf")


@pytest.mark.parametrize("name", ["m.gguf.part", "m.gguf.crdownload", "m.gguf.incomplete", "m.part.gguf"])
def test_names_of_unfinished_downloads(parts, tmp_path, name):
    for content in (parts.bytes[:500], b"\1\2\3" * 10):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFile, match="that of an unfinished download") as refused:
            read_model(tmp_path / name)
        assert "unpack" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block_count": u32(0)}, "block_count is 0"),
        ({"block_count": u32(2**31)}, "block_count is 2147483648"),
        ({"nextn_predict_layers": u32(3)}, "nextn_predict_layers is 3, of 2 blocks"),
        ({"expert_count": u32(8)}, "expert_used_count is 0"),
        ({"expert_used_count": u32(2)}, "expert_count is 0"),
        ({"expert_count": u32(2), "expert_used_count": u32(3)}, "expert_used_count is 3"),
        ({"expert_group_count": u32(2)}, "in 2 groups"),
        (
            {"expert_count": u32(8), "expert_used_count": u32(2), "expert_group_count": u32(3)},
            "expert_group_used_count is 0, of 3 groups",
        ),
        ({"rope.scaling.type": text(b"odd\x1b")}, r"rope.scaling.type is 'odd\\x1b'"),
        ({"attention.layer_norm_rms_epsilon": (6, struct.pack("<f", -1.0))}, "epsilon is -1.0"),
    ],
)
def test_numbers_that_cannot_be(parts, tmp_path, changes, reason):
    changed = parts.copy()
    names = {f"llama.{key}".encode() for key in changes}
    changed.entries = [entry for entry in changed.entries if entry[0] not in names]
    changed.entries += [(f"llama.{key}".encode(), *value) for key, value in changes.items()]
    (tmp_path / "odd.gguf").write_bytes(changed.bytes)
    with pytest.raises(BadFile, match=reason):
        read_model(tmp_path / "odd.gguf")


def test_norms_are_not_quantized(parts, tmp_path):
    changed, place = parts.copy(), 0
    for index, (name, dims, _, offset) in enumerate(changed.tensors):
        if name == b"output_norm.weight":
            changed.tensors[index], place = (name, dims, NVFP4, offset), index
    changed.tensors = [*changed.tensors[:place], *changed.tensors[place + 1 :], changed.tensors[place]]
    parts_by_size, offset = [], 0
    for name, dims, kind, _ in changed.tensors:
        parts_by_size.append((name, dims, kind, offset))
        size = {0: 4, 1: 2, NVFP4: 36 / 64}[kind]
        for dim in dims:
            size *= dim
        offset += -(-int(size) // 32) * 32
    changed.tensors = parts_by_size
    changed.data = bytes(offset)
    (tmp_path / "odd.gguf").write_bytes(changed.bytes)
    with pytest.raises(BadFile, match=r"output_norm.weight is stored as NVFP4"):
        read_model(tmp_path / "odd.gguf")
