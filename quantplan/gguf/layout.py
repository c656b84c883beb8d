"""The header of a GGUF file, read and written: what nobody changes stays as it is, byte for byte and in its place.

A vocabulary of 300,000 strings is passed over in a twentieth of a second: values stay bytes until somebody asks. Source of
the format: ``docs/gguf.md`` of ggml and ``gguf.cpp``; versions 2 and 3 (their bytes are the same but for the number),
little-endian. What ``gguf.cpp`` refuses is refused here.
"""

import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.errors import BadFile
from quantplan.tensor import GGUF_ALIGNMENT, padded

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_INTEGERS = (0, 1, 2, 3, 4, 5, 10, 11)
_SIZES = {value_type: struct.calcsize(form) for value_type, form in _FORMATS.items()}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # enum gguf_type
_PYTHON_TYPES = ((bool, BOOL), (str, STRING), (int, UINT32), (float, FLOAT32))  # a bool is an int too
_MAX_DIMS, _MAX_NAME, _MAX_ELEMENTS = 4, 64, 1 << 63  # ggml.h
VERSION = 3
_ALIGNMENT = "general.alignment"
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class MetadataEntry:
    """A key of the metadata. ``type``: enum gguf_type; ``value``: the bytes after it, of arrays with type and count of items."""

    key: str
    type: int
    value: bytes

    @classmethod
    def of(cls, key: str, value: object) -> "MetadataEntry":
        """Of a str, bool, int (stored as uint32), float (float32) or a list of these (int32); TypeError for others."""
        if not isinstance(value, (list, tuple)):
            value_type = _type_of(key, value)
            return cls(key, value_type, _packed(value_type, value))
        value_type = _type_of(key, value[0]) if value else INT32
        value_type = INT32 if value_type == UINT32 else value_type
        items = b"".join(_packed(value_type, item) for item in value)
        return cls(key, ARRAY, _U32.pack(value_type) + _U64.pack(len(value)) + items)

    @property
    def text(self) -> str | None:
        """What a string says, to its first zero byte as llama.cpp reads it; None for anything else."""
        return _text(self.value) if self.type == STRING else None

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The items of an array of strings; None for anything else."""
        return tuple(map(_text, self.items)) if self.is_array and self._item_type == STRING else None

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The items of an array of numbers or booleans; None for anything else."""
        if not self.is_array or self._item_type not in _FORMATS:
            return None
        return struct.unpack_from(f"<{self.count}{_FORMATS[self._item_type][1]}", self.value, 12)

    @property
    def as_c_strings(self) -> "MetadataEntry":
        """As libggml copies it (``gguf_set_kv``): strings end at their first zero byte."""
        if self.type == STRING and b"\0" in self.value[8:]:
            return replace(self, value=_cut(self.value))
        if self.is_array and self._item_type == STRING and self._has_zero_bytes:
            return self.with_items([_cut(item) for item in self.items])
        return self

    @property
    def _ends(self) -> list[int]:
        """Where each item of an array ends."""
        if self._item_type != STRING:
            size = _SIZES[self._item_type]
            return list(range(12 + size, 13 + size * self.count, size))
        start, ends, unpack, value = 12, [], _U64.unpack_from, self.value
        for _ in range(self.count):
            start += 8 + unpack(value, start)[0]
            ends.append(start)
        return ends

    @property
    def _has_zero_bytes(self) -> bool:
        """Whether a string of the array has a zero byte; counted, as a vocabulary has too many items to look into each."""
        lengths = np.diff(np.array([12, *self._ends])) - 8
        of_lengths = (lengths.astype("<u8").view(np.uint8) == 0).sum()
        return self.value.count(b"\0", 12) != of_lengths

    @property
    def _item_type(self) -> int:
        return _U32.unpack_from(self.value)[0]

    @cached_property
    def number(self) -> int | float | bool | None:
        """What a scalar says; None for strings and arrays."""
        return struct.unpack(_FORMATS[self.type], self.value)[0] if self.type in _FORMATS else None

    def with_number(self, number: int) -> "MetadataEntry":
        """The same key and type with another number; BadFile where the type does not hold whole numbers, or is too small."""
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
        ends = self._ends
        return tuple(self.value[begin:end] for begin, end in zip([12, *ends], ends, strict=False))

    def with_items(self, items: Sequence[bytes]) -> "MetadataEntry":
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

    @property
    def length(self) -> int:
        """Length of the header without padding."""
        return 24 + sum(len(entry.raw) for entry in self.entries) + sum(len(tensor.raw) for tensor in self.tensors)

    @property
    def data_offset(self) -> int:
        """Where the data begin."""
        return padded(self.length, self.alignment)

    def changed(self, entries: Mapping[str, MetadataEntry], removed: Iterable[str] = ()) -> "Layout":
        """With ``entries`` in the places of those of the same keys, new ones at the end, and without the ``removed`` keys."""
        kept = {entry.key: entries.get(entry.key, entry) for entry in self.entries}
        kept |= {key: entry for key, entry in entries.items() if key not in kept}
        for key in removed:
            kept.pop(key, None)
        return replace(self, entries=tuple(kept.values()))

    def with_tensors(self, tensors: Iterable[tuple[TensorInfo, int]]) -> "Layout":
        """With these tensors, given with the bytes of their data: each after the one before it."""
        placed, offset = [], 0
        for tensor, size in tensors:
            placed.append(replace(tensor, offset=offset))
            offset += padded(size, self.alignment)
        return replace(self, tensors=tuple(placed))


def _string(text: bytes) -> bytes:
    return _U64.pack(len(text)) + text


def _type_of(key: str, value: object) -> int:
    for python, value_type in _PYTHON_TYPES:
        if isinstance(value, python):
            return value_type
    raise TypeError(f"{key}: metadata of type {type(value).__name__} cannot be written")


def _packed(value_type: int, value: Any) -> bytes:
    return _string(_encoded(value)) if value_type == STRING else struct.pack(_FORMATS[value_type], value)


def _cut(item: bytes) -> bytes:
    return _string(item[8:].partition(b"\0")[0])


def _text(item: bytes) -> str:
    return item[8:].partition(b"\0")[0].decode("utf-8", "replace")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- reading


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
    except (struct.error, ValueError, OverflowError) as error:
        raise BadFile(f"{path}: damaged header ({error}); is the download complete?") from None


def _check_start(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}; give the path of a GGUF file") from None
    if start[:4] != b"GGUF":
        raise BadFile(
            f"{path}: not a GGUF file (it starts with {start[:4]!r}, not b'GGUF'); convert the model to GGUF first"
        )
    if len(start) < 24:
        raise BadFile(f"{path}: cut short inside the header ({len(start)} bytes); download or convert it again")
    version = _U32.unpack_from(start, 4)[0]
    if version not in (2, 3) and version % (1 << 16) == 0:
        raise BadFile(
            f"{path}: a big-endian GGUF file, llama.cpp cannot use it on this machine; convert the model again"
        )
    if version not in (2, 3):
        raise BadFile(f"{path}: GGUF version {version} is not supported (2 and 3 are); convert the model again")


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.position = data, 0

    def layout(self) -> Layout:
        self.take(4)
        version, tensors, entries = self.number(_U32), self.number(_U64), self.number(_U64)
        layout = Layout(
            version,
            tuple(self.entry() for _ in range(entries)),
            tuple(self.tensor() for _ in range(tensors)),
        )
        _check_distinct("key", [entry.key for entry in layout.entries])
        _check_distinct("tensor", [tensor.name for tensor in layout.tensors])
        if layout.alignment <= 0 or layout.alignment & (layout.alignment - 1):
            raise ValueError(f"the alignment {layout.alignment} is not a power of two")
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
        return self.take(self.number(_U64)).decode("utf-8", "surrogateescape")

    def entry(self) -> MetadataEntry:
        key, value_type = self.text(), self.number(_U32)
        end = self.array_end() if value_type == ARRAY else _end_of(self.data, self.position, value_type)
        return MetadataEntry(key, value_type, self.take(end - self.position))

    def array_end(self) -> int:
        value_type = _U32.unpack_from(self.data, self.position)[0]
        count = _U64.unpack_from(self.data, self.position + 4)[0]
        start = self.position + 12
        if value_type != STRING:
            return start + count * _SIZES[value_type]
        unpack, data = _U64.unpack_from, self.data  # a vocabulary has 150,000 of them, and as many merges
        for _ in range(count):
            start += 8 + unpack(data, start)[0]
        return start

    def tensor(self) -> TensorInfo:
        name, count = self.text(), self.number(_U32)
        if len(_encoded(name)) >= _MAX_NAME or not 0 < count <= _MAX_DIMS:
            raise ValueError(
                f"the tensor {name[:_MAX_NAME]!r} has a name of {len(name)} characters and {count} dimensions"
            )
        dims = tuple(self.number(_U64) for _ in range(count))
        if not 0 < prod(dims) < _MAX_ELEMENTS:
            raise ValueError(f"{name} has the shape {dims}")
        return TensorInfo(name, dims, self.number(_U32), self.number(_U64))


def _check_distinct(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"the {what} {next(name for name in names if names.count(name) > 1)!r} is there twice")


def _end_of(data: bytes | mmap.mmap, start: int, value_type: int) -> int:
    """Where a value that is no array ends."""
    return start + 8 + _U64.unpack_from(data, start)[0] if value_type == STRING else start + _SIZES[value_type]
