"""Families of edits to search over: the candidates that ``delete``, ``repeat:8/4`` and the others stand for.

delete              every layer removed; every range of 2: delete:2; of 4, starting at every second layer: delete:4/2
repeat:8/4          ranges of 8 layers, starting at every 4th, run twice; then, as a second pass, ranges of 4 starting at every
                    layer around the best of them; with the second pass spelled out: repeat:8/4,4/1; one pass only: repeat:4
triple, reverse, cycle, merge   ranges likewise
swap, move, bridge  every pair of layers; at most 3 apart: swap:3
blend:0.3,0.5       layer i with layer i + 2, inserted after i, and in place of the layer between them
scale:0.9,1.1       every layer's matrices times each factor
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage
from quantplan.surgery.edits import Edit, Span
from quantplan.whole_number import whole_number

_RANGES = ("delete", "repeat", "triple", "reverse", "cycle", "merge")
_PAIRS = ("swap", "move", "bridge")
_NUMBERS = {"blend": (0.5,), "scale": (0.9, 1.1)}
NAMES = (*_RANGES, *_PAIRS, *_NUMBERS)
DEFAULT = ("delete", "swap", "repeat")
_SINGLES = ("delete", "triple")  # of one layer by default
_PASS = re.compile(r"(\d{1,9})(?:/(\d{1,9}))?")
_BLEND_APART = 2  # blends of neighbours bring little that is new


@dataclass(frozen=True, slots=True)
class Pass:
    """Ranges of ``length`` layers, starting at every ``stride``-th layer."""

    length: int
    stride: int = 1

    def __str__(self) -> str:
        return str(self.length) if self.stride == 1 else f"{self.length}/{self.stride}"

    def ranges(self, first: int, last: int) -> list[Span]:
        """Those in layers ``first`` to ``last``, both included; where the stride misses the last layers, one more ends there."""
        latest = last - self.length + 1
        starts = list(range(first, latest + 1, self.stride))
        if starts and starts[-1] < latest:
            starts.append(latest)
        return [Span(start, start + self.length - 1) for start in starts]


@dataclass(frozen=True, slots=True)
class Family:
    """``passes``: of families of ranges; ``numbers``: shares or factors; ``reach``: largest distance of pairs."""

    name: str
    passes: tuple[Pass, ...] = ()
    numbers: tuple[float, ...] = ()
    reach: int | None = None

    def __str__(self) -> str:
        words = [str(pass_) for pass_ in self.passes] or [f"{number:g}" for number in self.numbers]
        words = words or ([] if self.reach is None else [str(self.reach)])
        return f"{self.name}:{','.join(words)}" if words else self.name

    def first(self, blocks: int) -> list[Edit]:
        """The candidates of a model of ``blocks`` layers; of the first pass where there are several."""
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
    """Swaps of two layers, each pair once; copies of earlier layers after later ones; each layer moved to every place."""
    reach = blocks if family.reach is None else family.reach
    for layer in range(blocks):
        span = Span(layer, layer)
        for other in range(max(0, layer - reach), min(blocks, layer + reach + 1)):
            if family.name == "swap" and layer < other:
                yield Edit("swap", (span, Span(other, other)))
            elif family.name == "bridge" and layer < other:
                yield Edit("bridge", (span,), after=other)
            elif family.name == "move" and other not in (layer, layer - 1):
                yield Edit("move", (span,), after=other)


def _with_numbers(family: Family, blocks: int) -> Iterator[Edit]:
    for number in family.numbers:
        if family.name == "scale":
            yield from (Edit("scale", (Span(layer, layer),), number) for layer in range(blocks))
            continue
        for layer in range(blocks - _BLEND_APART):
            other = layer + _BLEND_APART
            blend = Edit("blend", (Span(layer, layer), Span(other, other)), number)
            yield from (blend, replace(blend, into=layer + 1))


# --- reading


def parse_family(text: str, blocks: int) -> Family:
    """``repeat:8/4`` for a model of ``blocks`` layers; BadUsage where it is not a family, or has no candidate in that model."""
    name, _, details = text.strip().lower().partition(":")
    if name not in NAMES:
        raise BadUsage(f"--family {text}: unknown family {name!r}; the families are {', '.join(NAMES)}")
    parse = _parse_ranges if name in _RANGES else _parse_pairs if name in _PAIRS else _parse_numbers
    family = parse(name, details, blocks)
    if family is None:
        raise BadUsage(f"--family {text}: not understood; the form is: {_FORMS[name]}")
    for pass_ in family.passes:
        if pass_.length >= blocks and (name == "delete" or pass_.length > blocks):
            raise BadUsage(f"--family {text}: ranges of {pass_.length} are too long for a model of {blocks} layers")
    if not family.first(blocks):
        raise BadUsage(f"--family {text}: a model of {blocks} layers has no candidate of that family")
    return family


_FORMS = {
    "delete": "delete, delete:2 (ranges of 2) or delete:4/2 (ranges of 4, every second, then finer around the best)",
    "repeat": "repeat, repeat:4 or repeat:8/4 (ranges of 8, every 4th, then finer around the best)",
    "triple": "triple, or triple:2",
    "reverse": "reverse, or reverse:4",
    "cycle": "cycle, or cycle:4",
    "merge": "merge, or merge:3",
    "swap": "swap, or swap:3 (at most 3 apart)",
    "move": "move, or move:3 (by at most 3)",
    "bridge": "bridge, or bridge:3 (at most 3 apart)",
    "blend": "blend, or blend:0.3,0.5 (shares)",
    "scale": "scale, or scale:0.9,1.1 (factors)",
}


def _parse_ranges(name: str, details: str, blocks: int) -> Family | None:
    if not details:
        return Family(name, _default_passes(name, blocks))
    passes = []
    for word in details.split(","):
        match = _PASS.fullmatch(word)
        if not match or not 0 < int(match[1]) <= blocks or (match[2] and int(match[2]) == 0):
            return None
        passes.append(Pass(int(match[1]), int(match[2] or 1)))
    if any(pass_.length < _shortest(name) for pass_ in passes):
        return None
    if len(passes) == 1 and passes[0].stride > 1:
        passes.append(Pass(max(_shortest(name), passes[0].length // 2)))
    return Family(name, tuple(passes))


def _shortest(name: str) -> int:
    """Layers of the shortest range that makes sense."""
    return 2 if name in ("reverse", "cycle", "merge") else 1


def _default_passes(name: str, blocks: int) -> tuple[Pass, ...]:
    """Of repeats: ranges of a third of the layers, every sixth, then half as long: 8/4 and 4/1 for 24 layers."""
    if name in _SINGLES:
        return (Pass(1),)
    if name == "merge":
        return (Pass(2),)
    if name in ("reverse", "cycle"):
        return (Pass(min(3, blocks)),)
    half = max(1, round(blocks / 6))
    return (Pass(min(2 * half, blocks), half), Pass(half))


def _parse_pairs(name: str, details: str, _blocks: int) -> Family | None:
    if not details:
        return Family(name)
    reach = whole_number(details)
    return Family(name, reach=reach) if reach else None


def _parse_numbers(name: str, details: str, _blocks: int) -> Family | None:
    if not details:
        return Family(name, numbers=_NUMBERS[name])
    try:
        numbers = tuple(dict.fromkeys(float(word) for word in details.split(",")))
    except ValueError:
        return None
    in_range = all(0 < number < 1 if name == "blend" else -100 < number < 100 for number in numbers)
    return Family(name, numbers=numbers) if in_range else None
