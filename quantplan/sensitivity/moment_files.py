"""Second moments on disk: one folder for each model, text and context, one file for each matrix input and expert.

``index.json`` says what the sums belong to and which matrices share an input. A sum is complete when its file is there:
files are written beside and renamed. Layout of a sum, little-endian: magic, columns, tokens, CRC-32 of what follows;
float32 diagonal; then, unless only the diagonal was summed, the lower triangle in panels of 256 rows, each up to its last column.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.errors import BadFile, NoSpace
from quantplan.records.codec import RecordFormat, register
from quantplan.records.files import replacing
from quantplan.sensitivity.matrix_inputs import MatrixInput

_HEADER = struct.Struct("<4sIQI")
_MAGIC = b"QPSM"
_PANEL = 256
INDEX = "index.json"


@dataclass(frozen=True)
class Index:
    """What the sums of a folder depend on, and the inputs that they are of, in the order of the graph."""

    made_from: dict[str, Any]
    inputs: tuple[MatrixInput, ...]


INDEX_FORMAT = register(
    RecordFormat("quantplan-second-moments", 1, Index, "index of second moments", "remove the folder and run again")
)


@dataclass(frozen=True)
class StoredSums:
    """Sums over ``tokens`` inputs: ``diagonal`` float32 [columns]; ``matrix`` float32 [columns, columns] or None."""

    tokens: int
    diagonal: np.ndarray
    matrix: np.ndarray | None = None


def sums_path(folder: Path, number: int, expert: int | str, full: bool) -> Path:
    """File of one sum; ``number``: the input's in the index."""
    return folder / f"{number:04d}-{expert:0>4}.{'moments' if full else 'diagonal'}"


def sums_bytes(columns: int) -> int:
    """Size of the file of a full sum."""
    triangle = sum((end - start) * end for start, end in _panels(columns))
    return _HEADER.size + 4 * (columns + triangle)


def write_sums(path: Path, tokens: int, diagonal: np.ndarray, lower: np.ndarray | None) -> None:
    """``lower``: float32 [columns, columns] of which only the lower triangle counts. NoSpace, BadFile as ``replacing``."""
    with replacing(path, "wb") as file:
        file.write(bytes(_HEADER.size))
        checksum = 0
        for piece in _pieces(diagonal, lower):
            checksum = zlib.crc32(piece, checksum)
            file.write(piece)
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, diagonal.size, tokens, checksum))


def _pieces(diagonal: np.ndarray, lower: np.ndarray | None) -> Iterator[memoryview]:
    yield np.ascontiguousarray(diagonal, "<f4").data
    if lower is None:
        return
    for start, end in _panels(len(lower)):
        panel = np.array(lower[start:end, :end], "<f4", order="C")
        square = panel[:, start:]
        square[:] = np.tril(square) + np.tril(square, -1).T
        yield panel.reshape(-1).data


def read_sums(path: Path, diagonal_only: bool = False) -> StoredSums:
    """BadFile where the file is cut short or altered; the checksum is looked at when all of it is read."""
    try:
        with path.open("rb") as file:
            magic, columns, tokens, checksum = _HEADER.unpack(file.read(_HEADER.size))
            if magic != _MAGIC or _HEADER.size + 4 * columns > path.stat().st_size:
                raise ValueError
            diagonal = _floats(file, columns)
            if diagonal_only or path.suffix == ".diagonal":
                return StoredSums(tokens, diagonal)
            if sums_bytes(columns) > path.stat().st_size:
                raise ValueError
            matrix, found = np.empty((columns, columns), np.float32), zlib.crc32(diagonal.data)
            for start, end in _panels(columns):
                panel = _floats(file, (end - start) * end)
                found = zlib.crc32(panel.data, found)
                panel = panel.reshape(end - start, end)
                matrix[start:end, :end] = panel
                matrix[:start, start:end] = panel[:, :start].T
            if found != checksum:
                raise ValueError
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, struct.error):
        raise BadFile(f"{path}: the second moments are cut short or altered; remove the file and run again") from None
    return StoredSums(tokens, diagonal, matrix)


def _floats(file: Any, count: int) -> np.ndarray:
    data = np.fromfile(file, "<f4", count)
    if data.size != count:
        raise ValueError
    return data


def _panels(columns: int) -> list[tuple[int, int]]:
    return [(start, min(start + _PANEL, columns)) for start in range(0, columns, _PANEL)]


def write_index(folder: Path, made_from: dict[str, Any], inputs: tuple[MatrixInput, ...]) -> None:
    """``made_from``: what the sums depend on."""
    INDEX_FORMAT.write(Index(made_from, inputs), folder / INDEX)


def read_index(folder: Path) -> Index:
    """BadFile where there is no index or it is damaged."""
    return INDEX_FORMAT.read(folder / INDEX)


def check_room(folder: Path, needed: int, free: int) -> None:
    """NoSpace unless the disk has room for so many bytes more."""
    if needed > free:
        raise NoSpace(
            f"the second moments need {needed:,} bytes in {folder}, the disk has {free:,} free; "
            "free some, choose another cache folder, or select fewer tensors"
        )
