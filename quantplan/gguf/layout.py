"""The header of a GGUF file as a value: what nobody changes stays as it is, byte for byte and in its place.

Values stay bytes until somebody asks. Source of the format: ``docs/gguf.md`` of ggml and ``gguf.cpp``.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from quantplan.errors import BadFile
from quantplan.tensor import GGUF_ALIGNMENT, padded

_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_INTEGERS = (0, 1, 2, 3, 4, 5, 10, 11)
SIZES = {value_type: struct.calcsize(form) for value_type, form in _FORMATS.items()}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # enum gguf_type
_PYTHON_TYPES = ((bool, BOOL), (str, STRING), (int, UINT32), (float, FLOAT32))  # a bool is an int too
VERSION = 3
_ALIGNMENT = "general.alignment"
U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


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
        return cls(key, ARRAY, U32.pack(value_type) + U64.pack(len(value)) + items)

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
            size = SIZES[self._item_type]
            return list(range(12 + size, 13 + size * self.count, size))
        start, ends, unpack, value = 12, [], U64.unpack_from, self.value
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
        return U32.unpack_from(self.value)[0]

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
        return U64.unpack_from(self.value, 4)[0]

    @cached_property
    def items(self) -> tuple[bytes, ...]:
        """The items of an array as they are stored, strings with their lengths."""
        ends = self._ends
        return tuple(self.value[begin:end] for begin, end in zip([12, *ends], ends, strict=False))

    def with_items(self, items: Sequence[bytes]) -> "MetadataEntry":
        """The array with other items of the same type."""
        return replace(self, value=self.value[:4] + U64.pack(len(items)) + b"".join(items))

    @property
    def raw(self) -> bytes:
        return _string(encoded(self.key)) + U32.pack(self.type) + self.value


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
        return _string(encoded(self.name)) + dims + struct.pack("<IQ", self.type, self.offset)


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
    return U64.pack(len(text)) + text


def _type_of(key: str, value: object) -> int:
    for python, value_type in _PYTHON_TYPES:
        if isinstance(value, python):
            return value_type
    raise TypeError(f"{key}: metadata of type {type(value).__name__} cannot be written")


def _packed(value_type: int, value: Any) -> bytes:
    return _string(encoded(value)) if value_type == STRING else struct.pack(_FORMATS[value_type], value)


def _cut(item: bytes) -> bytes:
    return _string(item[8:].partition(b"\0")[0])


def _text(item: bytes) -> str:
    return item[8:].partition(b"\0")[0].decode("utf-8", "replace")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
