"""Whether a layer map fits a model: checked against what llama.cpp assumes about its blocks, before anything is written.

Three kinds of findings. ``violations``: llama.cpp would refuse the result, or take a block for what it is not; never allowed.
``doubts``: llama.cpp would run the result, but nobody knows whether as meant (unknown rules, an incomplete last period); allowed
only where the check is skipped. ``notes``: good to know.
"""

from collections.abc import Iterator, Sequence

from quantplan.errors import BadUsage
from quantplan.surgery.architectures.block_counts import count_changes, count_violation
from quantplan.surgery.architectures.block_kinds import BlockKinds, Trait, block_kinds
from quantplan.surgery.architectures.rules import RULES
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

_SIZES = (  # LLAMA_LOAD_LOCALS (models.h) and llm_graph_context use those of block 0
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
    "expert_feed_forward_length",
    "expert_used_count",
    "attention.sliding_window_pattern",
)


def check(model: Model, layer_map: LayerMap, skip_check: bool = False) -> tuple[str, ...]:
    """Notes on what the map does to the model. BadUsage with the reasons where llama.cpp could not run the result as meant.

    ``skip_check``: doubts are notes, too.
    """
    name = f"{model.path.name} ({model.architecture})"
    wrong, doubtful = violations(model, layer_map), doubts(model, layer_map)
    if wrong:
        raise BadUsage(f"{name}: {'; '.join([*wrong, *_incomplete_periods(model, layer_map)])}")
    if doubtful and not skip_check:
        raise BadUsage(f"{name}: {'; '.join(doubtful)}; --skip-architecture-check does it anyway")
    return (*doubtful, *notes(model, layer_map))


def violations(model: Model, layer_map: LayerMap) -> tuple[str, ...]:
    """Why llama.cpp would not load the result, or not take its blocks for what they are; empty where it does."""
    if layer_map.original != model.blocks:
        return (f"the layer map is for a model of {layer_map.original} layers, this one has {model.blocks}",)
    if layer_map.is_identity:
        return ()
    kinds, rules = block_kinds(model), RULES.get(model.architecture)
    if rules and kinds.refused:
        return (f"its layers cannot be rearranged: {kinds.refused}",)
    moved_trailing = _trailing(kinds, model, layer_map)
    if moved_trailing:
        return (moved_trailing,)
    order = _order(kinds, layer_map)
    reasons = [_mixed(kinds, layer_map), *(_misplaced(trait, order) for trait in kinds.traits if trait.expected)]
    reasons += [_not_leading(trait, order) for trait in kinds.traits if trait.leading]
    reasons += [_first(kinds, order), _gone(kinds, order), count_violation(model, kinds.main, len(order))]
    return tuple(reason for reason in reasons if reason)


def doubts(model: Model, layer_map: LayerMap) -> tuple[str, ...]:
    """Why llama.cpp may run the result otherwise than meant."""
    if layer_map.is_identity or layer_map.original != model.blocks:
        return ()
    if model.architecture not in RULES:
        return (f"quantplan does not know the rules for the layers of {model.architecture} models",)
    kinds = block_kinds(model)
    reasons = _incomplete_periods(model, layer_map)
    sizes = kinds.sizes and _misplaced(kinds.sizes, _order(kinds, layer_map))
    return (*reasons, sizes) if sizes else tuple(reasons)


def notes(model: Model, layer_map: LayerMap) -> tuple[str, ...]:
    """What is good to know of a map that may be applied."""
    return () if layer_map.is_identity else tuple(_notes(block_kinds(model), layer_map))


def _notes(kinds: BlockKinds, layer_map: LayerMap) -> Iterator[str]:
    order = _order(kinds, layer_map)
    if _stripped(kinds, layer_map):
        yield "the file no longer predicts further tokens (MTP), which speculative decoding with it needs"
    changed = [key for key in _SIZES if key in kinds.items and kinds.items[key][order[0]] != kinds.items[key][0]]
    if changed:
        yield f"llama.cpp takes some sizes from the first layer, and its {', '.join(changed)} changed"
    for trait in kinds.traits:
        unknown = trait.older and _misplaced(trait.older, order)
        if unknown:
            yield f"builds of llama.cpp that do not read {trait.cause} will not run it as meant: {unknown}"
    if kinds.images and order[: kinds.images] != list(range(kinds.images)):
        yield f"features of images go into the first {kinds.images} layers, and these changed"
    blended = [(layer.blocks[0], block) for layer in layer_map.layers for block in layer.blocks[1:]]
    unlike = [
        key for key, items in kinds.items.items() if any(items[first] != items[block] for first, block in blended)
    ]
    if unlike:
        yield f"blended layers take {', '.join(unlike)} from the layer of the largest share"


def metadata_changes(model: Model, layer_map: LayerMap) -> dict[str, int]:
    """Keys (unsigned, 32 bits) to be written besides block_count, for a map that passed ``check``."""
    if layer_map.is_identity:
        return {}
    kinds = block_kinds(model)
    order = _order(kinds, layer_map)
    changes = count_changes(model, kinds.main, len(order))
    if _stripped(kinds, layer_map):
        changes[f"{model.architecture}.nextn_predict_layers"] = 0
    for trait in kinds.traits:
        if trait.leading:
            old, new = trait.kinds.count(trait.leading), [trait.kinds[block] for block in order].count(trait.leading)
            changes |= {trait.key: new} if new != old else {}
    return changes


# --- the single rules


def _order(kinds: BlockKinds, layer_map: LayerMap) -> list[int]:
    """The original's block at each place (of a blend: that of the largest share), without the trailing blocks."""
    return [block for block in layer_map.source_blocks if block < kinds.main]


def _trailing(kinds: BlockKinds, model: Model, layer_map: LayerMap) -> str | None:
    """Blocks that predict further tokens: llama.cpp finds them at the end, by their number."""
    if not kinds.trailing:
        return None
    last = list(range(kinds.main, model.blocks))
    copied = [layer.copied for layer in layer_map.layers]
    elsewhere = {block for layer in layer_map.layers[: -kinds.trailing] for block in layer.blocks} & set(last)
    if _stripped(kinds, layer_map):
        return None
    if copied[-kinds.trailing :] == last and not elsewhere and len(copied) > kinds.trailing:
        return None
    which = f"layer {last[0]}" if len(last) == 1 else f"layers {last[0]}-{last[-1]}"
    return (
        f"{which} must stay at the end, unchanged: {'it predicts' if len(last) == 1 else 'they predict'} further tokens "
        f"({model.architecture}.nextn_predict_layers = {kinds.trailing}); 'strip mtp' removes what predicts them"
    )


def _stripped(kinds: BlockKinds, layer_map: LayerMap) -> bool:
    """Whether the map leaves none of the blocks that predict further tokens."""
    return kinds.trailing > 0 and all(max(layer.blocks) < kinds.main for layer in layer_map.layers)


def _mixed(kinds: BlockKinds, layer_map: LayerMap) -> str | None:
    for place, layer in enumerate(layer_map.layers):
        first, *others = layer.blocks
        for other in others:
            if kinds.name(first) != kinds.name(other):
                return (
                    f"layer {place} would blend layer {first} ({kinds.name(first)}) with layer {other} "
                    f"({kinds.name(other)}): only layers of one kind can be blended"
                )
    return None


def _misplaced(trait: Trait, order: Sequence[int]) -> str | None:
    """Places whose block is not what llama.cpp takes it for."""
    assert trait.expected is not None
    wrong = [(place, block) for place, block in enumerate(order) if trait.expected(place) != trait.kinds[block]]
    if not wrong:
        return None
    place, block = wrong[0]
    more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
    return (
        f"layer {place} would be the original's {block} ({trait.kinds[block]}){more}, but llama.cpp takes layer {place} as "
        f"{trait.expected(place)} ({trait.cause}{trait.rule})"
    )


def _incomplete_periods(model: Model, layer_map: LayerMap) -> list[str]:
    """Periods that the original has a whole number of and the result does not."""
    if model.architecture not in RULES or layer_map.original != model.blocks:
        return []
    kinds = block_kinds(model)
    count = len(_order(kinds, layer_map))
    reasons = [
        f"{count} layers are not a multiple of {trait.period} like the original's {kinds.main} ({trait.cause})"
        for trait in kinds.traits
        if trait.period > 1 and kinds.main % trait.period == 0 and count % trait.period
    ]
    return list(dict.fromkeys(reasons))


def _not_leading(trait: Trait, order: Sequence[int]) -> str | None:
    names = [trait.kinds[block] for block in order]
    count = names.count(trait.leading or "")
    late = next((place for place, name in enumerate(names) if name == trait.leading and place >= count), None)
    if late is None:
        return None
    early = next(place for place, name in enumerate(names) if name != trait.leading)
    return (
        f"layer {late} would be the original's {order[late]} ({trait.leading}), after layer {early}, the original's "
        f"{order[early]} ({names[early]}): llama.cpp takes {trait.leading} layers only at the start ({trait.cause})"
    )


def _first(kinds: BlockKinds, order: Sequence[int]) -> str | None:
    if not order:
        return "no layer would remain"
    for trait in kinds.traits:
        name = trait.kinds[order[0]]
        if name in kinds.first_not:
            return f"layer {order[0]} ({name}) cannot be the first: it needs a layer before it"
    heads = kinds.items.get("attention.head_count")
    if heads and heads[0] and not heads[order[0]]:
        return (
            f"layer {order[0]} has no attention heads and cannot be the first: llama.cpp takes the head size from there"
        )
    return None


def _gone(kinds: BlockKinds, order: Sequence[int]) -> str | None:
    for needed in kinds.stays:
        blocks = [block for block in range(kinds.main) if kinds.are(block, needed)]
        if blocks and not set(blocks) & set(order):
            which = ("at least one of " if len(blocks) > 1 else "") + _listed(blocks)
            return f"{which} ({' and '.join(sorted(needed))}) must stay: llama.cpp does not run the model without"
    return None


def _listed(blocks: Sequence[int]) -> str:
    shown = ", ".join(map(str, blocks[:8]))
    return f"layers {shown}{' ...' if len(blocks) > 8 else ''}" if len(blocks) > 1 else f"layer {shown}"
