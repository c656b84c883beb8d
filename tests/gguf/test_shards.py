"""Files of a split model: by their headers, whatever their names."""

import shutil
from pathlib import Path

import pytest
from tiny_models import tiny_tied

from quantplan.errors import BadFile
from quantplan.gguf.layout import MetadataEntry
from quantplan.gguf.layout_reader import read_layout
from quantplan.gguf.reader import read_model
from quantplan.gguf.shards import ShardName, model_stem, parse_shard, shard_paths


def test_names_are_read_and_written():
    shard = ShardName("folder/m-Q4_K_M", 2, 3)
    assert str(shard) == "folder/m-Q4_K_M-00002-of-00003.gguf" and parse_shard(str(shard)) == shard
    assert shard.all[0] == "folder/m-Q4_K_M-00001-of-00003.gguf" and len(shard.all) == 3


@pytest.mark.parametrize("name", ["m.gguf", "m-1-of-3.gguf", "-00001-of-00003.gguf", "m-00001-of-00003.gguf.part"])
def test_other_names(name):
    assert parse_shard(name) is None
    assert model_stem(name) == name.removesuffix(".gguf")


def test_the_stem_of_a_model():
    assert model_stem("m-00002-of-00003.gguf") == model_stem("m.gguf") == "m"


def write_parts(whole, folder, stem="m", count=3):
    """The model in parts as llama-gguf-split writes them, with the metadata in the first."""
    layout, data = read_layout(whole), whole.read_bytes()
    step = -(-len(layout.tensors) // count)
    paths = []
    for number in range(count):
        infos = layout.tensors[number * step : (number + 1) * step]
        ends = [info.offset for info in layout.tensors[number * step + 1 : (number + 1) * step + 1]]
        ends += [len(data) - layout.data_offset] if len(ends) < len(infos) else []
        pieces = [
            data[layout.data_offset + i.offset : layout.data_offset + e] for i, e in zip(infos, ends, strict=True)
        ]
        split = {"split.no": number, "split.count": count, "split.tensors.count": len(layout.tensors)}
        own = layout.changed({}, removed=() if number == 0 else [entry.key for entry in layout.entries])
        own = own.changed({key: MetadataEntry.of(key, value) for key, value in split.items()})
        own = own.with_tensors((info, len(piece)) for info, piece in zip(infos, pieces, strict=True))
        paths.append(folder / str(ShardName(stem, number + 1, count)))
        paths[-1].write_bytes(own.header + b"".join(piece.ljust(-(-len(piece) // 32) * 32, b"\0") for piece in pieces))
    return paths


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_tied(tmp_path_factory.mktemp("whole") / "tied.gguf")


@pytest.fixture
def parts(whole, tmp_path):
    return write_parts(whole, tmp_path)


def test_paths_of_a_split_model(whole, parts):
    assert shard_paths(parts[2]) == tuple(parts)
    assert shard_paths(whole) == (whole,)
    model = read_model(parts[1])
    assert {tensor.name for tensor in model.tensors} == set(read_model(whole).by_name)
    parts[1].unlink()
    with pytest.raises(BadFile, match="1 of 3 shards are missing, first m-00002-of-00003.gguf"):
        shard_paths(parts[0])


@pytest.mark.parametrize("name", ["Merged-00001-of-00013.gguf", "Merged-00007-of-00013.gguf", "model.GGUF"])
def test_a_whole_file_may_have_any_name(whole, tmp_path, name):
    path = Path(shutil.copy(whole, tmp_path / name))
    assert shard_paths(path) == (path,)
    assert read_model(path).digest == read_model(whole).digest


@pytest.mark.parametrize("names", [("part1.gguf", "part2.gguf", "part3.gguf"), ("m-a.gguf", "m-b.gguf", "m-c.gguf")])
def test_renamed_parts_are_named_with_the_command(parts, names):
    for part, name in zip(parts, names, strict=True):
        part.rename(part.with_name(name))
    with pytest.raises(BadFile, match=r"part 2 of 3 of a split model") as error:
        read_model(parts[0].with_name(names[1]))
    stem = "model" if "part" in names[0] else "m"
    for index, name in enumerate(names, 1):
        assert f"mv {name} {ShardName(stem, index, 3)}" in str(error.value)


def test_parts_that_changed_places(parts, tmp_path):
    parts[0].rename(tmp_path / "x")
    parts[1].rename(parts[0])
    (tmp_path / "x").rename(parts[1])
    with pytest.raises(BadFile, match=r"part 2 of 3 .*m-00002-of-00003.gguf: give each the name of its number"):
        read_model(parts[0])


def test_a_part_of_a_split_that_is_not_there(parts):
    parts[1].unlink(), parts[2].unlink()
    only = parts[0].rename(parts[0].with_name("model.gguf"))
    with pytest.raises(BadFile, match="part 1 of 3 .*; 2 parts are missing"):
        read_model(only)


def test_parts_of_different_splits(whole, parts, tmp_path):
    (tmp_path / "other").mkdir()
    other = write_parts(whole, tmp_path / "other", count=2)
    shutil.copy(other[1], parts[1])
    with pytest.raises(BadFile, match=r"m-00002-of-00003.gguf: its header says that it is part 2 of 2"):
        read_model(parts[0])


@pytest.mark.parametrize("name", ["joined.gguf", "m-00001-of-00003.gguf"])
def test_parts_joined_by_cat(parts, tmp_path, name):
    content = b"".join(part.read_bytes() for part in parts)
    joined = tmp_path / name
    size = parts[0].stat().st_size
    joined.write_bytes(content)
    with pytest.raises(BadFile, match=f"another GGUF begins at byte {size:,}: files were joined .*gguf-split --merge"):
        read_model(joined)
