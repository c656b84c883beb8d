"""GGUF files taken apart, damaged where their structure is, and put together again; the seeds are small and whole."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import gguf
import numpy as np
from mutations import damaged
from tiny_models import arrays_gguf, vocabulary, written

from quantplan.gguf.layout_reader import read_layout

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_NUMBERS = (0, 1, -1, 2, 3, 5, 7, 255, 512, 513, 2**16, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_FLOATS = (0.0, -1.0, 1e-30, 1e38, float("nan"), float("inf"))
_NAMES = (
    b"",
    b"x" * 63,
    b"x" * 64,
    b"x" * 300,
    b"\xff\xfe",
    b"a\nb",
    b"blk.0.",
    b"blk.99999999999.attn_q.weight",
    b"[red]",
)
_SIZES = (0, 1, 31, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass
class GgufParts:
    """What a GGUF file is made of; ``counts``: of tensors and keys, where they shall lie. ``values``: [type, bytes after it]."""

    version: int
    entries: list[tuple[bytes, int, bytes]]
    tensors: list[tuple[bytes, list[int], int, int]]  # name, dims, type, offset
    data: bytes
    alignment: int = 32
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "GgufParts":
        layout = read_layout(path)
        return cls(
            layout.version,
            [(entry.key.encode(), entry.type, entry.value) for entry in layout.entries],
            [(info.name.encode(), [*info.dims], info.type, info.offset) for info in layout.tensors],
            path.read_bytes()[layout.data_offset :],
            layout.alignment,
        )

    def copy(self) -> "GgufParts":
        tensors = [(name, [*dims], kind, offset) for name, dims, kind, offset in self.tensors]
        return GgufParts(self.version, [*self.entries], tensors, self.data, self.alignment)

    @property
    def bytes(self) -> bytes:
        counts = self.counts.get("tensors", len(self.tensors)), self.counts.get("entries", len(self.entries))
        head = b"GGUF" + struct.pack("<IQQ", self.version % 2**32, *(count % 2**64 for count in counts))
        parts = [head]
        for key, kind, value in self.entries:
            parts.append(_string(key) + struct.pack("<I", kind % 2**32) + value)
        for name, dims, kind, offset in self.tensors:
            count = self.counts.get("dims", len(dims)) % 2**32
            sizes = struct.pack(f"<{len(dims)}Q", *(size % 2**64 for size in dims))
            parts.append(_string(name) + struct.pack("<I", count) + sizes)
            parts.append(struct.pack("<IQ", kind % 2**32, offset % 2**64))
        whole = b"".join(parts)
        return whole.ljust(-(-len(whole) // self.alignment) * self.alignment, b"\0") + self.data


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def damaged_gguf(random: Random, parts: GgufParts) -> bytes:
    """One to three faults in the structure, or in one of ten files in its bytes."""
    if random.randint(0, 9) == 0:
        return damaged(random, parts.bytes)
    parts = parts.copy()
    for _ in range(random.randint(1, 3)):
        random.choice(_FAULTS)(random, parts)
    return parts.bytes


# --- faults of the metadata


def _version(random: Random, parts: GgufParts) -> None:
    parts.version = random.choice((0, 1, 2, 3, 4, 0x3000000, 2**32 - 1))


def _counts(random: Random, parts: GgufParts) -> None:
    what, size = random.choice((("tensors", len(parts.tensors)), ("entries", len(parts.entries))))
    parts.counts[what] = random.choice((size + 1, size - 1, *_SIZES))


def _double_key(random: Random, parts: GgufParts) -> None:
    if parts.entries:
        parts.entries.insert(random.randint(0, len(parts.entries)), random.choice(parts.entries))


def _drop_key(random: Random, parts: GgufParts) -> None:
    if parts.entries:
        parts.entries.pop(random.randrange(len(parts.entries)))


def _change_value(random: Random, parts: GgufParts) -> None:
    """A value of the same type, or of another that a reader may take for it."""
    if not parts.entries:
        return
    index = random.randrange(len(parts.entries))
    key, kind, value = parts.entries[index]
    change = random.choice((_other_number, _other_number, _other_type, _other_array, _other_text))
    parts.entries[index] = (key, *change(random, kind, value))


def _other_number(random: Random, kind: int, value: bytes) -> tuple[int, bytes]:
    kind = kind if kind in _SCALARS else random.choice(list(_SCALARS))
    form = _SCALARS[kind]
    if kind in (6, 12):
        return kind, struct.pack(form, random.choice(_FLOATS))
    size = struct.calcsize(form)
    return kind, (random.choice(_NUMBERS) % (1 << (8 * size))).to_bytes(size, "little")


def _other_type(random: Random, kind: int, value: bytes) -> tuple[int, bytes]:
    return random.choice((*range(14), 2**31, 2**32 - 1)), value


def _other_array(random: Random, kind: int, value: bytes) -> tuple[int, bytes]:
    item = random.choice((*_SCALARS, 8, 9, 13, 2**32 - 1))
    count = random.choice((0, 1, 3, *_SIZES))
    items = (_string(b"a") if item == 8 else bytes(12)) * min(count, 3)
    return 9, struct.pack("<IQ", item, count) + items


def _other_text(random: Random, kind: int, value: bytes) -> tuple[int, bytes]:
    text = random.choice(_NAMES)
    return 8, struct.pack("<Q", random.choice((len(text), len(text), *_SIZES))) + text


def _change_key(random: Random, parts: GgufParts) -> None:
    if parts.entries:
        index = random.randrange(len(parts.entries))
        parts.entries[index] = (random.choice(_NAMES), *parts.entries[index][1:])


def _alignment(random: Random, parts: GgufParts) -> None:
    kind = random.choice((4, 4, 4, 5, 6, 7, 10))
    number = random.choice((0, 1, 8, 16, 31, 33, 64, 4096, 2**20, 2**31))
    size = struct.calcsize(_SCALARS[kind])
    value = (number % (1 << (8 * size))).to_bytes(size, "little")
    parts.entries = [entry for entry in parts.entries if entry[0] != b"general.alignment"]
    parts.entries.append((b"general.alignment", kind, value))
    if random.randint(0, 1) and 1 <= number <= 4096:
        parts.alignment = number


# --- faults of the tensors


def _change_tensor(random: Random, parts: GgufParts) -> None:
    if not parts.tensors:
        return
    index = random.randrange(len(parts.tensors))
    name, dims, kind, offset = parts.tensors[index]
    fault = random.choice(("name", "dims", "type", "offset", "rank"))
    if fault == "name":
        name = random.choice((*_NAMES, parts.tensors[random.randrange(len(parts.tensors))][0]))
    elif fault == "dims":
        dims[random.randrange(len(dims))] = random.choice((*_SIZES, 32, 33, 256))
    elif fault == "type":
        kind = random.choice((*range(45), 99, 2**31, 2**32 - 1))
    elif fault == "offset":
        offset = random.choice((offset + 32, offset - 32, offset + 1, *_SIZES))
    else:
        dims = random.choice(([], [*dims, 1, 1, 1, 1], [*dims, 1], [*dims, 2], [2**62, 2], [2**32, 2**31]))
    parts.tensors[index] = (name, dims, kind, offset)


def _move_tensors(random: Random, parts: GgufParts) -> None:
    if not parts.tensors:
        return
    index = random.randrange(len(parts.tensors))
    change = random.choice(("drop", "double", "swap"))
    if change == "drop":
        parts.tensors.pop(index)
    elif change == "double":
        parts.tensors.append(parts.tensors[index])
    else:
        parts.tensors.append(parts.tensors.pop(index))


def _rank(random: Random, parts: GgufParts) -> None:
    parts.counts["dims"] = random.choice((0, 1, 5, 2**31, 2**32 - 1))


def _data(random: Random, parts: GgufParts) -> None:
    """Weights that are cut short, too long, NaN, or noise."""
    size = len(parts.data)
    parts.data = random.choice(
        (
            parts.data[: size // 2],
            parts.data[:-1],
            parts.data * 2,
            b"\xff" * size,
            bytes(size),
            damaged(random, parts.data),
        )
    )


_FAULTS: tuple[Callable[[Random, GgufParts], None], ...] = (
    _version,
    _counts,
    _double_key,
    _drop_key,
    _change_value,
    _change_value,
    _change_value,
    _change_value,
    _change_key,
    _alignment,
    _change_tensor,
    _change_tensor,
    _change_tensor,
    _move_tensors,
    _rank,
    _data,
)


# --- seeds


def small_llama(path: Path, blocks: int = 2) -> Path:
    """A llama model of width 64 with the bundled model's vocabulary, which llama.cpp runs (200 kB)."""
    random, width = np.random.default_rng(0), 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_block_count(blocks)
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(4)
    writer.add_head_count_kv([2] * blocks)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    for key, (value, kind, item) in vocabulary().items():
        writer.add_key_value(key, value, kind, item)
    tokens = len(vocabulary()["tokenizer.ggml.tokens"][0])  # type: ignore[arg-type]
    shapes = {"token_embd.weight": (tokens, width)}
    for block in range(blocks):
        rows = {
            "attn_q": 64,
            "attn_k": 32,
            "attn_v": 32,
            "attn_output": 64,
            "ffn_gate": 64,
            "ffn_up": 64,
            "ffn_down": 64,
        }
        shapes |= {f"blk.{block}.{name}.weight": (count, width) for name, count in rows.items()}
    for name, shape in shapes.items():
        writer.add_tensor(name, (random.standard_normal(shape, np.float32) / 8).astype(np.float16))
    for name in [
        "output_norm",
        *(f"blk.{block}.{norm}" for block in range(blocks) for norm in ("attn_norm", "ffn_norm")),
    ]:
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    return written(writer, path)


def tiny_arrays(path: Path) -> Path:
    """A model's header in all types of metadata, and a few kB of weights in several types."""
    random = np.random.default_rng(1)
    tensors = {
        "token_embd.weight": random.standard_normal((8, 32), np.float32).astype(np.float16),
        "blk.0.attn_q.weight": random.standard_normal((32, 32), np.float32),
        "blk.0.ffn_up_exps.weight": random.standard_normal((2, 8, 32), np.float32).astype(np.float16),
        "blk.1.attn_q.weight": random.standard_normal((32, 32), np.float32),
    }
    arrays_gguf(path, "llama", tensors, {"block_count": 2, "context_length": 64, "rope.freq_base": 1e4})
    parts = GgufParts.of(path)
    for kind, form in _SCALARS.items():
        parts.entries.append((f"odd.{kind}".encode(), kind, struct.pack(form, 1)))
    parts.entries += [
        (b"odd.text", 8, _string(b"a\0b")),
        (b"odd.texts", 9, struct.pack("<IQ", 8, 2) + _string(b"a") + _string(b"")),
        (b"llama.odd.numbers", 9, struct.pack("<IQ2i", 5, 2, 1, 2)),
        (b"general.alignment", 4, struct.pack("<I", 32)),
        (b"split.count", 2, struct.pack("<H", 1)),
        (b"split.no", 2, struct.pack("<H", 0)),
        (b"split.tensors.count", 5, struct.pack("<i", 4)),
    ]
    path.write_bytes(parts.bytes)
    return path
