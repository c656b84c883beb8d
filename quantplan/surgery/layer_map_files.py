"""The record beside an operated model: the edits, the layer map, what it was made from and what was computed anew."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.records.codec import read_record, write_record
from quantplan.surgery.layer_map import Layer, LayerMap, Term, copy_of

LAYER_MAP_FORMAT, LAYER_MAP_VERSION = "quantplan-layer-map", 1  # 1: first
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
    """A tensor that was computed: from which of the source's, and what it is stored as."""

    tensor: str
    type: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class LayerMapRecord:
    """``edits``: the text that the map was made of."""

    edits: str
    layer_map: LayerMap
    source: NamedFile
    result: NamedFile
    reencoded: tuple[Reencoded, ...] = ()
    notes: tuple[str, ...] = ()


def record_path(out: Path) -> Path:
    """Where the record of a model file lies: beside it."""
    return out.with_name(out.name.removesuffix(".gguf") + SUFFIX)


def layers_content(layer_map: LayerMap) -> list[Any]:
    """The layers as JSON: a block's number for a copy, else the terms that are added up."""
    return [
        layer.copied if layer.copied is not None else [_term(each) for each in layer.terms]
        for layer in layer_map.layers
    ]


def _term(term: Term) -> dict[str, Any]:
    return {"block": term.block, "weight": term.weight, "scales": dict(term.scales)}


def write_layer_map(record: LayerMapRecord, path: Path) -> None:
    """Raises BadFile or NoSpace where it cannot be written."""
    content = {"edits": record.edits, "original": record.layer_map.original, "layers": layers_content(record.layer_map)}
    content |= {"source": asdict(record.source), "result": asdict(record.result)}
    content |= {"reencoded": [asdict(each) for each in record.reencoded], "notes": list(record.notes)}
    write_record(path, LAYER_MAP_FORMAT, LAYER_MAP_VERSION, content)


def read_layer_map(path: Path | str) -> LayerMapRecord:
    """A record as it was written; BadFile where fields are missing, or a layer is made of a block that is not there."""
    content = read_record(path, LAYER_MAP_FORMAT, LAYER_MAP_VERSION)
    try:
        layers = layers_from(content["layers"])
        record = LayerMapRecord(
            edits=str(content["edits"]),
            layer_map=LayerMap(int(content["original"]), layers),
            source=NamedFile(**content["source"]),
            result=NamedFile(**content["result"]),
            reencoded=tuple(
                Reencoded(each["tensor"], each["type"], tuple(each["sources"])) for each in content["reencoded"]
            ),
            notes=tuple(content["notes"]),
        )
        _check(record.layer_map)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadFile(
            f"{path}: damaged layer map ({type(error).__name__}: {error}); give the text of the edits instead"
        ) from None
    return record


def layers_from(content: list[Any]) -> tuple[Layer, ...]:
    """What ``layers_content`` wrote; KeyError, TypeError, AttributeError or ValueError for anything else."""
    return tuple(_layer(each) for each in content)


def _layer(content: Any) -> Layer:
    if isinstance(content, int) and not isinstance(content, bool):
        return copy_of(content)
    return Layer(tuple(Term(int(each["block"]), _number(each["weight"]), _scales(each["scales"])) for each in content))


def _scales(content: Any) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((str(role), _number(factor)) for role, factor in content.items()))


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number")
    return number


def _check(layer_map: LayerMap) -> None:
    if not layer_map.layers or not all(layer.terms for layer in layer_map.layers):
        raise ValueError("a layer is made of nothing")
    numbers = [block for layer in layer_map.layers for block in layer.blocks]
    wrong = next((block for block in numbers if not 0 <= block < layer_map.original), None)
    if wrong is not None:
        raise ValueError(f"there is no block {wrong} in a model of {layer_map.original}")
