"""The record next to an edited model: the edits, the layer map, the source and the tensors that were encoded again."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.records.codec import RecordFormat, decode, encode, leaf, register, shape
from quantplan.surgery.layer_map import Layer, LayerMap, Term, copy_of

SUFFIX = ".layers.json"


@dataclass(frozen=True)
class NamedFile:
    """A model file, without its folder: the record is published with it."""

    file: str
    name: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class Reencoded:
    """A tensor that is not a copy: the type that it is stored as, and the source's tensors that it was computed from."""

    tensor: str
    type: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class LayerMapRecord:
    """``edits``: the text that makes the layer map."""

    edits: str
    layer_map: LayerMap
    source: NamedFile
    result: NamedFile
    reencoded: tuple[Reencoded, ...] = ()
    notes: tuple[str, ...] = ()


def record_path(out: Path) -> Path:
    """The place of a model file's record: next to it."""
    return out.with_name(out.name.removesuffix(".gguf") + SUFFIX)


def _encoded(layer: Layer) -> Any:
    """A block's number for a copy, else the terms that are added up."""
    return layer.copied if layer.copied is not None else [encode(term) for term in layer.terms]


def _decoded(content: Any) -> Layer:
    if isinstance(content, int) and not isinstance(content, bool):
        return copy_of(content)
    return Layer(decode(content, tuple[Term, ...]))


def _check(record: LayerMapRecord) -> None:
    layer_map = record.layer_map
    if not layer_map.layers or not all(layer.terms for layer in layer_map.layers):
        raise ValueError("a layer without sources")
    numbers = [block for layer in layer_map.layers for block in layer.blocks]
    wrong = next((block for block in numbers if not 0 <= block < layer_map.original), None)
    if wrong is not None:
        raise ValueError(f"there is no block {wrong} in a model of {layer_map.original}")
    terms = [term for layer in layer_map.layers for term in layer.terms]
    if not all(math.isfinite(factor) for term in terms for factor in (term.weight, *dict(term.scales).values())):
        raise ValueError("a weight or scale is NaN or infinite")


shape(
    Term,
    written=lambda fields: fields | {"scales": dict(fields["scales"])},
    read=lambda fields: fields | {"scales": sorted(fields["scales"].items())},
)
leaf(Layer, _encoded, _decoded)
shape(LayerMapRecord, merged=("layer_map",))
LAYER_MAPS = register(
    RecordFormat("quantplan-layer-map", 1, LayerMapRecord, "layer map", "give the text of the edits instead", _check)
)
