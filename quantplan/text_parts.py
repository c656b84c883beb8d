"""The calibration text in two parts that share nothing: one to probe with, one to validate a refined plan with."""

from itertools import accumulate

PIECES = 16
EVERY = 4


def probing_and_refinement(text: str) -> tuple[str, str]:
    """The text cut at line ends into PIECES contiguous pieces of about equal length; every EVERY-th is for refinement.

    Pieces are taken from all over the text, so that both parts are of the same kind. A text of fewer lines than pieces is
    cut between words, and one of fewer words leaves a part empty.
    """
    lines = text.splitlines(keepends=True)
    units = lines if len(lines) >= PIECES else text.split(" ")
    joint = "" if units is lines else " "
    ends = list(accumulate(map(len, units)))
    total = ends[-1] if ends else 0
    parts: tuple[list[str], list[str]] = ([], [])
    for unit, end in zip(units, ends, strict=True):
        piece = max(end - 1, 0) * PIECES // max(total, 1)
        parts[piece % EVERY == EVERY - 1].append(unit)
    return joint.join(parts[0]), joint.join(parts[1])
