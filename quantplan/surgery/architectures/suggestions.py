"""Edits close to those asked for that the model's architecture allows: what an error about a refused edit goes on to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from quantplan.errors import BadUsage
from quantplan.surgery.architectures.check import check, doubts, violations
from quantplan.surgery.architectures.kinds import block_kinds
from quantplan.surgery.edits import Edit, Span, edits_text, layer_map
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

_MOST = 3
_REACH = 8  # how far an edge of a range is moved, but a period at least; farther is another edit
_PAIRS_REACH = 4  # where two ranges move at once


def checked_map(model: Model, edits: Sequence[Edit], forced: bool = False) -> tuple[LayerMap, tuple[str, ...]]:
    """The edits' layer map and the notes on it. BadUsage where an edit cannot be made; where the architecture forbids the map,
    with the nearest edits that it allows.
    """
    made = layer_map(model.blocks, edits)
    try:
        return made, check(model, made, forced)
    except BadUsage as error:
        near = nearest_valid(model, edits)
        if not near:
            raise
        raise BadUsage(f"{error}; nearest that can be done: {' or '.join(map(repr, near))}") from None


def nearest_valid(model: Model, edits: Sequence[Edit]) -> list[str]:
    """At most three texts of edits that pass without force, nearest first; empty where none is near.

    One edit is varied, the first that breaks the pattern: its ranges' edges by a few layers, their lengths first changed least.
    """
    index = _offender(model, edits)
    if index is None:
        return []
    found: dict[str, str] = {}
    for candidate in _variants(edits[index], _reach(model)):
        varied = [*edits[:index], candidate, *edits[index + 1 :]]
        made = _passing(model, varied)
        if made is not None:
            found.setdefault(made.digest, edits_text(varied))
        if len(found) == _MOST:
            break
    return list(found.values())


def _passing(model: Model, edits: Sequence[Edit]) -> LayerMap | None:
    try:
        made = layer_map(model.blocks, edits)
    except BadUsage:
        return None
    return None if made.is_identity or violations(model, made) or doubts(model, made) else made


def _offender(model: Model, edits: Sequence[Edit]) -> int | None:
    """The edit after which the map no longer passes, nor passes again; None where it does in the end."""
    failed = None
    for index in range(len(edits)):
        if _passing(model, edits[: index + 1]) is not None:
            failed = None
        elif failed is None:
            failed = index
    return failed


def _reach(model: Model) -> int:
    periods = [trait.period for trait in block_kinds(model).traits]
    return max([_REACH, *periods])


def _variants(edit: Edit, reach: int) -> Iterator[Edit]:
    """The edit with other ranges and places, nearest first; a blend that adds a layer may first take the place of one."""
    if edit.verb == "blend" and edit.into is None:
        yield from (replace(edit, after=None, into=span.first) for span in edit.spans)
    steps = range(-reach, reach + 1)
    moves = [*_moves(edit, steps if len(_knobs(edit)) < 3 else range(-_PAIRS_REACH, _PAIRS_REACH + 1))]
    for _, varied in sorted(moves, key=lambda pair: pair[0]):
        yield varied


def _knobs(edit: Edit) -> list[str]:
    """What can be turned: both edges of each range, the place."""
    edges = [
        edge
        for span in edit.spans
        for edge in (("first", "last") if len(span) > 1 or edit.verb in _RANGES else ("both",))
    ]
    return edges + (["place"] if edit.after is not None or edit.into is not None else [])


_RANGES = ("delete", "repeat", "reverse", "cycle", "move", "bridge")  # of one layer, they may as well be of more


def _moves(edit: Edit, steps: Iterable[int]) -> Iterator[tuple[tuple[int, ...], Edit]]:
    """(distance, edit) for all turns of the knobs. Nearer: less turned in all, length changed less, longer, later."""
    knobs = _knobs(edit)
    if len(knobs) > 4:
        return
    for turns in product(steps, repeat=len(knobs)):
        if any(turns) and (varied := _turned(edit, knobs, turns)):
            growth = sum(len(span) for span in varied.spans) - sum(len(span) for span in edit.spans)
            total = sum(map(abs, turns))
            yield (total, abs(growth), -growth, *(-turn for turn in reversed(turns))), varied


def _turned(edit: Edit, knobs: Sequence[str], turns: Sequence[int]) -> Edit | None:
    left = list(zip(knobs, turns, strict=True))
    spans = []
    for span in edit.spans:
        knob, turn = left.pop(0)
        first, last = span.first + turn, span.last + turn
        if knob == "first":
            last = span.last + left.pop(0)[1]
        if first < 0 or last < first:
            return None
        spans.append(Span(first, last))
    varied = replace(edit, spans=tuple(spans))
    if not left:
        return varied
    place = "after" if edit.after is not None else "into"
    at = (edit.after if edit.after is not None else edit.into or 0) + left[0][1]
    return replace(varied, **{place: at}) if at >= 0 else None
