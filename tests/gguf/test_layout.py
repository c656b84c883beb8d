"""Headers in raw pieces: written back they are the file's own bytes; a change touches nothing but itself."""

import struct
from dataclasses import replace

import gguf
import numpy as np
import pytest
from tiny_architectures import tiny_dense_lead, tiny_hybrid, tiny_listed, tiny_lite, tiny_sliding
from tiny_models import tiny_moe, tiny_tied, written

from quantplan.errors import BadFile
from quantplan.gguf.layout import MetadataEntry
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.tools import run

MODELS = {
    "tied": tiny_tied,
    "moe": tiny_moe,
    "hybrid": tiny_hybrid,
    "sliding": lambda path: tiny_sliding(path, sliding=[True, False] * 3),
    "lead": tiny_dense_lead,
    "listed": tiny_listed,
    "lite": tiny_lite,
}


def start_of(path, size):
    with path.open("rb") as file:
        return file.read(size)


def check_whole(path):
    """The layout's header is the file's, and its data starts where the first tensor does."""
    header = read_layout(path).header
    assert header == start_of(path, len(header))
    assert len(header) == min(tensor.offset for tensor in read_model(path).tensors)


def test_the_reference_model_comes_back(reference_model):
    check_whole(reference_model)


@pytest.mark.parametrize("name", MODELS)
def test_small_models_come_back(name, tmp_path):
    check_whole(MODELS[name](tmp_path / "model.gguf"))


@pytest.mark.llamacpp
def test_files_of_the_tools_come_back(reference_model, tmp_path):
    small = tmp_path / "q4.gguf"
    run(["llama-quantize", str(reference_model), str(small), "Q4_K_M", "1"])
    check_whole(small)
    run(["llama-gguf-split", "--split", "--split-max-size", "5M", str(small), str(tmp_path / "part")])
    shards = sorted(tmp_path.glob("part-*.gguf"))
    assert len(shards) > 1
    for shard in shards:
        header = read_layout(shard).header
        assert header == start_of(shard, len(header))


def test_the_older_version(reference_model, tmp_path):
    path = tmp_path / "v2.gguf"
    data = bytearray(reference_model.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    path.write_bytes(data)
    assert read_layout(path).version == 2
    check_whole(path)


def odd_file(path):
    """What libggml's writer would alter: a zero byte inside a string, keys behind the tensors' ones, another alignment."""
    writer = gguf.GGUFWriter(path, "odd")
    writer.add_string("general.name", "a\0b")
    writer.add_uint32("general.alignment", 64)
    writer.add_uint64("odd.block_count", 2)
    writer.add_array("odd.words", ["one", "", "thr\0ee", "größer"])
    writer.add_array("odd.numbers", [1.5, 2.5])
    writer.add_array("odd.flags", [True, False])
    writer.add_bool("odd.flag", True)
    writer.data_alignment = 64
    for block in range(2):
        writer.add_tensor(f"blk.{block}.weight", np.full((1, 3), block, np.float32))
    return written(writer, path)


def test_odd_metadata_comes_back(tmp_path):
    path = odd_file(tmp_path / "odd.gguf")
    check_whole(path)
    layout = read_layout(path)
    assert layout.alignment == 64
    assert layout.by_key["odd.words"].items == (
        *(struct.pack("<Q", len(word)) + word for word in (b"one", b"", b"thr\0ee", "größer".encode())),
    )
    assert [struct.unpack("<f", item)[0] for item in layout.by_key["odd.numbers"].items] == [1.5, 2.5]
    assert layout.tensors[0].dims == (3, 1)


def test_a_change_stays_in_its_place(tmp_path):
    layout = read_layout(odd_file(tmp_path / "odd.gguf"))
    words = layout.by_key["odd.words"]
    entries = {
        "odd.block_count": layout.by_key["odd.block_count"].with_number(3),
        "odd.words": words.with_items([words.items[2], words.items[0]]),
        "odd.new": MetadataEntry.of("odd.new", 7),
    }
    changed = layout.changed(entries, removed=["odd.flag"])
    path = tmp_path / "changed.gguf"
    path.write_bytes(changed.header + (tmp_path / "odd.gguf").read_bytes()[len(layout.header) :])
    again = read_layout(path)
    keys = [entry.key for entry in layout.entries if entry.key != "odd.flag"]
    assert [entry.key for entry in again.entries] == [*keys, "odd.new"]
    assert again.by_key["odd.block_count"].number == 3
    assert again.by_key["odd.block_count"].type == layout.by_key["odd.block_count"].type
    assert again.by_key["odd.words"].items == (words.items[2], words.items[0])
    untouched = [key for key in keys if key not in entries]
    assert all(again.by_key[key] == layout.by_key[key] for key in untouched)
    assert gguf.GGUFReader(path).fields["odd.words"].contents() == ["thr\0ee", "one"]


def test_tensors_lie_behind_one_another(tmp_path):
    layout = read_layout(odd_file(tmp_path / "odd.gguf"))
    first, second = layout.tensors
    placed = layout.with_tensors([(replace(second, name="blk.2.weight"), 12), (first, 130), (second, 12)])
    assert [(each.name, each.offset) for each in placed.tensors] == [
        ("blk.2.weight", 0),
        ("blk.0.weight", 64),
        ("blk.1.weight", 256),
    ]
    assert len(placed.header) % 64 == 0


def test_a_number_that_does_not_fit_its_type():
    with pytest.raises(BadFile, match="the metadata small cannot become 300"):
        MetadataEntry("small", 0, b"\1").with_number(300)
    with pytest.raises(BadFile, match="holds no whole number"):
        MetadataEntry("half", 6, bytes(4)).with_number(3)


@pytest.mark.parametrize("size", [0, 3, 20, 100, 1000, 200_000])
def test_a_header_that_is_cut_short(reference_model, tmp_path, size):
    path = tmp_path / "cut.gguf"
    path.write_bytes(start_of(reference_model, size))
    with pytest.raises(BadFile, match=r"cut.gguf: (damaged header|not a GGUF file|cut short inside the header)"):
        read_layout(path)


def test_what_is_no_gguf(tmp_path):
    path = tmp_path / "text.gguf"
    path.write_text("no header at all, but long enough for one")
    with pytest.raises(BadFile, match="it starts with 'no header at all'"):
        read_layout(path)
    with pytest.raises(BadFile, match="No such file"):
        read_layout(tmp_path / "none.gguf")


@pytest.mark.parametrize("words", [["one", "two"], ["", "a" * 300], ["a\0b", "c"], ["", "\0"], []])
def test_strings_end_at_their_first_zero_byte_as_libggml_copies_them(words):
    entry = MetadataEntry.of("words", words).as_c_strings
    if words:
        assert entry.texts == tuple(word.partition("\0")[0] for word in words)
    assert MetadataEntry.of("word", "a\0b").as_c_strings == MetadataEntry.of("word", "a")


def test_values_of_entries():
    assert MetadataEntry.of("numbers", [1, -2]).numbers == (1, -2)
    assert MetadataEntry.of("flags", [True, False]).numbers == (True, False)
    assert MetadataEntry.of("half", 0.5).number == 0.5 and MetadataEntry.of("half", 0.5).text is None
    assert MetadataEntry.of("text", "größer").text == "größer" and MetadataEntry.of("text", "x").texts is None
    with pytest.raises(TypeError, match="odd: metadata of type dict"):
        MetadataEntry.of("odd", {})


def test_what_gguf_cpp_refuses(tmp_path):
    path = tmp_path / "twice.gguf"
    layout = read_layout(odd_file(tmp_path / "odd.gguf"))
    first, second = layout.tensors
    for damaged, message in (
        (replace(layout, entries=(*layout.entries, layout.entries[1])), "duplicate key 'general.name'"),
        (replace(layout, tensors=(first, first)), "duplicate tensor name 'blk.0.weight'"),
        (replace(layout, tensors=(replace(first, dims=(3, 0)), second)), "has the shape"),
        (replace(layout, tensors=(replace(first, name="x" * 64), second)), "a name of 64 characters"),
        (replace(layout, tensors=(replace(first, dims=(1,) * 5), second)), "5 dimensions"),
        (layout.changed({"general.alignment": MetadataEntry.of("general.alignment", 48)}), "power of two"),
    ):
        path.write_bytes(damaged.header + bytes(4096))
        with pytest.raises(BadFile, match=message):
            read_layout(path)
