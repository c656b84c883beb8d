"""The files of a split model, as their headers say: ``split.count``, ``split.no`` (from 0) and ``split.tensors.count``.

llama.cpp finds them by their names, ``NAME-00002-of-00005.gguf`` (``llama_split_path``), so a part of another name is refused
with what to do. A name alone makes no part: a whole file may have kept that of a shard.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.gguf.layout import Layout
from quantplan.gguf.layout_reader import read_layout
from quantplan.quant_type import ggml_type
from quantplan.tensor import padded

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_GGUF = re.compile(r"\.gguf$", re.IGNORECASE)
COUNT, NUMBER, TENSORS = "split.count", "split.no", "split.tensors.count"
_MOST = 99_999  # names have five digits


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
    return shard.stem if shard else _GGUF.sub("", name)


def shard_paths(path: Path) -> tuple[Path, ...]:
    """All files of a model, given any of them; raises as ``read_shards``."""
    return tuple(shard for shard, _ in read_shards(path))


def read_shards(path: Path) -> tuple[tuple[Path, Layout], ...]:
    """All files of a model with their headers, in order, given any of them; one for a model in one file.

    BadFile where a part is missing, has not the name that llama.cpp looks for, or is of another split.
    """
    layout = read_layout(path)
    _check_not_joined(path, layout)
    count = split_count(layout)
    if count < 2:
        return ((path, layout),)
    name, number = parse_shard(path.name), _number(layout, NUMBER)
    if number >= count:
        raise BadFile(f"{path}: damaged header ({NUMBER} {number} of {COUNT} {count}); is the download complete?")
    if name is None or (name.index, name.count) != (number + 1, count):
        raise BadFile(_renamed(path, layout, name))
    paths = tuple(path.with_name(each) for each in name.all)
    missing = [shard.name for shard in paths if not shard.is_file()]
    if missing:
        raise BadFile(
            f"{path}: {len(missing)} of {count} shards are missing, first {missing[0]}; put all shards in one folder"
        )
    shards = tuple((shard, layout if shard == path else read_layout(shard)) for shard in paths)
    _check_belong_together(shards, count)
    return shards


def split_count(layout: Layout) -> int:
    """The number of files that a header says its model has; less than 2 for a whole model."""
    return _number(layout, COUNT)


def _check_not_joined(path: Path, layout: Layout) -> None:
    """BadFile where another GGUF follows the data: parts that were joined by `cat`, which no program can read."""
    types = [(info, ggml_type(info.type)) for info in layout.tensors]
    ends = [info.offset + prod(info.dims) // quant.block * quant.block_bytes for info, quant in types if quant]
    end = layout.data_offset + max(ends, default=0)
    size = path.stat().st_size
    with path.open("rb") as file:
        for place in {end, padded(end, layout.alignment)}:
            file.seek(min(place, size))
            if file.read(4) == b"GGUF":
                first = shlex.quote(
                    str(path.with_name(str(ShardName(model_stem(path.name), 1, max(split_count(layout), 2)))))
                )
                raise BadFile(
                    f"{path}: another GGUF begins at byte {place:,}: files were joined end to end (cat), which nothing can read. "
                    "Parts of a split model need not be joined: put them as they were downloaded in one folder, or join them "
                    f"with `llama-gguf-split --merge {first} OUT.gguf`"
                )


def _number(layout: Layout, key: str) -> int:
    """0 where it is not there, or cannot be."""
    entry = layout.by_key.get(key)
    number = entry.number if entry else 0
    return number if isinstance(number, int) and 0 <= number <= _MOST else 0


def _check_belong_together(shards: tuple[tuple[Path, Layout], ...], count: int) -> None:
    total = _number(shards[0][1], TENSORS)
    for place, (path, layout) in enumerate(shards):
        own = (_number(layout, NUMBER), split_count(layout), _number(layout, TENSORS))
        if own != (place, count, total):
            raise BadFile(
                f"{path}: its header says that it is part {own[0] + 1} of {own[1]} of a model of {own[2]} tensors, its name and "
                f"{shards[0][0].name} say part {place + 1} of {count} of one of {total}; put the right file there"
            )
    found = sum(len(layout.tensors) for _, layout in shards)
    if total and found != total:
        raise BadFile(
            f"{shards[0][0]}: its parts hold {found} tensors together, their headers say {total}; download the parts again"
        )


def _renamed(path: Path, layout: Layout, name: ShardName | None) -> str:
    """The parts that lie in the folder under other names, and how to name them."""
    count, number = split_count(layout), _number(layout, NUMBER)
    stem = name.stem if name else _common_stem(path, layout)
    wanted = ShardName(stem, 1, count).all
    said = f"{path}: its header says that it is part {number + 1} of {count} of a split model, its name does not"
    parts = {place: file for file, place in _parts_in(path.parent, layout)}
    moves = [(file, wanted[place]) for place, file in sorted(parts.items()) if file.name != wanted[place]]
    commands = " && ".join(f"mv {shlex.quote(file.name)} {shlex.quote(new)}" for file, new in moves[:8])
    taken = any(path.with_name(new).exists() for _, new in moves)
    advice = (
        f"llama.cpp finds parts by names such as {wanted[number]}: give each the name of its number (split.no + 1)"
        if taken or len(parts) < count or len(moves) > 8
        else f"llama.cpp finds parts by their names: {commands}"
    )
    missing = f"; {count - len(parts)} parts are missing in {path.parent}" if len(parts) < count else ""
    return f"{said}; {advice}{missing}"


def _common_stem(path: Path, layout: Layout) -> str:
    """What the names of the parts begin with in common; a word of its own where that is nothing."""
    names = [model_stem(file.name) for file, _ in _parts_in(path.parent, layout)]
    first, last = min(names, default=path.stem), max(names, default=path.stem)
    same = next(
        (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return re.sub(r"[-_.]*(?:part|split|shard)?[-_.]*0*$", "", first[:same]) or "model"


def _parts_in(folder: Path, like: Layout) -> Iterator[tuple[Path, int]]:
    """The files of a folder whose headers say that they are parts of the same split, with their places from 0."""
    same = (split_count(like), _number(like, TENSORS))
    for file in sorted(folder.iterdir()):
        if not (_GGUF.search(file.name) and file.is_file()):
            continue
        try:
            layout = read_layout(file)
        except BadFile:
            continue
        if (split_count(layout), _number(layout, TENSORS)) == same and _number(layout, NUMBER) < same[0]:
            yield file, _number(layout, NUMBER)
