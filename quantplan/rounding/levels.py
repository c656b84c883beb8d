"""The nearest level of a scalar type, for many values at once."""

import numpy as np


class LinearLevels:
    """Consecutive integers."""

    def __init__(self, levels: np.ndarray) -> None:
        self.lowest, self.highest = np.float32(levels[0]), np.float32(levels[-1])

    def round(self, values: np.ndarray, out: np.ndarray) -> None:
        """Nearest level of each value; ``values`` is overwritten."""
        np.rint(values, out=values)
        np.maximum(values, self.lowest, out=values)
        np.minimum(values, self.highest, out=out)

    def of_codes(self, codes: np.ndarray, out: np.ndarray) -> None:
        """Levels, float32, of codes, uint8."""
        np.add(codes, self.lowest, out=out)

    def codes(self, levels: np.ndarray) -> np.ndarray:
        """uint8 codes of levels."""
        return (levels - self.lowest).astype(np.uint8)


class TableLevels:
    """Levels at uneven distances, all of them integers.

    Midpoints between integers are multiples of one half, so between two neighbouring halves the nearest level is the same: a
    table by the floor of twice the value is exact.
    """

    def __init__(self, levels: np.ndarray) -> None:
        self.levels = levels
        self.lowest, self.highest = np.float32(2 * levels[0]), np.float32(2 * levels[-1])
        halves = np.arange(2 * levels[0], 2 * levels[-1] + 1) / 2 + 0.25
        self.nearest = np.abs(halves[:, None] - levels).argmin(axis=1).astype(np.uint8)
        self.nearest_levels = levels[self.nearest]

    def round(self, values: np.ndarray, out: np.ndarray) -> None:
        """Nearest level of each value; ``values`` is overwritten."""
        values *= 2
        np.maximum(values, self.lowest, out=values)
        np.minimum(values, self.highest, out=values)
        np.floor(values, out=values)
        values -= self.lowest
        np.take(self.nearest_levels, values.astype(np.intp), out=out, mode="clip")

    def of_codes(self, codes: np.ndarray, out: np.ndarray) -> None:
        """Levels, float32, of codes, uint8."""
        np.take(self.levels, codes, out=out, mode="clip")

    def codes(self, levels: np.ndarray) -> np.ndarray:
        """uint8 codes of levels."""
        return self.nearest[(2 * levels - self.lowest).astype(np.intp)]


def level_rounder(levels: np.ndarray) -> LinearLevels | TableLevels:
    """The rounder for rising float32 ``levels``."""
    return LinearLevels(levels) if (np.diff(levels) == 1).all() else TableLevels(levels)
