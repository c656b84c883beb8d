"""Draws from a seed, the same with every version of Python."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Draws without end. Only ``random()`` is used, the one method whose numbers Python promises to keep."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def whole(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def one(self, values: Sequence[T]) -> T:
        return values[self.whole(0, len(values) - 1)]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """``count`` different ones, in a drawn order."""
        rest = list(values)
        return [rest.pop(self.whole(0, len(rest) - 1)) for _ in range(count)]

    def chance(self, share: float) -> bool:
        return self._random() < share
