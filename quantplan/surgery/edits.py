"""Edits as text: parsed and written. Each edit counts the layers as the edit before it left them.

delete 10                  remove layers; several and ranges: delete 3 7-9
keep 0-9 11-27             only the layers listed, in that order; a layer may be listed twice
swap 11 12                 exchange two layers or ranges; several at once: swap 12 13, 16 17
move 5 after 20            move a layer or range to another place
bridge 5 after 20          insert a copy; the layer itself stays where it is
repeat 8-11                run a range twice (RYS); three times: repeat 8-11 x3, or triple 8-11
reverse 8-11               the layers of a range in reverse order
cycle 8-11 by 1            rotate a range: its first layer becomes its last
blend 20 22 0.5            a new layer (1 - 0.5) x 20 + 0.5 x 22 after layer 20; elsewhere: after 21; in place of: into 20
merge 8-9                  one layer, the average of the range; of two ranges, layer by layer: merge 4-5 6-7
strip mtp                  remove the blocks at the end that only predict further tokens (MTP)
scale 7 0.9                multiply the layer's matrices by 0.9; only some roles: scale 7 0.9 attn_output ffn_down
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantplan.errors import BadUsage
from quantplan.whole_number import whole_number

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
STRIP = "strip"
_SPAN = re.compile(r"(\d{1,9})(?:(?:-|\.\.)(\d{1,9}))?")


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

    def overlaps(self, other: "Span") -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit. ``number``: the second layer's share of a blend, the factor of a scale, times of a repeat, steps of a cycle."""

    verb: str
    spans: tuple[Span, ...]
    number: float | None = None
    after: int | None = None
    into: int | None = None
    roles: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The edit as a person types it."""
        spans = [str(span) for span in self.spans]
        if self.verb == STRIP:
            return f"{STRIP} mtp"
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
    """Edits separated by ``;`` or line ends, ``#`` before comments. BadUsage naming the edit, what is wrong and its form."""
    lines = [line.split("#", 1)[0] for line in text.splitlines()]
    parts = [part.strip() for line in lines for part in line.split(";")]
    edits = tuple(_parse(number, part) for number, part in enumerate(filter(None, parts), 1))
    if not edits:
        raise BadUsage("there are no edits; give for example 'delete 10; swap 11 12'")
    return edits


def _parse(number: int, text: str) -> Edit:
    words = text.lower().replace("↔", " ").split()
    verb = _SYNONYMS.get(words[0], words[0])
    if verb == "triple":
        words, verb = [*words, "x3"], "repeat"
    if verb not in FORMS:
        raise BadUsage(
            f"edit {number}, {text!r}: unknown edit {words[0]!r}; the edits are {', '.join([*FORMS, 'triple'])}"
        )
    try:
        return _read(verb, words[1:])
    except _Unreadable as error:
        raise BadUsage(f"edit {number}, {text!r}: {error}; the form is: {FORMS[verb]}") from None


class _Unreadable(Exception):
    """Words that are not an edit; the message says why."""


FORMS = {
    "delete": "delete 10, or delete 3 7-9",
    "keep": "keep 0-9 11-27",
    "swap": "swap 11 12, or swap 12 13, 16 17",
    "move": "move 5 after 20",
    "bridge": "bridge 5 after 20",
    "repeat": "repeat 8-11, or repeat 8-11 x3",
    "reverse": "reverse 8-11",
    "cycle": "cycle 8-11, or cycle 8-11 by 2",
    "blend": "blend 20 22 0.5, followed by after 21 or into 20 to say where",
    "merge": "merge 8-9, or merge 4-5 6-7",
    STRIP: "strip mtp",
    "scale": "scale 7 0.9, followed by roles such as attn_output ffn_down",
}
_MANY = 1 << 30
_SPANS = {
    "delete": (1, _MANY),
    "keep": (1, _MANY),
    "swap": (2, _MANY),
    "blend": (2, 2),
    "merge": (1, 2),
}  # else just one


def _read(verb: str, words: Sequence[str]) -> Edit:
    words = " ".join(words).replace(",", " ").split()
    if verb == STRIP:
        if words != ["mtp"]:
            raise _Unreadable("it can only strip the blocks that predict further tokens")
        return Edit(STRIP, ())
    spans: list[Span] = []
    while words and (match := _SPAN.fullmatch(words[0])):
        if verb in ("blend", "scale") and len(spans) == (2 if verb == "blend" else 1):
            break  # a whole number here is the share or the factor
        spans.append(_span(match))
        words = words[1:]
    least, most = _SPANS.get(verb, (1, 1))
    if len(spans) < least and words:
        raise _Unreadable(f"{words[0]!r} is not a layer or a range")
    if not least <= len(spans) <= most:
        raise _Unreadable(f"it has {len(spans)} layers or ranges")
    if verb == "swap" and len(spans) % 2:
        raise _Unreadable("it has an odd number of layers or ranges")
    return _with_options(Edit(verb, tuple(spans)), words)


def _span(match: re.Match[str]) -> Span:
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise _Unreadable(f"the range {match[0]} is backwards")
    return Span(first, last)


def _with_options(edit: Edit, words: list[str]) -> Edit:
    """What may follow the layers: a number, a place, roles."""
    verb = edit.verb
    if verb in ("blend", "scale") and words and _is_number(words[0]):
        edit, words = replace(edit, number=float(words[0])), words[1:]
    elif verb == "repeat" and words and (times := re.fullmatch(r"x(\d+)", words[0])):
        edit, words = replace(edit, number=float(times[1])), words[1:]
    elif verb == "cycle" and len(words) == 2 and words[0] == "by" and re.fullmatch(r"-?\d{1,9}", words[1]):
        edit, words = replace(edit, number=float(words[1])), []
    if len(words) == 2 and words[0] in _PLACES.get(verb, ()) and (layer := whole_number(words[1])) is not None:
        place: dict[str, Any] = {words[0]: layer}
        edit, words = replace(edit, **place), []
    if verb == "scale":
        edit, words = replace(edit, roles=tuple(words)), []
    if words:
        raise _Unreadable(f"{' '.join(words)!r} is not understood")
    if verb in ("move", "bridge") and edit.after is None:
        raise _Unreadable("the place is missing")
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
            raise _Unreadable(f"the share {alpha:g} is not between 0 and 1")
        return replace(edit, number=alpha)
    if edit.verb == "scale" and edit.number is None:
        raise _Unreadable("the factor is missing")
    if edit.verb == "repeat" and edit.number is not None:
        if not 2 <= edit.number <= 100:
            raise _Unreadable(f"x{edit.number:g} is not between x2 and x100")
        return replace(edit, number=None if edit.number == 2 else edit.number)
    return edit
