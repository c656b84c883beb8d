"""An edited model in shards: written whole next to its place, split by llama-gguf-split, read back, then moved there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantplan.build.preflight import SPARE_BYTES, check_source, check_space
from quantplan.errors import BadFile, BadUsage, NoSpace, NotAsPlanned, ToolFailed
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.split import shard_bytes, split
from quantplan.progress import SILENT, Reporter
from quantplan.records.files import remove_leftovers
from quantplan.surgery.operation import Operation
from quantplan.surgery.write_model import check_target, try_file, write
from quantplan.tensor import Model


def write_shards(operation: Operation, out: Path, size: str, *, threads: int = 0, report: Reporter = SILENT) -> Model:
    """``OUT-00001-of-0000N.gguf`` and so on, each with at most ``size`` (5G, 500M) of tensors; the model of all shards.

    Needs twice the disk space while it works. Raises what ``write`` raises, ToolFailed, ToolMissing.
    """
    check_shard_size(operation, size)
    check_target(operation.model, out)
    check_source(operation.model)
    remove_leftovers(out)
    check_space(out, 2 * operation.file_bytes)
    with _work_folder(out) as folder:
        whole = folder / "whole.gguf"
        write(operation, whole, try_it=False, report=report)
        shards = _split(operation, whole, folder / out.name.removesuffix(".gguf"), size, report)
        try_file(shards[0], operation, threads)
        return _moved(operation, shards, out.parent)


def check_shard_size(operation: Operation, size: str) -> None:
    """BadUsage where the size cannot be read, or is below that of the first tensor: the tool makes no shard without tensors."""
    limit, first = shard_bytes(size), operation.tensors[0]
    if first.bytes > limit:
        raise BadUsage(
            f"--split-max-size {size}: {first.name} alone has {first.bytes:,} bytes; choose at least {-(-first.bytes // 10**6)}M"
        )


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A hidden folder next to ``out``, so that its files are moved, not copied."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.{os.getpid()}.", dir=out.parent)
    except OSError as error:
        raise BadFile(f"cannot write to {out.parent}: {error.strerror or error}; choose another --out") from None
    with folder as name:
        yield Path(name)


def _split(operation: Operation, whole: Path, prefix: Path, size: str, report: Reporter) -> list[Path]:
    """The shards, checked; the whole file is removed."""
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


def _check_shards(operation: Operation, shards: list[Path]) -> None:
    """NotAsPlanned unless the set of shards is complete and its tensors are those of the operation."""
    try:
        model = read_model(shards[0])
    except (BadFile, IndexError) as error:
        raise NotAsPlanned(
            f"llama-gguf-split did not write a complete set of shards ({error}); is there space on the disk?"
        ) from None
    expected = {tensor.name: (tensor.first.shape, tensor.type) for tensor in operation.tensors}
    actual = {tensor.name: (tensor.shape, tensor.type) for tensor in model.tensors}
    if actual != expected or len(model.paths) != len(shards) or len(model.tensors) != len(expected):
        raise NotAsPlanned(
            f"the {len(shards)} shards hold {len(actual)} tensors instead of {len(expected)}; please report this"
        )


def _moved(operation: Operation, shards: list[Path], folder: Path) -> Model:
    places = [folder / shard.name for shard in shards]
    for place in places:
        _check_no_source(operation.model, place)
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


def _check_no_source(model: Model, place: Path) -> None:
    if place.exists() and any(path.exists() and place.samefile(path) for path in model.paths):
        raise BadUsage(f"{place} is a shard of the model itself; choose another --out")
