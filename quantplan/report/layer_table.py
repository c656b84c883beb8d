"""A layer map as a table: what each layer of the new model is made of."""

from collections import Counter
from collections.abc import Iterator

from quantplan.block_ranges import runs_text
from quantplan.report.table import Table
from quantplan.surgery.layer_map import Layer, LayerMap

IN_PLACE, MOVED, COPY, SCALED, BLEND = "in place", "moved", "copy", "scaled", "blend"


def layer_kinds(layer_map: LayerMap) -> list[str]:
    """The kind of each new layer; of an original layer that is used several times the first use is not a copy."""
    seen: Counter[int] = Counter()
    return [_kind(index, layer, seen) for index, layer in enumerate(layer_map.layers)]


def _kind(index: int, layer: Layer, seen: Counter[int]) -> str:
    if layer.copied is None:
        return BLEND if len(layer.blocks) > 1 else SCALED
    seen[layer.copied] += 1
    if seen[layer.copied] > 1:
        return COPY
    return IN_PLACE if layer.copied == index else MOVED


def layer_table(layer_map: LayerMap, title: str) -> Table:
    """Consecutive layers of the same kind share a row."""
    deleted = _deleted(layer_map)
    notes = (f"left out: {deleted}",) if deleted else ()
    return Table(title, ("new layer", "made of", "kind"), tuple(_rows(layer_map)), notes)


def _rows(layer_map: LayerMap) -> Iterator[tuple[str, str, str]]:
    layers, kinds = layer_map.layers, layer_kinds(layer_map)
    start = 0
    for index in range(1, len(layers) + 1):
        if index < len(layers) and kinds[index] == kinds[start] and _follows(layers[index - 1], layers[index]):
            continue
        yield _span(start, index - 1), _made_of(layers[start], layers[index - 1]), kinds[start]
        start = index


def _follows(layer: Layer, following: Layer) -> bool:
    return layer.copied is not None and following.copied == layer.copied + 1


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _made_of(first: Layer, last: Layer) -> str:
    if first.copied is None or last.copied is None:
        return str(first)
    return _span(first.copied, last.copied)


def _deleted(layer_map: LayerMap) -> str:
    used = {block for layer in layer_map.layers for block in layer.blocks}
    return runs_text(block for block in range(layer_map.original) if block not in used)
