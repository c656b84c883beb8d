"""Whole numbers as people and their files write them."""

_MOST_DIGITS = 18  # more count nothing that there is


def whole_number(text: str) -> int | None:
    """The number that a text of plain digits stands for; None for any other text, and for endless ones."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
