"""Numbers of blocks as people write them: ``0-3 7 12-15``."""

from collections.abc import Iterable


def runs_text(numbers: Iterable[int]) -> str:
    """The numbers in the order given, those that follow each other as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
