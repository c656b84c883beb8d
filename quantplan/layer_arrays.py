"""Arrays of the metadata with an item for each block: which they are, and what a layer map makes of them."""

from __future__ import annotations

from quantplan.layer_map import LayerMap

_OTHERS = ("rope.dimension_sections", "target_layers", "classifier.output_labels")
_OTHER_PREFIXES = ("ple.", "adapters.")  # ple.layers lists blocks by number: see surgery/architectures/table.py
# some of another length: without the blocks that predict further tokens, or with more items than blocks (deepseek4.cpp)
_OF_ANY_LENGTH = ("attention.indexer.types", "attention.compress_ratios", "attention.sliding_window_pattern")
_WITHOUT_ARCHITECTURE = "xielu."  # apertus.cpp: xielu.alpha_n, alpha_p, beta, eps


def is_per_layer_array(architecture: str, key: str, length: int, blocks: int) -> bool:
    """Whether an array of numbers has an item for each block. ``blocks``: all, those that predict further tokens too."""
    if key.startswith(_WITHOUT_ARCHITECTURE):
        return length <= blocks
    name = key.removeprefix(f"{architecture}.")
    if name == key or name in _OTHERS or name.startswith(_OTHER_PREFIXES):
        return False
    return length == blocks or name in _OF_ANY_LENGTH


def array_items(layer_map: LayerMap, length: int) -> tuple[int, ...]:
    """The items of a per-layer array of that length that make up the new model's array, in order.

    A blended layer has that of its block of the largest share. Items beyond the blocks stay at the end; an array that ends
    before the blocks that predict further tokens still does.
    """
    sources = tuple(layer.blocks[0] for layer in layer_map.layers)
    if length < layer_map.original:
        return sources[: len(sources) - (layer_map.original - length)]
    return sources + tuple(range(layer_map.original, length))
