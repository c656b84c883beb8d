"""The file of an operated model: written beside its place, read back, run by llama.cpp, and only then there."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from quantplan.build.preflight import check_output, check_source, check_space
from quantplan.errors import BadFile, BadUsage, NotAsPlanned
from quantplan.gguf.reader import read_model
from quantplan.gguf.shards import parse_shard
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.try_model import check_runs
from quantplan.progress import Advance
from quantplan.records.files import remove_leftovers, replacing
from quantplan.surgery.assembly import part_pieces
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.operation import Operation, operate
from quantplan.tensor import Model, padded

_WRITTEN_AT_ONCE = 1 << 26  # bytes between two words of progress


def write_operated(
    model: Model,
    layer_map: LayerMap,
    out: Path,
    *,
    imatrix: Imatrix | None = None,
    name: str | None = None,
    forced: bool = False,
    proved: bool = True,
    threads: int = 0,
    advance: Advance | None = None,
) -> Model:
    """The model that the map makes of ``model``, in one file: ``operate`` and ``write``, see there."""
    operation = operate(model, layer_map, imatrix=imatrix, name=name, forced=forced)
    return write(operation, out, proved=proved, threads=threads, advance=advance)


def write(
    operation: Operation, out: Path, *, proved: bool = True, threads: int = 0, advance: Advance | None = None
) -> Model:
    """Writes ``out`` and reads it back; an older file there is replaced at the end, nothing is left of one that failed.

    ``proved``: llama.cpp loads it and decodes some tokens, on ``threads`` cores (0: all), before it is there; leave that out
    only where the file is run at once. ``advance`` gets bytes. Raises BadFile (a source without weights, a result that
    llama.cpp does not run), BadUsage, NoSpace, NotAsPlanned.
    """
    check_target(operation.model, out)
    check_source(operation.model)
    remove_leftovers(out)
    check_space(out, operation.file_bytes)
    with replacing(out, "wb") as file:
        _write(operation, file, advance)
        file.flush()
        part = Path(file.name)
        check_written(operation, read_model(part))
        if proved:
            prove(part, operation, threads)
    return read_model(out)


def check_target(model: Model, out: Path) -> None:
    """BadUsage where the output is the model itself, a folder, or called as if it were a shard."""
    check_output(model, out)
    if parse_shard(out.name):
        raise BadUsage(f"{out} is the name of one shard of several; give a plain name, and --split-max-size for shards")


def _write(operation: Operation, file: IO[bytes], advance: Advance | None) -> None:
    tell = advance or (lambda _bytes: None)
    alignment, left = operation.layout.alignment, operation.file_bytes
    header = operation.layout.header
    file.write(header)
    left -= len(header)
    for part in operation.parts:
        for piece in part_pieces(operation.model, part, operation.imatrix):
            flat = piece.reshape(-1)
            for start in range(0, flat.size, _WRITTEN_AT_ONCE):
                some = flat[start : start + _WRITTEN_AT_ONCE]
                file.write(some.data)
                tell(some.size)
        left -= part.bytes
        padding = min(left, padded(part.bytes, alignment) - part.bytes)
        file.write(bytes(padding))
        left -= padding


def check_written(operation: Operation, written: Model) -> None:
    """NotAsPlanned naming what differs, unless names, shapes, types, order, layers and size are those of the operation."""
    planned = [(part.name, part.first.shape, part.type) for part in operation.parts]
    found = [(tensor.name, tensor.shape, tensor.type) for tensor in written.tensors]
    wrong = [
        f"{have[0]} stands where {want[0]} should" for want, have in zip(planned, found, strict=False) if want != have
    ]
    if len(planned) != len(found):
        wrong.append(f"{len(found)} tensors instead of {len(planned)}")
    if written.blocks != len(operation.layer_map):
        wrong.append(f"{written.blocks} layers instead of {len(operation.layer_map)}")
    if written.file_bytes != operation.file_bytes:
        wrong.append(f"{written.file_bytes:,} bytes instead of {operation.file_bytes:,}")
    if wrong:
        raise NotAsPlanned(
            f"{written.path}: what was written is not what was to be: {'; '.join(wrong[:3])}; report this"
        )


def prove(part: Path, operation: Operation, threads: int) -> None:
    """BadFile with llama.cpp's reason where it does not run the file."""
    try:
        check_runs(part, threads)
    except BadFile as error:
        reason = str(error).replace(f"{part}: ", "")
        also = "" if _runs(operation.model.path, threads) else "; it does not run the original either"
        raise BadFile(f"the result of {len(operation.layer_map)} layers was not kept: {reason}{also}") from None


def _runs(path: Path, threads: int) -> bool:
    try:
        check_runs(path, threads)
    except BadFile:
        return False
    return True
