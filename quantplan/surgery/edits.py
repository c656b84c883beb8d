"""The text of edits: parsed, checked, and turned into a layer map. Each edit counts layers as the edit before left them.

delete 10                  cut layers; several and ranges: delete 3 7-9
keep 0-9 11-27             the stack as listed, in that order: any copy, cut or order can be said so
swap 11 12                 exchange two layers or ranges; several at once: swap 12 13, 16 17
move 5 after 20            take out and put in elsewhere
bridge 5 after 20          put in a copy, the layer stays where it is
repeat 8-11                run a range twice (RYS); three times: repeat 8-11 x3, or triple 8-11
reverse 8-11               the range back to front
cycle 8-11 by 1            the range turned: its first layers become its last
blend 20 22 0.5            a new layer (1 - 0.5) x 20 + 0.5 x 22 after layer 20; elsewhere: after 21; in place: into 20
merge 8-9                  one layer, the average of the range; of two ranges, layer by layer: merge 4-5 6-7
scale 7 0.9                the layer's matrices times 0.9; of some roles: scale 7 0.9 attn_output ffn_down
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from quantplan.errors import BadUsage
from quantplan.surgery.layer_map import MATRICES, Layer, LayerMap, Term

_SYNONYMS = {
    "cut": "delete",
    "drop": "delete",
    "remove": "delete",
    "prune": "delete",
    "del": "delete",
    "take": "keep",
    "duplicate": "repeat",
    "dup": "repeat",
    "rys": "repeat",
    "copy": "bridge",
    "interpolate": "blend",
    "interp": "blend",
    "rotate": "cycle",
    "average": "merge",
}
_SPAN = re.compile(r"(\d+)(?:(?:-|\.\.)(\d+))?")


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """Layers ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __len__(self) -> int:
        return self.last - self.first + 1

    @property
    def layers(self) -> range:
        return range(self.first, self.last + 1)

    def overlaps(self, other: Span) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit. ``number``: what a blend's second layer, a scale, the times of a repeat or the steps of a cycle weigh."""

    verb: str
    spans: tuple[Span, ...]
    number: float | None = None
    after: int | None = None
    into: int | None = None
    roles: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The edit as it is typed."""
        spans = [str(span) for span in self.spans]
        if self.verb == "swap":
            return "swap " + ", ".join(" ".join(pair) for pair in zip(spans[::2], spans[1::2], strict=True))
        words = [self.verb, *spans]
        if self.number is not None:
            words.append(_NUMBERS[self.verb](self.number))
        words += [f"after {self.after}"] if self.after is not None else []
        words += [f"into {self.into}"] if self.into is not None else []
        return " ".join([*words, *self.roles])


_NUMBERS: dict[str, Callable[[float], str]] = {
    "repeat": lambda times: f"x{times:g}",
    "cycle": lambda steps: f"by {steps:g}",
    "blend": lambda alpha: f"{alpha:.12g}",
    "scale": lambda factor: f"{factor:.12g}",
}


def edits_text(edits: Iterable[Edit]) -> str:
    return "; ".join(str(edit) for edit in edits)


# --- reading


def parse_edits(text: str) -> tuple[Edit, ...]:
    """Edits with ``;`` or line ends between them, ``#`` before remarks. BadUsage naming the edit, what is wrong and the form."""
    lines = [line.split("#", 1)[0] for line in text.splitlines()]
    parts = [part.strip() for line in lines for part in line.split(";")]
    edits = tuple(_parse(number, part) for number, part in enumerate(filter(None, parts), 1))
    if not edits:
        raise BadUsage("no edits: give for example 'delete 10; swap 11 12'")
    return edits


def _parse(number: int, text: str) -> Edit:
    words = text.lower().replace("↔", " ").split()
    verb = _SYNONYMS.get(words[0], words[0])
    if verb == "triple":
        words, verb = [*words, "x3"], "repeat"
    if verb not in _FORMS:
        raise BadUsage(
            f"edit {number}, {text!r}: unknown edit {words[0]!r}; known are {', '.join([*_FORMS, 'triple'])}"
        )
    try:
        return _read(verb, words[1:])
    except _Unreadable as error:
        because = f" ({error})" if str(error) else ""
        raise BadUsage(f"edit {number}, {text!r}: not understood{because}; its form is: {_FORMS[verb]}") from None


class _Unreadable(Exception):
    """Words that are no edit; the message says why, if anything does."""


_FORMS = {
    "delete": "delete 10, or delete 3 7-9",
    "keep": "keep 0-9 11-27",
    "swap": "swap 11 12, or swap 12 13, 16 17",
    "move": "move 5 after 20",
    "bridge": "bridge 5 after 20",
    "repeat": "repeat 8-11, or repeat 8-11 x3",
    "reverse": "reverse 8-11",
    "cycle": "cycle 8-11, or cycle 8-11 by 2",
    "blend": "blend 20 22 0.5, with after 21 or into 20 behind it to say where",
    "merge": "merge 8-9, or merge 4-5 6-7",
    "scale": "scale 7 0.9, with roles such as attn_output ffn_down behind it",
}
_SPANS = {
    "delete": (1, None),
    "keep": (1, None),
    "swap": (2, None),
    "blend": (2, 2),
    "merge": (1, 2),
}  # else exactly one


def _read(verb: str, words: Sequence[str]) -> Edit:
    words = " ".join(words).replace(",", " ").split()
    spans: list[Span] = []
    while words and (match := _SPAN.fullmatch(words[0])):
        if verb in ("blend", "scale") and len(spans) == (2 if verb == "blend" else 1):
            break  # a whole number here is the share or the factor
        spans.append(_span(match))
        words = words[1:]
    least, most = _SPANS.get(verb, (1, 1))
    if len(spans) < least or (most is not None and len(spans) > most):
        raise _Unreadable(f"{len(spans)} layers or ranges")
    if verb == "swap" and len(spans) % 2:
        raise _Unreadable("an odd number of layers or ranges")
    edit = Edit(verb, tuple(spans))
    return _with_options(edit, words)


def _span(match: re.Match[str]) -> Span:
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise _Unreadable(f"{match[0]} runs backwards")
    return Span(first, last)


def _with_options(edit: Edit, words: list[str]) -> Edit:
    """What may stand behind the layers: a number, a place, roles."""
    verb = edit.verb
    if verb in ("blend", "scale") and words and _is_number(words[0]):
        edit, words = replace(edit, number=float(words[0])), words[1:]
    elif verb == "repeat" and words and (times := re.fullmatch(r"x(\d+)", words[0])):
        edit, words = replace(edit, number=float(times[1])), words[1:]
    elif verb == "cycle" and len(words) == 2 and words[0] == "by" and re.fullmatch(r"-?\d+", words[1]):
        edit, words = replace(edit, number=float(words[1])), []
    if len(words) == 2 and words[0] in _PLACES.get(verb, ()) and words[1].isdigit():
        edit, words = replace(edit, **{words[0]: int(words[1])}), []
    if verb == "scale":
        edit, words = replace(edit, roles=tuple(words)), []
    if words:
        raise _Unreadable(f"{' '.join(words)!r} is left over")
    if verb in ("move", "bridge") and edit.after is None:
        raise _Unreadable("it lacks the place")
    return _checked_number(edit)


_PLACES = {"move": ("after",), "bridge": ("after",), "blend": ("after", "into")}


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _checked_number(edit: Edit) -> Edit:
    if edit.verb == "blend":
        alpha = 0.5 if edit.number is None else edit.number
        if not 0 <= alpha <= 1:
            raise _Unreadable(f"a share of {alpha:g} is not between 0 and 1")
        return replace(edit, number=alpha)
    if edit.verb == "scale" and edit.number is None:
        raise _Unreadable("it lacks the factor")
    if edit.verb == "repeat" and edit.number is not None:
        if not 2 <= edit.number <= 100:
            raise _Unreadable(f"x{edit.number:g}: 2 to 100 times")
        return replace(edit, number=None if edit.number == 2 else edit.number)
    return edit


# --- applying


def layer_map(blocks: int, edits: Sequence[Edit]) -> LayerMap:
    """The map that the edits make of a model of so many blocks. BadUsage naming the edit that cannot be made, and why."""
    layers = LayerMap.identity(blocks).layers
    for number, edit in enumerate(edits, 1):
        try:
            layers = applied(layers, edit)
        except BadUsage as error:
            raise BadUsage(f"edit {number}, '{edit}': {error}") from None
    return LayerMap(blocks, layers)


def applied(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    """The layers after one edit; BadUsage where it cannot be made."""
    named = [span.last for span in edit.spans] + [each for each in (edit.after, edit.into) if each is not None]
    for index in named:
        if index >= len(layers):
            raise BadUsage(f"there is no layer {index}: the layers are 0-{len(layers) - 1} at this point")
    left = _APPLY[edit.verb](layers, edit)
    if not left:
        raise BadUsage("no layer would be left")
    return left


def _apart(spans: Sequence[Span], what: str) -> None:
    for one, other in combinations(spans, 2):
        if one.overlaps(other):
            raise BadUsage(f"{one} and {other} overlap: {what}")


def _delete(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    _apart(edit.spans, "name each layer once")
    gone = {index for span in edit.spans for index in span.layers}
    return tuple(layer for index, layer in enumerate(layers) if index not in gone)


def _keep(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    return tuple(layers[index] for span in edit.spans for index in span.layers)


def _swap(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    """All pairs at once: pieces are put in where their partners were; ranges may differ in length."""
    _apart(edit.spans, "what is exchanged must lie apart; make two swaps of it")
    partner = {}
    for one, other in zip(edit.spans[::2], edit.spans[1::2], strict=True):
        partner |= {one.first: (one, other), other.first: (other, one)}
    swapped: list[Layer] = []
    index = 0
    while index < len(layers):
        own, other = partner.get(index, (Span(index, index), Span(index, index)))
        swapped += layers[other.first : other.last + 1]
        index += len(own)
    return tuple(swapped)


def _move(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,), after = edit.spans, edit.after
    assert after is not None
    if after in span.layers:
        raise BadUsage(f"{span} cannot be moved behind a layer of its own")
    moved = layers[span.first : span.last + 1]
    before = [layer for index, layer in enumerate(layers[: after + 1]) if index not in span.layers]
    behind = [layer for index, layer in enumerate(layers[after + 1 :], after + 1) if index not in span.layers]
    return (*before, *moved, *behind)


def _bridge(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,), after = edit.spans, edit.after
    assert after is not None
    return (*layers[: after + 1], *layers[span.first : span.last + 1], *layers[after + 1 :])


def _repeat(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    more = int(edit.number or 2) - 1
    return (*layers[: span.last + 1], *layers[span.first : span.last + 1] * more, *layers[span.last + 1 :])


def _replaced(layers: tuple[Layer, ...], span: Span, new: Iterable[Layer]) -> tuple[Layer, ...]:
    return (*layers[: span.first], *new, *layers[span.last + 1 :])


def _reverse(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    if len(span) < 2:
        raise BadUsage("one layer has no order to reverse; give a range")
    return _replaced(layers, span, layers[span.first : span.last + 1][::-1])


def _cycle(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    steps = int(1 if edit.number is None else edit.number) % len(span)
    if steps == 0:
        raise BadUsage(f"a turn that leaves {span} as it is; give a range, and fewer steps than it has layers")
    own = layers[span.first : span.last + 1]
    return _replaced(layers, span, own[steps:] + own[:steps])


def _blend(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    one, other = edit.spans
    if len(one) > 1 or len(other) > 1:
        raise BadUsage("a blend is of two layers, not of ranges; merge averages ranges")
    if one == other:
        raise BadUsage("a blend of a layer with itself is a copy; bridge makes copies")
    assert edit.number is not None
    new = weighted_sum([(layers[one.first], 1 - edit.number), (layers[other.first], edit.number)])
    if edit.into is not None:
        return _replaced(layers, Span(edit.into, edit.into), [new])
    after = one.first if edit.after is None else edit.after
    return (*layers[: after + 1], new, *layers[after + 1 :])


def _merge(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    if len(edit.spans) == 1:
        (span,) = edit.spans
        if len(span) < 2:
            raise BadUsage("one layer is its own average; give a range, or two")
        share = 1 / len(span)
        return _replaced(layers, span, [weighted_sum([(layers[index], share) for index in span.layers])])
    one, other = edit.spans
    _apart(edit.spans, "ranges that are averaged must lie apart")
    if len(one) != len(other):
        raise BadUsage(f"{one} has {len(one)} layers and {other} has {len(other)}: they are averaged layer by layer")
    pairs = zip(one.layers, other.layers, strict=True)
    new = [weighted_sum([(layers[a], 0.5), (layers[b], 0.5)]) for a, b in pairs]
    kept = [layer for index, layer in enumerate(layers) if index not in other.layers]
    first = one.first - (len(other) if other.first < one.first else 0)
    return (*kept[:first], *new, *kept[first + len(one) :])


def _scale(layers: tuple[Layer, ...], edit: Edit) -> tuple[Layer, ...]:
    (span,) = edit.spans
    assert edit.number is not None
    scales = tuple((role, edit.number) for role in edit.roles or (MATRICES,))
    new = [_scaled(layers[index], scales) for index in span.layers]
    return _replaced(layers, span, new)


def _scaled(layer: Layer, scales: tuple[tuple[str, float], ...]) -> Layer:
    return Layer(tuple(Term(term.block, term.weight, _joined(term.scales + scales)) for term in layer.terms))


def _joined(scales: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Factors of the same role multiplied, those that cancel left out."""
    product: dict[str, float] = {}
    for role, factor in scales:
        product[role] = product.get(role, 1.0) * factor
    return tuple(sorted((role, factor) for role, factor in product.items() if factor != 1))


def weighted_sum(shares: Sequence[tuple[Layer, float]]) -> Layer:
    """Terms of one block joined, those of no weight left out."""
    terms: dict[tuple[int, tuple[tuple[str, float], ...]], float] = {}
    for layer, share in shares:
        for term in layer.terms:
            key = (term.block, term.scales)
            terms[key] = terms.get(key, 0.0) + share * term.weight
    kept = [Term(block, weight, scales) for (block, scales), weight in sorted(terms.items()) if weight]
    return Layer(tuple(kept))


_APPLY: dict[str, Callable[[tuple[Layer, ...], Edit], tuple[Layer, ...]]] = {
    "delete": _delete,
    "keep": _keep,
    "swap": _swap,
    "move": _move,
    "bridge": _bridge,
    "repeat": _repeat,
    "reverse": _reverse,
    "cycle": _cycle,
    "blend": _blend,
    "merge": _merge,
    "scale": _scale,
}
