"""What an operation makes of a model, from its header alone: every tensor of the new file, its metadata, its exact size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantplan.errors import BadUsage
from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.layout import Layout, MetadataEntry, TensorInfo, read_layout
from quantplan.imatrix import Imatrix
from quantplan.surgery.architectures.check import check, metadata_changes
from quantplan.surgery.assembly import TensorPart, assemble, check_encodable
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model, padded

_NAME = "general.name"
_SPLIT = "split."  # keys of a shard: a result is one file


@dataclass(frozen=True)
class Operation:
    """``layout``: the new file's header; ``file_bytes``: its exact size; ``notes``: sentences for a person.

    ``imatrix``: what re-encoded tensors are weighted with.
    """

    model: Model
    layer_map: LayerMap
    parts: tuple[TensorPart, ...]
    layout: Layout
    file_bytes: int
    notes: tuple[str, ...] = ()
    imatrix: Imatrix | None = None

    @property
    def reencoded(self) -> tuple[TensorPart, ...]:
        """The tensors whose weights are computed; all others are copied, to the byte."""
        return tuple(part for part in self.parts if not part.copied)

    @property
    def elements(self) -> int:
        """Weights of the new model."""
        return sum(part.first.elements for part in self.parts)


def operate(
    model: Model, layer_map: LayerMap, *, imatrix: Imatrix | None = None, name: str | None = None, forced: bool = False
) -> Operation:
    """The operation, checked; header-only models will do. ``name``: general.name of the new model.

    Raises BadUsage where the map does not fit the model or its architecture (``forced`` allows what only may be wrong), where
    blended layers differ, or weights cannot be encoded; NothingSelected for a scaled role that is not there.
    """
    parts = assemble(model, layer_map)
    check_encodable(parts, imatrix)
    notes = check(model, layer_map, forced)
    layouts = [read_layout(path) for path in model.paths]
    infos = {info.name: info for layout in layouts for info in layout.tensors}
    layout = layouts[0].changed(_entries(layouts[0], model, layer_map, name, forced), _split_keys(layouts[0]))
    layout = layout.with_tensors((_info(part, infos), part.bytes) for part in parts)
    return Operation(
        model, layer_map, parts, layout, _size(model, parts, layout), (*notes, *_reencoded_notes(parts)), imatrix
    )


def _reencoded_notes(parts: Sequence[TensorPart]) -> list[str]:
    lossy = [part for part in parts if not part.copied and part.type.family != "float"]
    if not lossy:
        return []
    kinds = ", ".join(sorted({part.type.name for part in lossy}))
    return [
        f"{len(lossy)} blended or scaled tensors are decoded, added up and encoded again as {kinds}, which loses some of what "
        "quantization had left: better operate on the unquantized model, then quantize"
    ]


def _info(part: TensorPart, infos: dict[str, TensorInfo]) -> TensorInfo:
    return TensorInfo(part.name, infos[part.first.name].dims, part.type.ggml_id)


def _size(model: Model, parts: Sequence[TensorPart], layout: Layout) -> int:
    size = len(layout.header) + sum(padded(part.bytes, layout.alignment) for part in parts)
    return size if _padded_at_end(model) else size - (padded(parts[-1].bytes, layout.alignment) - parts[-1].bytes)


def _padded_at_end(model: Model) -> bool:
    """Some writers end a file with its last weight."""
    last = model.tensors[-1]
    return model.paths[-1].stat().st_size > last.offset + last.bytes or last.bytes == padded(last.bytes)


# --- metadata


def _split_keys(layout: Layout) -> list[str]:
    return [entry.key for entry in layout.entries if entry.key.startswith(_SPLIT)]


def _entries(
    layout: Layout, model: Model, layer_map: LayerMap, name: str | None, forced: bool
) -> dict[str, MetadataEntry]:
    """The entries that change, or are new."""
    arrays = [entry for entry in layout.entries if _is_per_layer(entry, model)]
    if not forced:
        for entry in arrays:
            _check_agreement(entry, layer_map)
    entries = {
        entry.key: entry.with_items(
            [entry.items[index] for index in array_items(layer_map.source_blocks, layer_map.original, entry.count)]
        )
        for entry in arrays
    }
    numbers = {f"{model.architecture}.block_count": len(layer_map)} | metadata_changes(model, layer_map)
    for key, number in numbers.items():
        old = layout.by_key.get(key)
        entries[key] = old.with_number(number) if old else MetadataEntry.integer(key, number)
    if name is not None:
        entries[_NAME] = MetadataEntry.string(_NAME, name)
    return entries


def _is_per_layer(entry: MetadataEntry, model: Model) -> bool:
    return entry.is_array and is_per_layer_array(model.architecture, entry.key, entry.count, model.blocks)


def _check_agreement(entry: MetadataEntry, layer_map: LayerMap) -> None:
    for layer in layer_map.layers:
        first, *others = [block for block in layer.blocks if block < entry.count] or [0]
        for other in others:
            if entry.items[other] != entry.items[first]:
                raise BadUsage(
                    f"layers {first} and {other} cannot be blended: they differ in {entry.key}; --force takes it from {first}"
                )
