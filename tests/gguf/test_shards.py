from pathlib import Path

import pytest

from quantplan.errors import BadFile
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


def test_paths_of_a_split_model(tmp_path):
    names = ShardName("m", 1, 3).all
    for name in names:
        (tmp_path / name).touch()
    assert shard_paths(tmp_path / names[2]) == tuple(tmp_path / name for name in names)
    assert shard_paths(Path("m.gguf")) == (Path("m.gguf"),)
    (tmp_path / names[1]).unlink()
    with pytest.raises(BadFile, match="1 of 3 shards are missing, first m-00002-of-00003.gguf"):
        shard_paths(tmp_path / names[0])
