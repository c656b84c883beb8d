"""An operated model in shards: written whole beside its place, cut by llama-gguf-split, read back, and moved there together."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from quantplan.build.preflight import SPARE_BYTES, check_source, check_space
from quantplan.errors import BadFile, BadUsage, NoSpace, NotAsPlanned, ToolFailed
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.split import shard_bytes, split
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.files import remove_leftovers
from quantplan.surgery.apply import check_target, prove, write
from quantplan.surgery.operation import Operation
from quantplan.tensor import Model


def write_shards(
    operation: Operation,
    out: Path,
    size: str,
    *,
    threads: int = 0,
    advance: Advance | None = None,
    report: Reporter = SILENT,
) -> Model:
    """``OUT-00001-of-0000N.gguf`` and so on beside ``out``, each with at most ``size`` (5G, 500M) of tensors; the model of all.

    Needs twice the room while it works. Raises what ``write`` raises, ToolFailed, ToolMissing.
    """
    check_shard_size(operation, size)
    check_target(operation.model, out)
    check_source(operation.model)
    remove_leftovers(out)
    check_space(out, 2 * operation.file_bytes)
    stem = out.name.removesuffix(".gguf")
    with _workplace(out) as folder:
        whole = folder / "whole.gguf"
        write(operation, whole, proved=False, advance=advance)
        shards = _split(operation, whole, folder / stem, size, report)
        prove(shards[0], operation, threads)
        return _moved(operation, shards, out.parent)


def _split(operation: Operation, whole: Path, prefix: Path, size: str, report: Reporter) -> list[Path]:
    """The shards, checked; the whole file is gone then."""
    try:
        split(whole, prefix, size, report)
        whole.unlink()
        shards = sorted(prefix.parent.glob("*.gguf"))
        _check_shards(operation, shards)
    except (ToolFailed, NotAsPlanned) as error:
        if shutil.disk_usage(prefix.parent).free < SPARE_BYTES:
            raise NoSpace(f"the disk of {prefix.parent.parent} is full: {error}") from None
        raise
    return shards


def _workplace(out: Path) -> AbstractContextManager[Path]:
    """A hidden folder beside ``out``: what is made there is moved, not copied."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.{os.getpid()}.", dir=out.parent)
    except OSError as error:
        raise BadFile(f"cannot write to {out.parent}: {error.strerror or error}; choose another --out") from None
    return _entered(folder)


@contextmanager
def _entered(folder: tempfile.TemporaryDirectory[str]) -> Iterator[Path]:
    with folder as name:
        yield Path(name)


def check_shard_size(operation: Operation, size: str) -> None:
    """BadUsage where the size is unreadable, or the first tensor alone is larger: the tool makes no shard without tensors."""
    limit, first = shard_bytes(size), operation.parts[0]
    if first.bytes > limit:
        raise BadUsage(
            f"--split-max-size {size}: {first.name} alone has {first.bytes:,} bytes; choose at least {-(-first.bytes // 10**6)}M"
        )


def _check_shards(operation: Operation, shards: list[Path]) -> None:
    """NotAsPlanned unless all shards are there and their tensors are those of the operation."""
    try:
        found = read_model(shards[0])
    except (BadFile, IndexError) as error:
        raise NotAsPlanned(
            f"llama-gguf-split left no whole set of shards ({error}); is there room on the disk?"
        ) from None
    planned = {part.name: (part.first.shape, part.type) for part in operation.parts}
    have = {tensor.name: (tensor.shape, tensor.type) for tensor in found.tensors}
    if have != planned or len(found.paths) != len(shards) or len(found.tensors) != len(planned):
        raise NotAsPlanned(f"the {len(shards)} shards hold {len(have)} tensors, {len(planned)} were to be; report this")


def _moved(operation: Operation, shards: list[Path], folder: Path) -> Model:
    places = [folder / shard.name for shard in shards]
    for place in places:
        check_target_of_shard(operation.model, place)
    moved: list[Path] = []
    try:
        for shard, place in zip(shards, places, strict=True):
            shard.replace(place)
            moved.append(place)
    except OSError as error:
        for place in moved:
            place.unlink(missing_ok=True)
        raise BadFile(f"cannot write {folder}: {error.strerror or error}; choose another place") from None
    return read_model(places[0])


def check_target_of_shard(model: Model, place: Path) -> None:
    if place.exists() and any(path.exists() and place.samefile(path) for path in model.paths):
        raise BadUsage(f"{place} is a shard of the model itself; choose another --out")
