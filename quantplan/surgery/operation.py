"""An operation: every tensor of the edited model, its metadata and its exact size, from the header of the original alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from quantplan.errors import BadUsage
from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.layout import Layout, MetadataEntry, TensorInfo
from quantplan.gguf.layout_reader import read_layout
from quantplan.imatrix import Imatrix
from quantplan.surgery.architectures.check import check, metadata_changes
from quantplan.surgery.edited_tensors import EditedTensor, edited_tensors
from quantplan.surgery.encode_tensors import check_encodable
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model, padded

_NAME = "general.name"
_SPLIT = "split."  # keys of a shard; the result is one file


@dataclass(frozen=True)
class Operation:
    """``layout``: the new file's header; ``file_bytes``: its exact size; ``notes``: sentences for a person.

    ``imatrix``: the original's, used for the tensors that are encoded again.
    """

    model: Model
    layer_map: LayerMap
    tensors: tuple[EditedTensor, ...]
    layout: Layout
    file_bytes: int
    notes: tuple[str, ...] = ()
    imatrix: Imatrix | None = None

    @property
    def reencoded(self) -> tuple[EditedTensor, ...]:
        """The tensors whose weights are computed; all others are copied byte for byte."""
        return tuple(tensor for tensor in self.tensors if not tensor.copied)

    @property
    def elements(self) -> int:
        """Weights of the new model."""
        return sum(tensor.first.elements for tensor in self.tensors)


def operate(
    model: Model,
    layer_map: LayerMap,
    *,
    imatrix: Imatrix | None = None,
    name: str | None = None,
    skip_check: bool = False,
) -> Operation:
    """The operation, checked; models without weights (header only) will do. ``name``: general.name of the new model.

    Raises BadUsage where the map does not fit the model or its architecture (``skip_check`` allows what is only doubtful),
    where blended layers differ, or where weights cannot be encoded; NothingSelected for a scaled role that does not exist.
    """
    tensors = edited_tensors(model, layer_map)
    check_encodable(tensors, imatrix)
    notes = check(model, layer_map, skip_check)
    layouts = [read_layout(path) for path in model.paths]
    infos = {info.name: info for layout in layouts for info in layout.tensors}
    split_keys = [entry.key for entry in layouts[0].entries if entry.key.startswith(_SPLIT)]
    layout = layouts[0].changed(_changed_entries(layouts[0], model, layer_map, name, skip_check), split_keys)
    layout = layout.with_tensors(
        (TensorInfo(tensor.name, infos[tensor.first.name].dims, tensor.type.ggml_id), tensor.bytes)
        for tensor in tensors
    )
    size = _file_bytes(model, tensors, layout)
    return Operation(model, layer_map, tensors, layout, size, (*notes, *_reencoded_notes(tensors)), imatrix)


def _reencoded_notes(tensors: Sequence[EditedTensor]) -> list[str]:
    lossy = [tensor for tensor in tensors if not tensor.copied and tensor.type.family != "float"]
    if not lossy:
        return []
    types = ", ".join(sorted({tensor.type.name for tensor in lossy}))
    return [
        f"{len(lossy)} blended or scaled tensors are quantized again ({types}), which adds to the loss; better edit the "
        "unquantized model, then quantize the result"
    ]


def _file_bytes(model: Model, tensors: Sequence[EditedTensor], layout: Layout) -> int:
    size = len(layout.header) + sum(padded(tensor.bytes, layout.alignment) for tensor in tensors)
    last = tensors[-1].bytes
    return size if _padded_at_end(model) else size - (padded(last, layout.alignment) - last)


def _padded_at_end(model: Model) -> bool:
    """Some writers end a file with its last weight."""
    last = model.tensors[-1]
    return model.paths[-1].stat().st_size > last.offset + last.bytes or last.bytes == padded(last.bytes)


# --- metadata


def _changed_entries(
    layout: Layout, model: Model, layer_map: LayerMap, name: str | None, skip_check: bool
) -> dict[str, MetadataEntry]:
    """The entries that change or are new."""
    arrays = [entry for entry in layout.entries if _is_per_layer(entry, model)]
    if not skip_check:
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
        entries[key] = old.with_number(number) if old else MetadataEntry.of(key, number)
    if name is not None:
        entries[_NAME] = MetadataEntry.of(_NAME, name)
    return entries


def _is_per_layer(entry: MetadataEntry, model: Model) -> bool:
    return entry.is_array and is_per_layer_array(model.architecture, entry.key, entry.count, model.blocks)


def _check_agreement(entry: MetadataEntry, layer_map: LayerMap) -> None:
    for layer in layer_map.layers:
        first, *others = [block for block in layer.blocks if block < entry.count] or [0]
        for other in others:
            if entry.items[other] != entry.items[first]:
                raise BadUsage(
                    f"layers {first} and {other} cannot be blended: they differ in {entry.key}; with "
                    f"--skip-architecture-check the value of layer {first} is used"
                )
