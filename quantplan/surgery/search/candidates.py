"""Candidates of a search: edits with the layer map they make, each map once, those that the architecture refuses left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage, NothingSelected
from quantplan.imatrix import Imatrix
from quantplan.surgery.architectures.check import check
from quantplan.surgery.assembly import assemble, check_encodable
from quantplan.surgery.edits import Edit, Span, edits_text, layer_map
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

EXPLICIT, COMBINED = "edits", "combined"  # what candidates of no family are called


@dataclass(frozen=True)
class Candidate:
    """``edits``: as typed for the original; ``family``: the name of its family, EXPLICIT or COMBINED."""

    edits: tuple[Edit, ...]
    layer_map: LayerMap
    family: str
    phase: int

    @property
    def key(self) -> str:
        return self.layer_map.digest

    def __str__(self) -> str:
        return edits_text(self.edits)


class Admission:
    """Lets every map in once. ``refused``: how many of each family could not be run; ``reasons``: the first one's why."""

    def __init__(self, model: Model, imatrix: Imatrix | None = None, forced: bool = False) -> None:
        self._model, self._imatrix, self._forced = model, imatrix, forced
        self._seen = {LayerMap.identity(model.blocks).digest}
        self.refused: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

    def admit(self, edits: Iterable[tuple[Edit, ...]], family: str, phase: int) -> list[Candidate]:
        """Those that are new and can be run, in their order."""
        found = []
        for each in edits:
            candidate = self._candidate(each, family, phase)
            if candidate:
                found.append(candidate)
        return found

    def _candidate(self, edits: tuple[Edit, ...], family: str, phase: int) -> Candidate | None:
        try:
            made = layer_map(self._model.blocks, edits)
            if made.digest in self._seen:
                self.repeated[family] += 1
                return None
            self._seen.add(made.digest)
            check(self._model, made, self._forced)
            check_encodable(assemble(self._model, made), self._imatrix)
        except (BadUsage, NothingSelected) as error:
            self.refused[family] += 1
            self.reasons.setdefault(family, f"{edits_text(edits)}: {error}")
            return None
        return Candidate(edits, made, family, phase)


def check_explicit(
    model: Model, edits: Iterable[tuple[Edit, ...]], imatrix: Imatrix | None = None, forced: bool = False
) -> None:
    """BadUsage for the first that cannot be run: what is asked for by name is not left out in silence."""
    for each in edits:
        made = layer_map(model.blocks, each)
        check(model, made, forced)
        check_encodable(assemble(model, made), imatrix)


def extended(candidate: Candidate, edit: Edit) -> tuple[Edit, ...] | None:
    """The candidate's edits and one more, that counts layers of the original, translated to where those stand now.

    None where a layer that it names is gone or altered, or a range of it does not stand together any more.
    """
    moved = _translated(edit, candidate.layer_map)
    return None if moved is None else (*candidate.edits, moved)


def _translated(edit: Edit, made: LayerMap) -> Edit | None:
    spans = [_moved(span, made) for span in edit.spans]
    places = {name: getattr(edit, name) for name in ("after", "into") if getattr(edit, name) is not None}
    now = {name: made.where(block) for name, block in places.items()}
    if None in spans or None in now.values():
        return None
    return replace(edit, spans=tuple(spans), **now)  # type: ignore[arg-type]


def _moved(span: Span, made: LayerMap) -> Span | None:
    first = made.where(span.first)
    if first is None:
        return None
    places = range(first, first + len(span))
    own = [made.layers[place].copied for place in places if place < len(made)]
    return Span(places[0], places[-1]) if own == list(span.layers) else None
