"""Names of the files of a split model: ``NAME-00002-of-00005.gguf``, as llama.cpp's ``llama_split_path`` writes them."""

import re
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class ShardName:
    """``stem``: what all names begin with; ``index`` counts from 1."""

    stem: str
    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.stem}-{self.index:05d}-of-{self.count:05d}.gguf"

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all shards in order."""
        return tuple(str(ShardName(self.stem, index, self.count)) for index in range(1, self.count + 1))


def parse_shard(name: str) -> ShardName | None:
    """A shard's name, which may have folders before it; None for any other file."""
    match = _SHARD.fullmatch(name)
    return ShardName(match[1], int(match[2]), int(match[3])) if match else None


def model_stem(name: str) -> str:
    """The file name of a model without ``.gguf`` and the number of the shard."""
    shard = parse_shard(name)
    return shard.stem if shard else name.removesuffix(".gguf")


def shard_paths(path: Path) -> tuple[Path, ...]:
    """All files of a split model, given any of them; the path itself for a model in one file. BadFile where one is missing."""
    shard = parse_shard(path.name)
    if shard is None:
        return (path,)
    paths = tuple(path.with_name(name) for name in shard.all)
    missing = [shard_path.name for shard_path in paths if not shard_path.is_file()]
    if missing:
        raise BadFile(
            f"{path}: {len(missing)} of {shard.count} shards are missing, first {missing[0]}; put all shards in one folder"
        )
    return paths
