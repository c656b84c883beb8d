"""The header of a GGUF file in raw pieces: what nobody changes stays as it is, byte for byte and in its place.

libggml's own writer moves a key that is set to the end and ends strings at their first zero byte. Source of the format:
``docs/gguf.md`` of ggml and ``gguf.cpp``; versions 2 and 3 (their bytes are the same but for the number), little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.tensor import GGUF_ALIGNMENT, padded

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_INTEGERS = (0, 1, 2, 3, 4, 5, 10, 11)
_SIZES = {kind: struct.calcsize(form) for kind, form in _FORMATS.items()}
UINT32, STRING, ARRAY = 4, 8, 9  # enum gguf_type
_ALIGNMENT = "general.alignment"
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class MetadataEntry:
    """A key of the metadata. ``type``: enum gguf_type; ``value``: the bytes after it, of arrays with type and count of items."""

    key: str
    type: int
    value: bytes

    @classmethod
    def string(cls, key: str, text: str) -> MetadataEntry:
        return cls(key, STRING, _string(text.encode()))

    @classmethod
    def integer(cls, key: str, number: int) -> MetadataEntry:
        return cls(key, UINT32, _U32.pack(number))

    @cached_property
    def number(self) -> int | float | bool | None:
        """What a scalar says; None for strings and arrays."""
        return struct.unpack(_FORMATS[self.type], self.value)[0] if self.type in _FORMATS else None

    def with_number(self, number: int) -> MetadataEntry:
        """The same key and type with another number; BadFile where the type is none of whole numbers, or too small."""
        try:
            if self.type not in _INTEGERS:
                raise struct.error("it holds no whole number")
            return replace(self, value=struct.pack(_FORMATS[self.type], number))
        except struct.error as error:
            raise BadFile(f"the metadata {self.key} cannot become {number}: {error}") from None

    @property
    def is_array(self) -> bool:
        return self.type == ARRAY

    @property
    def count(self) -> int:
        """Items of an array."""
        return _U64.unpack_from(self.value, 4)[0]

    @cached_property
    def items(self) -> tuple[bytes, ...]:
        """The items of an array as they are stored, strings with their lengths."""
        kind, start = _U32.unpack_from(self.value)[0], 12
        ends = []
        for _ in range(self.count):
            start = _end_of(self.value, start, kind)
            ends.append(start)
        return tuple(self.value[begin:end] for begin, end in zip([12, *ends], ends, strict=False))

    def with_items(self, items: Sequence[bytes]) -> MetadataEntry:
        """The array with other items of the same type."""
        return replace(self, value=self.value[:4] + _U64.pack(len(items)) + b"".join(items))

    @property
    def raw(self) -> bytes:
        return _string(_encoded(self.key)) + _U32.pack(self.type) + self.value


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the header has it. ``dims``: with the ones at their end that it may have; ``offset``: from the data's start."""

    name: str
    dims: tuple[int, ...]
    type: int
    offset: int = 0

    @property
    def raw(self) -> bytes:
        dims = struct.pack(f"<I{len(self.dims)}Q", len(self.dims), *self.dims)
        return _string(_encoded(self.name)) + dims + struct.pack("<IQ", self.type, self.offset)


@dataclass(frozen=True)
class Layout:
    """Everything before the data of a GGUF file."""

    version: int
    entries: tuple[MetadataEntry, ...]
    tensors: tuple[TensorInfo, ...]

    @cached_property
    def by_key(self) -> dict[str, MetadataEntry]:
        return {entry.key: entry for entry in self.entries}

    @property
    def alignment(self) -> int:
        """What the start of the data and of each tensor are multiples of."""
        entry = self.by_key.get(_ALIGNMENT)
        return int(entry.number or GGUF_ALIGNMENT) if entry else GGUF_ALIGNMENT

    @cached_property
    def header(self) -> bytes:
        """The file's bytes up to its data, padding included."""
        start = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.entries))
        whole = b"".join([start, *(entry.raw for entry in self.entries), *(tensor.raw for tensor in self.tensors)])
        return whole.ljust(padded(len(whole), self.alignment), b"\0")

    def changed(self, entries: Mapping[str, MetadataEntry], removed: Iterable[str] = ()) -> Layout:
        """With ``entries`` in the places of those of the same keys, new ones at the end, and without the ``removed`` keys."""
        kept = {entry.key: entries.get(entry.key, entry) for entry in self.entries}
        kept |= {key: entry for key, entry in entries.items() if key not in kept}
        for key in removed:
            kept.pop(key, None)
        return replace(self, entries=tuple(kept.values()))

    def with_tensors(self, tensors: Iterable[tuple[TensorInfo, int]]) -> Layout:
        """With these tensors, given with the bytes of their data: each behind the one before it."""
        placed, offset = [], 0
        for tensor, size in tensors:
            placed.append(replace(tensor, offset=offset))
            offset += padded(size, self.alignment)
        return replace(self, tensors=tuple(placed))


def _string(text: bytes) -> bytes:
    return _U64.pack(len(text)) + text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- reading


def read_layout(path: Path | str) -> Layout:
    """The header of one file (a shard, of a split model); BadFile where it ends early or is of another version."""
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).layout()
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise BadFile(f"{path}: damaged header ({error}); is the download complete?") from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.position = data, 0

    def layout(self) -> Layout:
        magic, version = self.take(4), self.number(_U32)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it starts with {magic!r} and version {version}, not with GGUF and 2 or 3")
        tensors, entries = self.number(_U64), self.number(_U64)
        return Layout(
            version,
            tuple(self.entry() for _ in range(entries)),
            tuple(self.tensor() for _ in range(tensors)),
        )

    def take(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        if len(piece) != size:
            raise ValueError(f"it ends at byte {len(self.data):,}")
        self.position += size
        return piece

    def number(self, form: struct.Struct) -> int:
        return form.unpack(self.take(form.size))[0]

    def text(self) -> str:
        return self.take(self.number(_U64)).decode("utf-8", "surrogateescape")

    def entry(self) -> MetadataEntry:
        key, kind = self.text(), self.number(_U32)
        end = self.array_end() if kind == ARRAY else _end_of(self.data, self.position, kind)
        return MetadataEntry(key, kind, self.take(end - self.position))

    def array_end(self) -> int:
        kind = _U32.unpack_from(self.data, self.position)[0]
        count = _U64.unpack_from(self.data, self.position + 4)[0]
        start = self.position + 12
        if kind != STRING:
            return start + count * _SIZES[kind]
        unpack, data = _U64.unpack_from, self.data  # a vocabulary has 150,000 of them, and as many merges
        for _ in range(count):
            start += 8 + unpack(data, start)[0]
        return start

    def tensor(self) -> TensorInfo:
        name, count = self.text(), self.number(_U32)
        dims = tuple(self.number(_U64) for _ in range(count))
        return TensorInfo(name, dims, self.number(_U32), self.number(_U64))


def _end_of(data: bytes | mmap.mmap, start: int, kind: int) -> int:
    """Where a value that is no array ends."""
    return start + 8 + _U64.unpack_from(data, start)[0] if kind == STRING else start + _SIZES[kind]
