"""Valid edits near edits that the model's architecture refuses, for the error message."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from quantplan.errors import BadUsage
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.architectures.block_kinds import block_kinds
from quantplan.surgery.architectures.check import check, doubts, violations
from quantplan.surgery.edits import Edit, Span, edits_text
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

_MOST = 3
_REACH = 8  # how far an edge of a range is moved, or a whole period where that is more; farther is another edit
_PAIRS_REACH = 4  # where two ranges move at once
_RANGES = ("delete", "repeat", "reverse", "cycle", "move", "bridge")  # also of one layer: they may as well be of more


def checked_map(model: Model, edits: Sequence[Edit], skip_check: bool = False) -> tuple[LayerMap, tuple[str, ...]]:
    """The edits' layer map and the notes on it. BadUsage where an edit cannot be made; where the architecture forbids the map,
    the message suggests the nearest edits that it allows.
    """
    layer_map = apply_edits(model.blocks, edits, model.mtp_blocks)
    try:
        return layer_map, check(model, layer_map, skip_check)
    except BadUsage as error:
        suggestions = nearest_valid(model, edits)
        if not suggestions:
            raise
        raise BadUsage(f"{error}; the nearest valid edits: {' or '.join(map(repr, suggestions))}") from None


def nearest_valid(model: Model, edits: Sequence[Edit]) -> list[str]:
    """At most three texts of edits that pass the check, nearest first; empty where none is near.

    One edit is varied, the first that breaks the pattern: the edges of its ranges move by a few layers.
    """
    index = _offender(model, edits)
    if index is None:
        return []
    suggestions: dict[str, str] = {}
    for candidate in _variants(edits[index], _reach(model)):
        varied = [*edits[:index], candidate, *edits[index + 1 :]]
        layer_map = _valid_map(model, varied)
        if layer_map is not None:
            suggestions.setdefault(layer_map.digest, edits_text(varied))
        if len(suggestions) == _MOST:
            break
    return list(suggestions.values())


def _valid_map(model: Model, edits: Sequence[Edit]) -> LayerMap | None:
    try:
        layer_map = apply_edits(model.blocks, edits, model.mtp_blocks)
    except BadUsage:
        return None
    return None if layer_map.is_identity or violations(model, layer_map) or doubts(model, layer_map) else layer_map


def _offender(model: Model, edits: Sequence[Edit]) -> int | None:
    """The edit from which on the map is invalid; None where all edits together are valid."""
    failed = None
    for index in range(len(edits)):
        if _valid_map(model, edits[: index + 1]) is not None:
            failed = None
        elif failed is None:
            failed = index
    return failed


def _reach(model: Model) -> int:
    return max([_REACH, *(trait.period for trait in block_kinds(model).traits)])


def _variants(edit: Edit, reach: int) -> Iterator[Edit]:
    """The edit with other ranges and places, nearest first; a blend that adds a layer may also take the place of one."""
    if edit.verb == "blend" and edit.into is None:
        yield from (replace(edit, after=None, into=span.first) for span in edit.spans)
    movable = _movable(edit)
    if len(movable) > 4:
        return
    reach = reach if len(movable) < 3 else _PAIRS_REACH
    variants = []
    for steps in product(range(-reach, reach + 1), repeat=len(movable)):
        if any(steps) and (varied := _moved(edit, movable, steps)):
            variants.append((_distance(edit, varied, steps), varied))
    for _, varied in sorted(variants, key=lambda pair: pair[0]):
        yield varied


def _movable(edit: Edit) -> list[str]:
    """What can be moved: both edges of each range (or a single layer as a whole), and the place."""
    edges = [
        edge
        for span in edit.spans
        for edge in (("first", "last") if len(span) > 1 or edit.verb in _RANGES else ("both",))
    ]
    return edges + (["place"] if edit.after is not None or edit.into is not None else [])


def _distance(edit: Edit, varied: Edit, steps: Sequence[int]) -> tuple[int, ...]:
    """Sort key. Nearer: moved less in all, then length changed less, then longer, then later layers."""
    growth = sum(map(len, varied.spans)) - sum(map(len, edit.spans))
    return (sum(map(abs, steps)), abs(growth), -growth, *(-step for step in reversed(steps)))


def _moved(edit: Edit, movable: Sequence[str], steps: Sequence[int]) -> Edit | None:
    """The edit with each movable edge or place moved by its step; None where it would leave the model or turn a range around."""
    remaining = list(zip(movable, steps, strict=True))
    spans = []
    for span in edit.spans:
        edge, step = remaining.pop(0)
        first, last = span.first + step, span.last + step
        if edge == "first":
            last = span.last + remaining.pop(0)[1]
        if first < 0 or last < first:
            return None
        spans.append(Span(first, last))
    varied = replace(edit, spans=tuple(spans))
    if not remaining:
        return varied
    place = (edit.after if edit.after is not None else edit.into or 0) + remaining[0][1]
    if place < 0:
        return None
    return replace(varied, into=place) if edit.after is None else replace(varied, after=place)
