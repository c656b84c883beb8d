"""Answers that do not end: whether a text goes round in circles."""

import re

_LEAST_TIMES = 3  # that a passage is said in a row, the last time perhaps not to its end
_LEAST_CHARACTERS = 60  # of the whole row: "ha ha ha" is no loop yet
_TAIL = 2000  # characters at the end that are looked at
_NUMBER = re.compile(r"\d+")


def loops(text: str) -> bool:
    """Whether the end of a text is one passage again and again, numbers in it apart: ``step 1 ... step 2 ...`` is a loop, too."""
    tail = " ".join(_NUMBER.sub("0", text).split())[-_TAIL:]
    backwards = tail[::-1]
    return any(
        period + length >= max(_LEAST_TIMES * period, _LEAST_CHARACTERS)
        for period, length in enumerate(_overlaps(backwards))
        if period
    )


def _overlaps(text: str) -> list[int]:
    """For each place, how much of the text from there on is as the text begins: the Z function (Gusfield, 1997)."""
    length, left, right = [0] * len(text), 0, 0
    for place in range(1, len(text)):
        reach = min(right - place, length[place - left]) if place < right else 0
        while place + reach < len(text) and text[reach] == text[place + reach]:
            reach += 1
        length[place] = reach
        if place + reach > right:
            left, right = place, place + reach
    return length
