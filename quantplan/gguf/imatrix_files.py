"""Imatrix files: the GGUF form that llama-imatrix writes today, and the .dat form of before July 2025.

Sources: ``common/imatrix-loader.cpp`` and ``tools/imatrix/imatrix.cpp`` of llama.cpp. Values are taken as
they stand in the file; nothing is filled in for what a file does not tell.
"""

import hashlib
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile
from quantplan.file_kinds import START, file_kind
from quantplan.gguf.layout import VERSION, Layout, MetadataEntry, TensorInfo
from quantplan.gguf.reader import read_container
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.quant_type import BY_NAME
from quantplan.records.files import replacing
from quantplan.tensor import Tensor, padded

_SUM2, _COUNTS, _SUM1 = ".in_sum2", ".counts", ".in_sum"
_DATASETS, _CHUNKS, _CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_REDO = "make it again with `quantplan imatrix`"
_LARGEST_COUNT = 2.0**62
_LONGEST_NAME = 4096  # bytes; a longer "name" means that the file is something else


def read_imatrix(path: Path | str) -> Imatrix:
    """The imatrix in a file of either form, recognised by its content.

    The whole file is read into memory, arrays are read-only views of it where alignment allows. Legacy files
    hold (sum/count) * chunks for all experts of a tensor in one row, so their entries have ``sum2`` of shape
    [1, values] and ``counts`` = [chunks]. Raises BadFile for what is not an imatrix, is cut short, or holds
    values that cannot be sums of squares (NaN, infinite, negative), naming the tensor.
    """
    path = Path(path)
    data = _content(path)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(lambda: hashlib.sha256(data.data).hexdigest())
        content = _read_gguf(path, data) if data[:4].tobytes() == b"GGUF" else _Legacy(path, data).read()
        for entry in content.entries.values():
            _check(path, entry)
        entries = content.entries.values()
        if any(entry.counts.any() for entry in entries) and not any(entry.sum2.any() for entry in entries):
            raise BadFile(f"{path}: all its sums are zero: it has no data; {_REDO}, or go without it")
        return Imatrix(
            path,
            content.entries,
            content.datasets,
            content.chunk_count,
            content.chunk_size,
            content.legacy,
            digest.result(),
        )


@dataclass(frozen=True)
class _Content:
    entries: dict[str, ImatrixEntry]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int
    legacy: bool


def _content(path: Path) -> np.ndarray:
    """uint8 [bytes]: the file, read rather than mapped so that nobody can change it under the numbers."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}; give the path of an imatrix file") from None
    if not data.size:
        raise BadFile(f"{path}: the file is empty; {_REDO}")
    data.setflags(write=False)
    return data


def _check(path: Path, entry: ImatrixEntry) -> None:
    """BadFile unless all sums are finite and no sum of squares or count is negative."""
    low, high = entry.sum2.min(), entry.sum2.max()  # NaN wins both, so two passes see everything
    if not (low >= 0 and high < np.inf):
        raise BadFile(f"{path}: {entry.name} {_fault(entry.sum2)}; {_REDO} (F16 can overflow: try the model in BF16)")
    if entry.sum1 is not None and not np.isfinite(entry.sum1).all():
        raise BadFile(f"{path}: the sums of inputs of {entry.name} are not all finite; {_REDO}")
    if entry.counts.min() < 0:
        raise BadFile(f"{path}: {entry.name} has a negative count ({entry.counts.min()}); {_REDO}")


def _fault(sums: np.ndarray) -> str:
    for what, bad in (("NaN", np.isnan(sums)), ("infinite", np.isinf(sums)), ("negative", sums < 0)):
        if bad.any():
            column = int(bad.any(axis=0).argmax())
            return f"has {bad.sum()} {what} of {sums.size} sums of squares, first in column {column}"
    raise AssertionError("a fault was announced")


# --- GGUF


def _read_gguf(path: Path, data: np.ndarray) -> _Content:
    metadata, tensors = read_container(path)
    by_name = {tensor.name: tensor for tensor in tensors}
    names = [name.removesuffix(_SUM2) for name in by_name if name.endswith(_SUM2)]
    if not names:
        what = (
            f"a model ({metadata['general.architecture']})"
            if "general.architecture" in metadata
            else "a GGUF file without sums"
        )
        raise BadFile(f"{path}: this is {what}, not an imatrix; make one with `quantplan imatrix`")
    for name in by_name:
        for suffix in (_COUNTS, _SUM1):
            if name.endswith(suffix) and name.removesuffix(suffix) + _SUM2 not in by_name:
                raise BadFile(f"{path}: {name} has no {name.removesuffix(suffix)}{_SUM2}; {_REDO}")
    return _Content(
        entries={name: _entry(path, data, by_name, name) for name in names},
        datasets=_strings(metadata.get(_DATASETS)),
        chunk_count=_number(metadata.get(_CHUNKS)),
        chunk_size=_number(metadata.get(_CHUNK_SIZE)),
        legacy=False,
    )


def _strings(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _entry(path: Path, data: np.ndarray, by_name: dict[str, Tensor], name: str) -> ImatrixEntry:
    if name + _COUNTS not in by_name:
        raise BadFile(f"{path}: {name} has sums without counts; {_REDO}")
    counts = _values(path, data, by_name[name + _COUNTS]).ravel()
    if not counts.size or not by_name[name + _SUM2].elements:
        raise BadFile(f"{path}: {name} has no values; {_REDO}")
    if not (np.abs(counts) < _LARGEST_COUNT).all():
        raise BadFile(f"{path}: {name} has NaN or infinite counts, or absurdly large ones; {_REDO}")
    sum2 = _values(path, data, by_name[name + _SUM2])
    if sum2.size % counts.size:
        raise BadFile(f"{path}: {name} has {sum2.size} sums, which {counts.size} counts do not divide evenly; {_REDO}")
    sum2 = sum2.reshape(counts.size, -1) if counts.size > 1 else sum2
    sum1 = _values(path, data, by_name[name + _SUM1]) if name + _SUM1 in by_name else None
    if sum1 is not None and sum1.size != sum2.size:
        raise BadFile(f"{path}: {name} has {sum1.size} sums of inputs but {sum2.size} sums of squares; {_REDO}")
    return ImatrixEntry(
        name, sum2, np.rint(counts).astype(np.int64), None if sum1 is None else sum1.reshape(sum2.shape)
    )


def _values(path: Path, data: np.ndarray, tensor: Tensor) -> np.ndarray:
    """float32 [rows, columns] of a stored tensor."""
    if tensor.type.name != "F32":
        raise BadFile(f"{path}: {tensor.name} is stored as {tensor.type}, an imatrix holds F32 only; {_REDO}")
    return data[tensor.offset : tensor.offset + tensor.bytes].view("<f4").reshape(tensor.rows, tensor.columns)


def write_imatrix(imatrix: Imatrix, path: Path | str) -> None:
    """Writes the GGUF form; ``read_imatrix`` gives the same values back, and llama.cpp reads it.

    A legacy imatrix keeps its scaled sums and counts: their ratio is what llama.cpp uses. Raises BadFile or
    NoSpace where the file cannot be written; an older file stays as it was then.
    """
    metadata: dict[str, object] = {
        "general.type": "imatrix",
        _CHUNKS: imatrix.chunk_count,
        _CHUNK_SIZE: imatrix.chunk_size,
    }
    if imatrix.datasets:
        metadata[_DATASETS] = imatrix.datasets
    arrays = dict(_arrays(imatrix))
    infos = [
        (TensorInfo(name, array.shape[::-1], BY_NAME["F32"].ggml_id), array.nbytes) for name, array in arrays.items()
    ]
    entries = tuple(MetadataEntry.of(key, value) for key, value in metadata.items())
    layout = Layout(VERSION, entries, ()).with_tensors(infos)
    with replacing(path, "wb") as file:
        file.write(layout.header)
        for array in arrays.values():
            file.write(array.tobytes().ljust(padded(array.nbytes), b"\0"))


def _arrays(imatrix: Imatrix) -> Iterator[tuple[str, np.ndarray]]:
    """float32 [matrices, columns] by the name of the stored tensor."""
    for name, entry in imatrix.entries.items():
        yield name + _SUM2, entry.sum2.astype("<f4")
        yield name + _COUNTS, entry.counts.astype("<f4").reshape(-1, 1)
        if entry.sum1 is not None:
            yield name + _SUM1, entry.sum1.astype("<f4")


# --- the legacy form


class _Legacy:
    """int32 n; n times: name (int32 length, bytes), int32 chunks, int32 values, float32 values; then, in all
    but the oldest files, int32 chunks and the data set's name.
    """

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self.path, self.data, self.position = path, data, 0
        self.where = "its header"

    def read(self) -> _Content:
        announced = self._int()
        self._plausible(0 < announced <= self.data.size // 16)
        entries: dict[str, ImatrixEntry] = {}
        for index in range(announced):
            self.where = f"entry {index + 1} of {announced}"
            entry = self._entry(first=index == 0)
            if entry.name in entries:
                raise BadFile(f"{self.path}: two entries for {entry.name}; {_REDO}")
            entries[entry.name] = entry
        chunks, datasets = self._trailer()
        return _Content(entries, datasets, chunks, 0, True)

    def _entry(self, first: bool) -> ImatrixEntry:
        length = self._int()
        self._plausible(0 < length <= _LONGEST_NAME, first)
        raw = self._take(length)
        name = raw.tobytes().decode("utf-8", "replace")
        self._plausible(name.isprintable() and "\ufffd" not in name, first)
        self.where += f" ({name})"
        chunks, values = self._int(), self._int()
        self._plausible(chunks >= 0 and values > 0, first)
        sums = self._take(4 * values).copy().view("<f4").reshape(1, values)  # copied: names end on odd addresses
        sums.setflags(write=False)
        return ImatrixEntry(name, sums, np.array([chunks], np.int64))

    def _trailer(self) -> tuple[int, tuple[str, ...]]:
        """(chunks, data sets): absent in the oldest files, which is no error in llama.cpp either."""
        if self.position == self.data.size:
            return 0, ()
        self.where = "its last lines"
        chunks = self._int()
        if self.position == self.data.size:
            return chunks, ()
        name = self._take(max(0, self._int())).tobytes().decode("utf-8", "replace")
        return chunks, (name,) if name else ()

    def _int(self) -> int:
        return struct.unpack("<i", self._take(4).tobytes())[0]

    def _take(self, size: int) -> np.ndarray:
        end = self.position + size
        if end > self.data.size:
            raise BadFile(
                f"{self.path}: cut short in {self.where}: {end:,} bytes are needed, "
                f"the file has {self.data.size:,}; {_REDO}"
            )
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def _plausible(self, holds: bool, first: bool = True) -> None:
        """What does not begin like an imatrix is called something else, what goes wrong later damaged."""
        if holds:
            return
        if first:
            kind = file_kind(self.data[:START].tobytes(), self.data.size)
            raise BadFile(
                f"{self.path}: not an imatrix, neither in GGUF nor in the legacy .dat form"
                f"{f' but {kind}' if kind else '; give a file of llama-imatrix'}"
            )
        raise BadFile(f"{self.path}: damaged in {self.where}, before byte {self.position:,}; {_REDO}")
