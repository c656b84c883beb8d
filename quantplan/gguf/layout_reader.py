"""Headers of GGUF files read: versions 2 and 3 (their bytes are the same but for the number), little-endian.

A vocabulary of 300,000 strings is passed over in a twentieth of a second. What ``gguf.cpp`` refuses is refused here.
"""

import mmap
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.file_kinds import START, file_kind, start_in_words, unfinished
from quantplan.gguf.layout import ARRAY, SIZES, STRING, U32, U64, Layout, MetadataEntry, TensorInfo, encoded

_MAX_DIMS, _MAX_NAME, _MAX_ELEMENTS = 4, 64, 1 << 63  # ggml.h


def read_layout(path: Path | str) -> Layout:
    """The header of one file (a shard, of a split model); BadFile where it ends early or is of another version."""
    path = Path(path)
    _check_start(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).layout()
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None
    except KeyError as error:
        raise BadFile(
            f"{path}: damaged header (there is no type {error} of metadata); is the download complete?"
        ) from None
    except _HeaderFault as error:
        raise BadFile(
            f"{path}: damaged header: {error}; convert the model again, or get the file from elsewhere"
        ) from None
    except (struct.error, ValueError, OverflowError) as error:
        reason = f"it ends at byte {path.stat().st_size:,}" if isinstance(error, struct.error) else error
        raise BadFile(f"{path}: damaged header ({reason}); {unfinished(path) or 'is the download complete?'}") from None


def _check_start(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}; give the path of a GGUF file") from None
    if start[:4] != b"GGUF":
        raise BadFile(f"{path}: not a GGUF file{_what_instead(path, start)}")
    if len(start) < 24:
        raise BadFile(f"{path}: cut short inside the header ({len(start)} bytes); download or convert it again")
    version = U32.unpack_from(start, 4)[0]
    if version not in (2, 3) and version % (1 << 16) == 0:
        raise BadFile(
            f"{path}: a big-endian GGUF file, llama.cpp cannot use it on this machine; convert the model again"
        )
    if version not in (2, 3):
        raise BadFile(f"{path}: GGUF version {version} is not supported (2 and 3 are); convert the model again")


def _what_instead(path: Path, start: bytes) -> str:
    kind = file_kind(start, path.stat().st_size)
    return (
        f" but {kind}"
        if kind
        else f" ({start_in_words(start)}); {unfinished(path) or 'download it again, or convert the model to GGUF first'}"
    )


class _HeaderFault(ValueError):
    """A header that is all there and that gguf.cpp refuses; the message is its own."""


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.position = data, 0

    def layout(self) -> Layout:
        self.take(4)
        version, tensors, entries = self.number(U32), self.number(U64), self.number(U64)
        layout = Layout(
            version,
            tuple(self.entry() for _ in range(entries)),
            tuple(self.tensor() for _ in range(tensors)),
        )
        _check_distinct("key", [entry.key for entry in layout.entries])
        _check_distinct("tensor name", [tensor.name for tensor in layout.tensors])
        if layout.alignment <= 0 or layout.alignment & (layout.alignment - 1):
            raise _HeaderFault(f"alignment {layout.alignment} is not a power of two")
        return layout

    def take(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        if len(piece) != size:
            raise ValueError(f"it ends at byte {len(self.data):,}")
        self.position += size
        return piece

    def number(self, form: struct.Struct) -> int:
        return form.unpack(self.take(form.size))[0]

    def text(self) -> str:
        return self.take(self.number(U64)).decode("utf-8", "surrogateescape")

    def entry(self) -> MetadataEntry:
        key, value_type = self.text(), self.number(U32)
        end = self.array_end() if value_type == ARRAY else _end_of(self.data, self.position, value_type)
        return MetadataEntry(key, value_type, self.take(end - self.position))

    def array_end(self) -> int:
        value_type = U32.unpack_from(self.data, self.position)[0]
        count = U64.unpack_from(self.data, self.position + 4)[0]
        start = self.position + 12
        if value_type != STRING:
            return start + count * SIZES[value_type]
        unpack, data = U64.unpack_from, self.data  # a vocabulary has 150,000 of them, and as many merges
        for _ in range(count):
            start += 8 + unpack(data, start)[0]
        return start

    def tensor(self) -> TensorInfo:
        name, count = self.text(), self.number(U32)
        if len(encoded(name)) >= _MAX_NAME or not 0 < count <= _MAX_DIMS:
            raise ValueError(
                f"the tensor {name[:_MAX_NAME]!r} has a name of {len(name)} characters and {count} dimensions"
            )
        dims = tuple(self.number(U64) for _ in range(count))
        if not 0 < prod(dims) < _MAX_ELEMENTS:
            raise _HeaderFault(f"tensor {name!r} has the shape {dims}")
        return TensorInfo(name, dims, self.number(U32), self.number(U64))


def _check_distinct(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise _HeaderFault(f"duplicate {what} {next(name for name in names if names.count(name) > 1)!r}")


def _end_of(data: bytes | mmap.mmap, start: int, value_type: int) -> int:
    """Where a value that is no array ends."""
    return start + 8 + U64.unpack_from(data, start)[0] if value_type == STRING else start + SIZES[value_type]
