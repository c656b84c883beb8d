"""The file of an edited model: written next to its place, read back, run by llama.cpp, and only then moved to its place."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from quantplan.build.preflight import check_output, check_source, check_space
from quantplan.errors import BadFile, BadUsage, NotAsPlanned
from quantplan.gguf.reader import read_model
from quantplan.gguf.shards import parse_shard
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.try_model import check_loads, check_runs
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.records.files import remove_leftovers, replacing
from quantplan.surgery.encode_tensors import tensor_pieces
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.operation import Operation, operate
from quantplan.tensor import Model, padded

_WRITTEN_AT_ONCE = 1 << 26  # bytes between two reports of progress


def write_edited_model(
    model: Model,
    layer_map: LayerMap,
    out: Path,
    *,
    imatrix: Imatrix | None = None,
    name: str | None = None,
    skip_check: bool = False,
    try_it: bool = True,
    threads: int = 0,
) -> Model:
    """The model that the map makes of ``model``, in one file: ``operate`` and ``write``, see there."""
    operation = operate(model, layer_map, imatrix=imatrix, name=name, skip_check=skip_check)
    return write(operation, out, try_it=try_it, threads=threads)


def write(
    operation: Operation, out: Path, *, try_it: bool = True, threads: int = 0, report: Reporter = SILENT
) -> Model:
    """Writes ``out`` and reads it back; an older file there is replaced at the end, a failed write leaves nothing behind.

    ``try_it``: llama.cpp loads the file and decodes some tokens, on ``threads`` cores (0: all), before it gets its name; only
    callers that run the file at once leave that out. Raises BadFile (a source without weights, a result that llama.cpp does
    not run), BadUsage, NoSpace, NotAsPlanned.
    """
    check_target(operation.model, out)
    check_source(operation.model)
    remove_leftovers(out)
    check_space(out, operation.file_bytes)
    with replacing(out, "wb") as file:
        with report.stage("writing", operation.file_bytes, "B") as advance:
            _write(operation, file, advance)
        file.flush()
        unfinished = Path(file.name)
        check_written(operation, read_model(unfinished))
        if try_it:
            try_file(unfinished, operation, threads)
    return read_model(out)


def check_target(model: Model, out: Path) -> None:
    """BadUsage where the output is the model itself, a folder, or has the name of a shard."""
    check_output(model, out)
    if parse_shard(out.name):
        raise BadUsage(
            f"{out} is the name of one of several shards; give a plain name, and --split-max-size to write shards"
        )


def _write(operation: Operation, file: IO[bytes], advance: Advance) -> None:
    alignment, remaining = operation.layout.alignment, operation.file_bytes
    header = operation.layout.header
    file.write(header)
    remaining -= len(header)
    for tensor in operation.tensors:
        for piece in tensor_pieces(operation.model, tensor, operation.imatrix):
            flat = piece.reshape(-1)
            for start in range(0, flat.size, _WRITTEN_AT_ONCE):
                block = flat[start : start + _WRITTEN_AT_ONCE]
                file.write(block.data)
                advance(block.size)
        remaining -= tensor.bytes
        padding = min(remaining, padded(tensor.bytes, alignment) - tensor.bytes)
        file.write(bytes(padding))
        remaining -= padding


def check_written(operation: Operation, written: Model) -> None:
    """NotAsPlanned naming what differs, unless names, shapes, types, order, layers and size are those of the operation."""
    expected = [(tensor.name, tensor.first.shape, tensor.type) for tensor in operation.tensors]
    actual = [(tensor.name, tensor.shape, tensor.type) for tensor in written.tensors]
    wrong = [f"{have[0]} instead of {want[0]}" for want, have in zip(expected, actual, strict=False) if want != have]
    if len(expected) != len(actual):
        wrong.append(f"{len(actual)} tensors instead of {len(expected)}")
    if written.blocks != len(operation.layer_map):
        wrong.append(f"{written.blocks} layers instead of {len(operation.layer_map)}")
    if written.file_bytes != operation.file_bytes:
        wrong.append(f"{written.file_bytes:,} bytes instead of {operation.file_bytes:,}")
    if wrong:
        raise NotAsPlanned(f"{written.path}: the file is not as planned: {'; '.join(wrong[:3])}; please report this")


def try_file(path: Path, operation: Operation, threads: int) -> None:
    """BadFile with llama.cpp's reason where it does not run the file."""
    _try(path, operation, lambda file: check_runs(file, threads), "was not kept")


def try_header(operation: Operation) -> None:
    """BadFile with llama.cpp's reason where it would not load the file that the operation makes, before it is written. Of
    headers without weights, which nothing is made of, no file is tried."""
    if operation.model.header_only:
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        path = Path(folder) / "edited.gguf"
        with path.open("wb") as file:
            file.write(operation.layout.header)
            file.truncate(operation.file_bytes)
        _try(path, operation, check_loads, "would not be kept")


def _try(path: Path, operation: Operation, attempt: Callable[[Path], None], consequence: str) -> None:
    reason = _failure(path, attempt)
    if reason is None:
        return
    also = "" if _failure(operation.model.path, attempt) is None else "; it does not run the original either"
    raise BadFile(
        f"the result of {len(operation.layer_map)} layers {consequence}: {reason.replace(f'{path}: ', '')}{also}"
    )


def _failure(path: Path, attempt: Callable[[Path], None]) -> str | None:
    """Why llama.cpp does not take the file; None where it does."""
    try:
        attempt(path)
    except BadFile as error:
        return str(error)
    return None
