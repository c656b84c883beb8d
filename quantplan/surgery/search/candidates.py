"""Candidates of a search: edits with their layer map, each map once, without those that the architecture refuses."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage, NothingSelected
from quantplan.imatrix import Imatrix
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.architectures.check import check
from quantplan.surgery.edited_tensors import edited_tensors
from quantplan.surgery.edits import Edit, Span, edits_text
from quantplan.surgery.encode_tensors import check_encodable
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model

EXPLICIT, COMBINED = "edits", "combined"  # families of candidates that belong to none


@dataclass(frozen=True)
class Candidate:
    """``edits``: for the original; ``family``: the name of its family, EXPLICIT or COMBINED."""

    edits: tuple[Edit, ...]
    layer_map: LayerMap
    family: str
    phase: int

    @property
    def key(self) -> str:
        return self.layer_map.digest

    def __str__(self) -> str:
        return edits_text(self.edits)


class CandidateFilter:
    """Admits each layer map once. By family, ``refused`` and ``repeated``: how many could not be run or were there already;
    ``reasons``: why the first one was refused.
    """

    def __init__(self, model: Model, imatrix: Imatrix | None = None, skip_check: bool = False) -> None:
        self._model, self._imatrix, self._skip_check = model, imatrix, skip_check
        self._seen = {LayerMap.identity(model.blocks).digest}
        self.refused: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

    def admit(self, edits: Iterable[tuple[Edit, ...]], family: str, phase: int) -> list[Candidate]:
        """Those that are new and can be run, in their order."""
        candidates = (self._candidate(candidate_edits, family, phase) for candidate_edits in edits)
        return [candidate for candidate in candidates if candidate is not None]

    def _candidate(self, edits: tuple[Edit, ...], family: str, phase: int) -> Candidate | None:
        try:
            layer_map = apply_edits(self._model.blocks, edits, self._model.mtp_blocks)
            if layer_map.digest in self._seen:
                self.repeated[family] += 1
                return None
            self._seen.add(layer_map.digest)
            _check(self._model, layer_map, self._imatrix, self._skip_check)
        except (BadUsage, NothingSelected) as error:
            self.refused[family] += 1
            self.reasons.setdefault(family, f"{edits_text(edits)}: {error}")
            return None
        return Candidate(edits, layer_map, family, phase)


def check_explicit(
    model: Model, explicit: Iterable[tuple[Edit, ...]], imatrix: Imatrix | None = None, skip_check: bool = False
) -> None:
    """BadUsage for the first that cannot be run: candidates that the user named are not left out silently."""
    for edits in explicit:
        _check(model, apply_edits(model.blocks, edits, model.mtp_blocks), imatrix, skip_check)


def _check(model: Model, layer_map: LayerMap, imatrix: Imatrix | None, skip_check: bool) -> None:
    check(model, layer_map, skip_check)
    check_encodable(edited_tensors(model, layer_map), imatrix)


def extended(candidate: Candidate, edit: Edit) -> tuple[Edit, ...] | None:
    """The candidate's edits and one more, which counts layers of the original, translated to their places in the candidate.

    None where a layer that it names is gone or changed, or where the layers of a range no longer follow each other.
    """
    translated = _translated(edit, candidate.layer_map)
    return None if translated is None else (*candidate.edits, translated)


def _translated(edit: Edit, layer_map: LayerMap) -> Edit | None:
    spans = [_translated_span(span, layer_map) for span in edit.spans]
    places = {name: getattr(edit, name) for name in ("after", "into") if getattr(edit, name) is not None}
    now = {name: layer_map.where(block) for name, block in places.items()}
    if None in spans or None in now.values():
        return None
    return replace(edit, spans=tuple(spans), **now)  # type: ignore[arg-type]


def _translated_span(span: Span, layer_map: LayerMap) -> Span | None:
    first = layer_map.where(span.first)
    if first is None:
        return None
    last = first + len(span) - 1
    copied = [layer.copied for layer in layer_map.layers[first : last + 1]]
    return Span(first, last) if copied == list(span.layers) else None
