"""Families of edits to search over: which candidates ``delete``, ``repeat:8/4`` and the rest stand for.

delete              every layer cut; every range of 2: delete:2; of 4, begun at every second layer: delete:4/2
repeat:8/4          ranges of 8 layers begun at every 4th run twice, then, as a second pass, ranges of 4 begun at every layer
                    around the best of them; the second pass spelled out: repeat:8/4,4/1; one pass only: repeat:4
triple, reverse, cycle, merge   of ranges likewise
swap, move, bridge  every pair of layers; at most 3 apart: swap:3
blend:0.3,0.5       layer i with layer i + 2, put in behind i and in the place of the one between them
scale:0.9,1.1       every layer's matrices times each factor
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage
from quantplan.surgery.edits import Edit, Span

_RANGES = ("delete", "repeat", "triple", "reverse", "cycle", "merge")
_PAIRS = ("swap", "move", "bridge")
_NUMBERS = {"blend": (0.5,), "scale": (0.9, 1.1)}
NAMES = (*_RANGES, *_PAIRS, *_NUMBERS)
DEFAULT = ("delete", "swap", "repeat")
_SINGLES = ("delete", "triple")  # of one layer each, where nothing else is said
_PASS = re.compile(r"(\d+)(?:/(\d+))?")
_BLEND_APART = 2  # neighbours blend into little that is new


@dataclass(frozen=True, slots=True)
class Pass:
    """Ranges of ``length`` layers, one begun at every ``stride``-th."""

    length: int
    stride: int = 1

    def __str__(self) -> str:
        return str(self.length) if self.stride == 1 else f"{self.length}/{self.stride}"

    def ranges(self, first: int, last: int) -> list[Span]:
        """Those in layers ``first`` to ``last``, both included; where the stride leaves the last layers out, one ends there."""
        latest = last - self.length + 1
        starts = list(range(first, latest + 1, self.stride))
        if starts and starts[-1] < latest:
            starts.append(latest)
        return [Span(at, at + self.length - 1) for at in starts]


@dataclass(frozen=True, slots=True)
class Family:
    """``passes`` of a family of ranges; ``numbers`` of blends and scales; ``reach`` of pairs: at most so far apart."""

    name: str
    passes: tuple[Pass, ...] = ()
    numbers: tuple[float, ...] = ()
    reach: int | None = None

    def __str__(self) -> str:
        words = [str(each) for each in self.passes] or [f"{number:g}" for number in self.numbers]
        words = words or ([] if self.reach is None else [str(self.reach)])
        return f"{self.name}:{','.join(words)}" if words else self.name

    def first(self, blocks: int) -> list[Edit]:
        """The candidates of a model of so many layers; of the first pass where there are several."""
        if self.passes:
            return list(self._over(self.passes[0].ranges(0, blocks - 1), blocks))
        if self.name in _PAIRS:
            return list(_pairs(self, blocks))
        return list(_with_numbers(self, blocks))

    def around(self, best: Edit, number: int, blocks: int) -> list[Edit]:
        """The candidates of pass ``number`` (from 1 on): ranges within one stride of the pass before around its best."""
        (span,), stride = best.spans, self.passes[number - 1].stride
        ranges = self.passes[number].ranges(max(0, span.first - stride), min(blocks - 1, span.last + stride))
        return list(self._over(ranges, blocks))

    def _over(self, ranges: Sequence[Span], blocks: int) -> Iterator[Edit]:
        for span in ranges:
            if self.name == "delete" and len(span) == blocks:
                continue
            for edit in _RANGE_EDITS[self.name]:
                yield replace(edit, spans=(span,))


_RANGE_EDITS = {
    "delete": (Edit("delete", ()),),
    "repeat": (Edit("repeat", ()),),
    "triple": (Edit("repeat", (), 3.0),),
    "reverse": (Edit("reverse", ()),),
    "cycle": (Edit("cycle", (), 1.0), Edit("cycle", (), -1.0)),
    "merge": (Edit("merge", ()),),
}


def _pairs(family: Family, blocks: int) -> Iterator[Edit]:
    """Exchanges of two, each pair once; copies of earlier layers behind later ones; a layer taken anywhere."""
    reach = blocks if family.reach is None else family.reach
    for one in range(blocks):
        for other in range(max(0, one - reach), min(blocks, one + reach + 1)):
            own = Span(one, one)
            if family.name == "swap" and one < other:
                yield Edit("swap", (own, Span(other, other)))
            elif family.name == "bridge" and one < other:
                yield Edit("bridge", (own,), after=other)
            elif family.name == "move" and other not in (one, one - 1):
                yield Edit("move", (own,), after=other)


def _with_numbers(family: Family, blocks: int) -> Iterator[Edit]:
    for number in family.numbers:
        if family.name == "scale":
            yield from (Edit("scale", (Span(at, at),), number) for at in range(blocks))
            continue
        for at in range(blocks - _BLEND_APART):
            other = at + _BLEND_APART
            blend = Edit("blend", (Span(at, at), Span(other, other)), number)
            yield from (blend, replace(blend, into=at + 1))


# --- reading


def parse_family(text: str, blocks: int) -> Family:
    """``repeat:8/4`` for a model of so many layers; BadUsage where it is no family, or has no candidate there."""
    name, _, wanted = text.strip().lower().partition(":")
    if name not in NAMES:
        raise BadUsage(f"--family {text}: unknown family {name!r}; known are {', '.join(NAMES)}")
    family = _READ["ranges" if name in _RANGES else "pairs" if name in _PAIRS else "numbers"](name, wanted, blocks)
    if family is None:
        raise BadUsage(f"--family {text}: not understood; its form is: {_FORMS[name]}")
    for each in family.passes:
        if each.length >= blocks and (name == "delete" or each.length > blocks):
            raise BadUsage(f"--family {text}: the model has {blocks} layers, no range of {each.length} for that")
    if not family.first(blocks):
        raise BadUsage(f"--family {text}: a model of {blocks} layers has no candidate of that family")
    return family


_FORMS = {
    "delete": "delete, delete:2 (ranges of 2) or delete:4/2 (ranges of 4, every second), then finer around the best",
    "repeat": "repeat, repeat:4 or repeat:8/4 (ranges of 8, every 4th), then finer around the best",
    "triple": "triple, or triple:2",
    "reverse": "reverse, or reverse:4",
    "cycle": "cycle, or cycle:4",
    "merge": "merge, or merge:3",
    "swap": "swap, or swap:3 (at most 3 apart)",
    "move": "move, or move:3 (at most 3 far)",
    "bridge": "bridge, or bridge:3 (at most 3 apart)",
    "blend": "blend, or blend:0.3,0.5 (shares)",
    "scale": "scale, or scale:0.9,1.1 (factors)",
}


def _read_ranges(name: str, wanted: str, blocks: int) -> Family | None:
    if not wanted:
        return Family(name, _usual(name, blocks))
    passes = []
    for word in wanted.split(","):
        match = _PASS.fullmatch(word)
        if not match or not 0 < int(match[1]) <= blocks or (match[2] and int(match[2]) == 0):
            return None
        passes.append(Pass(int(match[1]), int(match[2] or 1)))
    if passes[0].length < _least(name) or any(each.length < _least(name) for each in passes):
        return None
    if len(passes) == 1 and passes[0].stride > 1:
        passes.append(Pass(max(_least(name), passes[0].length // 2)))
    return Family(name, tuple(passes))


def _least(name: str) -> int:
    """Layers that a range of the family has at least."""
    return 2 if name in ("reverse", "cycle", "merge") else 1


def _usual(name: str, blocks: int) -> tuple[Pass, ...]:
    """Of a third of the layers every sixth, then half as long: 8/4 and 4/1 for 24 layers."""
    if name in _SINGLES:
        return (Pass(1),)
    if name == "merge":
        return (Pass(2),)
    if name in ("reverse", "cycle"):
        return (Pass(min(3, blocks)),)
    half = max(1, round(blocks / 6))
    return (Pass(min(2 * half, blocks), half), Pass(half))


def _read_pairs(name: str, wanted: str, _blocks: int) -> Family | None:
    if not wanted:
        return Family(name)
    return Family(name, reach=int(wanted)) if wanted.isdigit() and int(wanted) else None


def _read_numbers(name: str, wanted: str, _blocks: int) -> Family | None:
    if not wanted:
        return Family(name, numbers=_NUMBERS[name])
    try:
        numbers = tuple(dict.fromkeys(float(word) for word in wanted.split(",")))
    except ValueError:
        return None
    meant = all(0 < number < 1 if name == "blend" else -100 < number < 100 for number in numbers)
    return Family(name, numbers=numbers) if meant else None


_READ: dict[str, Callable[[str, str, int], Family | None]] = {
    "ranges": _read_ranges,
    "pairs": _read_pairs,
    "numbers": _read_numbers,
}
