"""A panel of rows while it is rounded: everything transposed, so that one column of all rows is contiguous."""

import numpy as np

from quantplan.rounding.blocks import ScalarBlocks, ScalarFields


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


class ScalarPanel:
    """Codes, scales and errors of ``rows`` rows of a scalar type, transposed.

    ``weights``, ``errors``: float32 [columns, rows], errors being weights minus decoded weights; ``codes``: uint8
    [columns, rows]; ``scales``, ``minimums``: float32 [sub-blocks, rows]; ``unit``: what adding 1 to a scale code adds to
    the factor of d.
    """

    unit = np.float32(1)

    def __init__(self, layout: ScalarBlocks, weights: np.ndarray, fields: ScalarFields) -> None:
        self.layout = layout
        self.rounder: LinearLevels | TableLevels = level_rounder(layout.levels)
        self.weights = np.ascontiguousarray(weights.T)
        self.codes = np.ascontiguousarray(fields.codes.T)
        self.d = np.ascontiguousarray(fields.d.T)
        self.scale_codes = np.ascontiguousarray(fields.scale_codes.T)
        self.dmin = None if fields.dmin is None else np.ascontiguousarray(fields.dmin.T)
        self.min_codes = None if fields.min_codes is None else np.ascontiguousarray(fields.min_codes.T)
        self.set_scales()
        self.errors = np.empty_like(self.weights)
        for start in range(0, len(self.weights), layout.sub_block):
            self.set_errors(slice(start, start + layout.sub_block))

    def set_scales(self) -> None:
        """Scales and minimums from their stored parts."""
        fields = self.fields()
        self.scales = np.ascontiguousarray(fields.scales().T)
        self.inverse = reciprocal(self.scales)
        minimums = fields.minimums()
        self.minimums = None if minimums is None else np.ascontiguousarray(minimums.T)

    def set_scales_of(self, unit: int) -> None:
        """The same for one block of each row."""
        per_unit = self.layout.block // self.layout.sub_block
        of = slice(unit * per_unit, (unit + 1) * per_unit)
        self.scales[of] = self.d[unit].astype(np.float32) * self.multipliers(of)
        self.inverse[of] = reciprocal(self.scales[of])
        if self.minimums is not None and self.dmin is not None and self.min_codes is not None:
            self.minimums[of] = self.dmin[unit].astype(np.float32) * self.min_codes[of]

    def multipliers(self, of: slice | np.ndarray) -> np.ndarray:
        """float32 [sub-blocks, rows]: what d is multiplied with in some sub-blocks."""
        return self.scale_codes[of].astype(np.float32)

    def fields(self) -> ScalarFields:
        """The panel's fields, rows first again."""
        return ScalarFields(
            self.codes.T,
            self.d.T,
            self.scale_codes.T,
            None if self.dmin is None else self.dmin.T,
            None if self.min_codes is None else self.min_codes.T,
        )

    def pack(self) -> np.ndarray:
        """uint8 [rows, row bytes]."""
        return self.layout.pack(self.fields())

    def levels(self, columns: slice) -> np.ndarray:
        """float32 [columns, rows]: the levels of the codes."""
        out = np.empty((columns.stop - columns.start, self.weights.shape[1]), np.float32)
        self.rounder.of_codes(self.codes[columns], out)
        return out

    def set_errors(self, columns: slice) -> None:
        """Errors of a run of columns from their codes, with the same float32 products as ggml's ``to_float``."""
        of = np.arange(columns.start, columns.stop) // self.layout.sub_block
        self.errors[columns] = self._errors_of(columns, self.levels(columns), of)

    def put(self, columns: slice | np.ndarray, levels: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Sets codes to ``levels``, which is overwritten; ``of``: sub-block of each column.

        Returns the errors, float32 [columns, rows]; ``self.errors`` is left to the caller.
        """
        self.codes[columns] = self.rounder.codes(levels)
        return self._errors_of(columns, levels, of)

    def _errors_of(self, columns: slice | np.ndarray, levels: np.ndarray, of: np.ndarray) -> np.ndarray:
        levels *= self.scales[of]
        if self.minimums is not None:
            levels -= self.minimums[of]
        return np.subtract(self.weights[columns], levels, out=levels)


def reciprocal(values: np.ndarray) -> np.ndarray:
    """float32: 1 / values, and 0 for 0. A subnormal scale has no reciprocal in float32: the greatest one is taken."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(values == 0, np.float32(0), np.float32(1) / values)
    return np.clip(inverse, -np.finfo(np.float32).max, np.finfo(np.float32).max)


def round_chunk(
    rounder: LinearLevels | TableLevels,
    goal: np.ndarray,
    coupling: np.ndarray,
    scale: np.ndarray,
    inverse: np.ndarray,
    before: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Rounds columns one after the other, each aiming at its goal plus its coupling to the changes before it.

    ``goal``, ``scale``, ``inverse``, ``before``: float32 [columns, rows], ``goal`` and ``before`` with the minimum added;
    ``coupling``: float32 [columns, columns], lower triangle used. Returns levels and changes, ``before`` minus decoded.
    """
    levels, changes = np.empty_like(goal), np.empty_like(goal)
    values = np.empty(goal.shape[1], np.float32)
    for column in range(len(goal)):
        if column:
            np.dot(coupling[column, :column], changes[:column], out=values)
            np.add(values, goal[column], out=values)
            np.multiply(values, inverse[column], out=values)
        else:
            np.multiply(goal[column], inverse[column], out=values)
        rounder.round(values, levels[column])
        np.multiply(levels[column], scale[column], out=changes[column])
        np.subtract(before[column], changes[column], out=changes[column])
    return levels, changes
