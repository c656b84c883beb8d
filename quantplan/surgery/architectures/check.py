"""What a layer map may do to a model: checked against what llama.cpp assumes about its blocks, before anything is written.

Three kinds of things are kept apart. What llama.cpp would refuse, or take for something else than it is, is never done
(``violations``). What it would run but nobody can vouch for is done only when forced (``doubts``): an architecture without known
rules, a last period that is cut short. The rest are notes.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantplan.errors import BadUsage
from quantplan.surgery.architectures.counts import count_changes, count_violation
from quantplan.surgery.architectures.kinds import BlockKinds, Trait, block_kinds
from quantplan.surgery.architectures.table import RULES
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

_SIZES = (  # LLAMA_LOAD_LOCALS (models.h) and llm_graph_context have those of block 0
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
    "expert_feed_forward_length",
    "expert_used_count",
    "attention.sliding_window_pattern",
)


def check(model: Model, layer_map: LayerMap, forced: bool = False) -> tuple[str, ...]:
    """Notes on what the map does to the model. BadUsage with the reasons where llama.cpp could not run the result as meant.

    ``forced``: an architecture without known rules, and a last period cut short, are notes then.
    """
    wrong, doubtful = violations(model, layer_map), doubts(model, layer_map)
    if wrong:
        raise BadUsage(
            f"{model.path.name} ({model.architecture}): {'; '.join([*wrong, *_cut_short(model, layer_map)])}"
        )
    if doubtful and not forced:
        raise BadUsage(f"{model.path.name} ({model.architecture}): {'; '.join(doubtful)}; --force does it anyway")
    return (*doubtful, *notes(model, layer_map))


def pattern(model: Model) -> tuple[str, ...] | None:
    """The kind of each block: ``recurrent``, ``attention``; ``sliding, rope, MoE``; ``alike`` where there is one kind only.

    None where the architecture's rules are unknown or the blocks are more than a row of layers.
    """
    kinds = block_kinds(model)
    if model.architecture not in RULES or kinds.refused:
        return None
    own = tuple(kinds.name(block) or "alike" for block in range(kinds.main))
    return own + ("predicts further tokens",) * (model.blocks - kinds.main)


def violations(model: Model, layer_map: LayerMap) -> tuple[str, ...]:
    """Why llama.cpp would not load the result, or not take its blocks for what they are; empty where it does."""
    if layer_map.original != model.blocks:
        return (f"the map is for a model of {layer_map.original} blocks, it has {model.blocks}",)
    if layer_map.is_identity:
        return ()
    kinds, rules = block_kinds(model), RULES.get(model.architecture)
    refused = kinds.refused if rules else None
    if refused:
        return (f"its blocks cannot be rearranged: {refused}",)
    at_the_end = _trailing(kinds, model, layer_map)
    if at_the_end:
        return (at_the_end,)
    order = _target(kinds, layer_map)
    found = [_mixed(kinds, layer_map), *(_misplaced(trait, order) for trait in kinds.traits if trait.expected)]
    found += [_not_leading(trait, order) for trait in kinds.traits if trait.leading]
    found += [_first(kinds, order), _gone(kinds, order), count_violation(model, kinds.main, len(order))]
    return tuple(each for each in found if each)


def doubts(model: Model, layer_map: LayerMap) -> tuple[str, ...]:
    """What llama.cpp may run, but is not known to run as meant."""
    if layer_map.is_identity or layer_map.original != model.blocks:
        return ()
    if model.architecture not in RULES:
        return (f"the rules for the blocks of {model.architecture} models are unknown",)
    kinds = block_kinds(model)
    found = _cut_short(model, layer_map)
    sizes = kinds.sizes and _misplaced(kinds.sizes, _target(kinds, layer_map))
    return tuple([*found, sizes] if sizes else found)


def notes(model: Model, layer_map: LayerMap) -> tuple[str, ...]:
    """What is good to know of a map that may be applied."""
    if layer_map.is_identity:
        return ()
    kinds = block_kinds(model)
    order = _target(kinds, layer_map)
    found = []
    changed = [key for key in _SIZES if key in kinds.items and kinds.items[key][order[0]] != kinds.items[key][0]]
    if changed:
        found.append(f"llama.cpp takes some sizes from the first block, whose {', '.join(changed)} is another now")
    for trait in kinds.traits:
        unknown = trait.older and _misplaced(trait.older, order)
        if unknown:
            found.append(f"builds of llama.cpp that do not read {trait.cause} will not run it as meant: {unknown}")
    if kinds.images and order[: kinds.images] != list(range(kinds.images)):
        found.append(f"features of images go into the first {kinds.images} blocks, which are others now")
    blended = [(layer.blocks[0], other) for layer in layer_map.layers for other in layer.blocks[1:]]
    unlike = [key for key, items in kinds.items.items() if any(items[one] != items[other] for one, other in blended)]
    if unlike:
        found.append(f"blended layers take {', '.join(unlike)} from the block of the largest share")
    return tuple(found)


def metadata_changes(model: Model, layer_map: LayerMap) -> dict[str, int]:
    """Keys (32-bit, unsigned) to be written besides block_count, for a map that passed ``check``."""
    if layer_map.is_identity:
        return {}
    kinds = block_kinds(model)
    order = _target(kinds, layer_map)
    changes = count_changes(model, kinds.main, len(order))
    for trait in kinds.traits:
        if trait.leading:
            old, new = trait.kinds.count(trait.leading), [trait.kinds[block] for block in order].count(trait.leading)
            changes |= {trait.key: new} if new != old else {}
    return changes


# --- the single rules


def _target(kinds: BlockKinds, layer_map: LayerMap) -> list[int]:
    """The original's block at each place (of a blend: that of the largest share), those at the end not counted."""
    blocks = [layer.blocks[0] for layer in layer_map.layers]
    return blocks[: max(0, len(blocks) - kinds.trailing)]


def _trailing(kinds: BlockKinds, model: Model, layer_map: LayerMap) -> str | None:
    """Blocks that predict further tokens: llama.cpp finds them at the end, by their number."""
    if not kinds.trailing:
        return None
    last = list(range(kinds.main, model.blocks))
    own = [layer.copied for layer in layer_map.layers]
    elsewhere = {block for layer in layer_map.layers[: -kinds.trailing] for block in layer.blocks} & set(last)
    if own[-kinds.trailing :] == last and not elsewhere and len(own) > kinds.trailing:
        return None
    which = f"block {last[0]}" if len(last) == 1 else f"blocks {last[0]}-{last[-1]}"
    return (
        f"{which} must stay at the end as {'it is' if len(last) == 1 else 'they are'}: what predicts further tokens is there "
        f"({model.architecture}.nextn_predict_layers = {kinds.trailing})"
    )


def _mixed(kinds: BlockKinds, layer_map: LayerMap) -> str | None:
    for position, layer in enumerate(layer_map.layers):
        first, *others = layer.blocks
        for other in others:
            if kinds.name(first) != kinds.name(other):
                return (
                    f"layer {position} is made of block {first} ({kinds.name(first)}) and block {other} "
                    f"({kinds.name(other)}): blocks of two kinds"
                )
    return None


def _misplaced(trait: Trait, order: Sequence[int]) -> str | None:
    """Positions whose block is not what llama.cpp takes it for."""
    assert trait.expected is not None
    wrong = [(place, block) for place, block in enumerate(order) if trait.expected(place) != trait.kinds[block]]
    if not wrong:
        return None
    place, block = wrong[0]
    more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
    return (
        f"layer {place} would be block {block} ({trait.kinds[block]}){more}, but llama.cpp takes layer {place} as "
        f"{trait.expected(place)} ({trait.cause}{trait.rule})"
    )


def _cut_short(model: Model, layer_map: LayerMap) -> list[str]:
    """Periods that the original has whole numbers of and the result has not."""
    if model.architecture not in RULES or layer_map.original != model.blocks:
        return []
    kinds = block_kinds(model)
    new = len(_target(kinds, layer_map))
    whole = [trait for trait in kinds.traits if trait.period > 1 and kinds.main % trait.period == 0]
    found = [
        f"{new} layers are no multiple of {trait.period}, as the original's {kinds.main} are ({trait.cause})"
        for trait in whole
        if new % trait.period
    ]
    return list(dict.fromkeys(found))


def _not_leading(trait: Trait, order: Sequence[int]) -> str | None:
    own = [trait.kinds[block] for block in order]
    count = own.count(trait.leading or "")
    late = next((place for place, kind in enumerate(own) if kind == trait.leading and place >= count), None)
    if late is None:
        return None
    early = next(place for place, kind in enumerate(own) if kind != trait.leading)
    return (
        f"layer {late} would be block {order[late]} ({trait.leading}) behind layer {early}, block {order[early]} ({own[early]}): "
        f"llama.cpp takes {trait.leading} blocks only at the start ({trait.cause})"
    )


def _first(kinds: BlockKinds, order: Sequence[int]) -> str | None:
    if not order:
        return "no layer would be left"
    for trait in kinds.traits:
        kind = trait.kinds[order[0]]
        if kind in kinds.first_not:
            return f"block {order[0]} ({kind}) cannot be the first: it needs one before it"
    heads = kinds.items.get("attention.head_count")
    if heads and heads[0] and not heads[order[0]]:
        return f"block {order[0]} has no heads and cannot be the first: llama.cpp takes the size of a head from there"
    return None


def _gone(kinds: BlockKinds, order: Sequence[int]) -> str | None:
    for needed in kinds.stays:
        had = [block for block in range(kinds.main) if kinds.are(block, needed)]
        if had and not any(block in had for block in order):
            which = " and ".join(sorted(needed))
            return f"of {_some(had)} ({which}) at least one must stay: llama.cpp does not run the model without"
    return None


def _some(blocks: Sequence[int]) -> str:
    shown = ", ".join(map(str, blocks[:8]))
    return f"blocks {shown}{' ...' if len(blocks) > 8 else ''}" if len(blocks) > 1 else f"block {shown}"
