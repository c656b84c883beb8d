"""The calibration text in two parts that share nothing: one to probe with, one to validate a refined plan with."""

from collections.abc import Sequence
from itertools import accumulate

from quantplan.text import SpecialText, Text

PIECES = 16
EVERY = 4


def probing_and_refinement(text: Text) -> tuple[Text, Text]:
    """The text cut at line ends into PIECES contiguous pieces of about equal length; every EVERY-th is for refinement.

    Pieces are taken from all over the text, so that both parts are of the same kind. Chats are cut between conversations. A
    text of fewer lines than pieces is cut between words, and one of fewer words leaves a part empty.
    """
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
