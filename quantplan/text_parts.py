"""The calibration text in two parts that share nothing: one to probe with, one to validate a refined plan with."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from quantplan.text import Domain, Domains, OneText, SpecialText, Text, content

PIECES = 16
EVERY = 4


def probing_and_refinement(text: Text) -> tuple[Text, Text]:
    """The text cut at line ends into PIECES contiguous pieces of about equal length; every EVERY-th is for refinement.

    Pieces are taken from all over the text, so that both parts are of the same kind. Chats are cut between conversations,
    domains one by one. A text of fewer lines than pieces is cut between words, and one of fewer words leaves a part empty.
    """
    if isinstance(text, Domains):
        cut = [(part.name, _cut(part.text)) for part in text.parts]
        return _domains((name, parts[0]) for name, parts in cut), _domains((name, parts[1]) for name, parts in cut)
    return _cut(text)


def _domains(parts: Iterable[tuple[str, OneText]]) -> Text:
    """Those that are not empty."""
    kept = [Domain(name, text) for name, text in parts if content(text).strip()]
    return Domains(tuple(kept)) if len(kept) > 1 else kept[0].text if kept else ""


def _cut(text: OneText) -> tuple[OneText, OneText]:
    if isinstance(text, SpecialText):
        probing, refinement = _shares(text.pieces)
        return text.only(probing), text.only(refinement)
    lines = text.splitlines(keepends=True)
    units = lines if len(lines) >= PIECES else text.split(" ")
    joint = "" if units is lines else " "
    probing, refinement = _shares(units)
    return joint.join(units[at] for at in probing), joint.join(units[at] for at in refinement)


def _shares(units: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of the units of either part."""
    ends = list(accumulate(map(len, units)))
    total = ends[-1] if ends else 0
    parts: tuple[list[int], list[int]] = ([], [])
    for at, end in enumerate(ends):
        piece = max(end - 1, 0) * PIECES // max(total, 1)
        parts[piece % EVERY == EVERY - 1].append(at)
    return parts
