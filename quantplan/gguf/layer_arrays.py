"""Arrays of the metadata with an item for each block: which they are, and what a layer map makes of them."""

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


def array_items(source_blocks: tuple[int, ...], original: int, length: int) -> tuple[int, ...]:
    """The items of a per-layer array of that length that make up the new model's array, in order.

    ``source_blocks``: for each block of the new model, the block of the original whose item it takes. ``original``: number
    of blocks of the original. Items beyond the blocks stay at the end; an array that ends before the blocks that predict
    further tokens still does.
    """
    if length < original:
        return tuple(block for block in source_blocks if block < length)
    return source_blocks + tuple(range(original, length))
