"""Headers of files that are yet to be made: how large llama-quantize's will be, one of fewer blocks, one without weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.layout import VERSION, Layout, MetadataEntry, TensorInfo
from quantplan.gguf.layout_reader import read_layout
from quantplan.quant_type import QuantType
from quantplan.records.files import replacing
from quantplan.tensor import Model, Tensor, padded

_LEFT_OUT = ("tokenizer.", "split.", "general.alignment")
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


@dataclass(frozen=True)
class ImatrixNote:
    """What llama-quantize writes about the imatrix into a file's metadata (tools/quantize/quantize.cpp)."""

    file: str
    dataset: str | None
    entries: int
    chunks: int


def metadata_bytes(model: Model, note: ImatrixNote | None) -> int:
    """Bytes before the tensor data in a file that llama-quantize makes of the model."""
    numbers = {"general.quantization_version": 2, "general.file_type": 0}
    entries = [MetadataEntry.of(key, number) for key, number in numbers.items()] + (_entries(note) if note else [])
    kept = _copied_entries(model.path, model.digest)
    layout = Layout(VERSION, kept, ()).changed({entry.key: entry for entry in entries}, _SPLIT_KEYS)
    return padded(layout.with_tensors(map(_info, model.tensors)).length)


@lru_cache(maxsize=2)
def _copied_entries(path: Path, _digest: str) -> tuple[MetadataEntry, ...]:
    return tuple(entry.as_c_strings for entry in read_layout(path).entries)


def _entries(note: ImatrixNote) -> list[MetadataEntry]:
    values: dict[str, object] = {"file": _override(note.file), "entries_count": note.entries}
    if note.dataset is not None:
        values["dataset"] = _override(note.dataset)
    if note.chunks > 0:
        values["chunks_count"] = note.chunks
    return [MetadataEntry.of(f"quantize.imatrix.{key}", value) for key, value in values.items()]


def _override(text: str) -> str:
    """What llama_model_kv_override.val_str holds: 127 bytes."""
    return text.encode("utf-8", "surrogateescape")[:127].decode("utf-8", "surrogateescape")


def _info(tensor: Tensor) -> tuple[TensorInfo, int]:
    return TensorInfo(tensor.name, tensor.shape, tensor.type.ggml_id), tensor.bytes


def shortened_header(
    model: Model, tensors: tuple[Tensor, ...], blocks: Sequence[int], changes: Mapping[str, int | str | None]
) -> bytes:
    """The header of a file with these tensors and the model's metadata, made to fit the ``blocks`` of it that are kept.

    Per-layer arrays keep the items of ``blocks``; ``changes`` sets keys (int as uint32), None removes one. The tokenizer
    is left out: its strings would be most of the file.
    """
    source = read_layout(model.path)
    entries = tuple(_of_blocks(entry, model, blocks) for entry in source.entries if not entry.key.startswith(_LEFT_OUT))
    changed = {key: MetadataEntry.of(key, value) for key, value in changes.items() if value is not None}
    layout = Layout(VERSION, entries, ()).changed(changed, [key for key, value in changes.items() if value is None])
    return layout.with_tensors(map(_info, tensors)).header


def _of_blocks(entry: MetadataEntry, model: Model, blocks: Sequence[int]) -> MetadataEntry:
    """Arrays of numbers with an item for each block: the items of the kept ones."""
    if entry.numbers is None or not is_per_layer_array(model.architecture, entry.key, entry.count, model.blocks):
        return entry
    return entry.with_items([entry.items[place] for place in array_items(tuple(blocks), model.blocks, entry.count)])


def write_header_only(
    path: Path | str,
    architecture: str,
    metadata: Mapping[str, object],
    tensors: Iterable[tuple[str, tuple[int, ...], QuantType]],
) -> Path:
    """Writes a sparse file of the full length: all that a model's header says, and a hole where its weights would be.

    llama-quantize --dry-run, and so planning, needs no more; a 671B model's header is a megabyte or two on disk. ``metadata``:
    see ``MetadataEntry.of``; tensors as (name, shape in ggml order, stored type). BadFile or NoSpace where it cannot be written.
    """
    infos = [_info(Tensor(*tensor)) for tensor in tensors]
    values = {"general.architecture": architecture, **metadata}
    entries = tuple(MetadataEntry.of(key, value) for key, value in values.items())
    layout = Layout(VERSION, entries, ()).with_tensors(infos)
    with replacing(path, "wb") as file:
        file.write(layout.header)
        file.truncate(len(layout.header) + sum(padded(size) for _, size in infos))
    return Path(path)
