"""A panel of rows while it is rounded to a codebook: groups of 4 or 8 columns take a point of the grid and signs."""

import numpy as np

from quantplan.rounding.grid_blocks import GridBlocks, GridFields

_ROWS = 256  # rows scored together: scores of 1024 points stay in the cache


class GridPanel:
    """Points, signs, scales and errors of rows of a codebook type, transposed.

    ``weights``, ``errors``: float32 [columns, rows]; ``points``: uint16 [groups, rows]; ``negative``: bool [columns, rows];
    ``scales``: float32 [sub-blocks, rows].
    """

    dmin = None

    def __init__(self, layout: GridBlocks, weights: np.ndarray, fields: GridFields) -> None:
        self.layout, self.grid = layout, layout.grid
        self.unit = np.float32(layout.unit)
        self.weights = np.ascontiguousarray(weights.T)
        self.points = np.ascontiguousarray(fields.points.T)
        self.negative = np.ascontiguousarray(np.unpackbits(fields.signs, axis=1, bitorder="little").T).view(bool)
        self.d = np.ascontiguousarray(fields.d.T)
        self.scale_codes = np.ascontiguousarray(fields.scale_codes.T)
        factors = np.repeat(self.d.astype(np.float32), layout.block // layout.sub_block, axis=0)
        self.scales = factors * self.multipliers(slice(None))
        self.errors = np.empty_like(self.weights)
        for start in range(0, len(self.weights), layout.block):
            self.set_errors(slice(start, start + layout.block))

    def multipliers(self, of: slice | np.ndarray) -> np.ndarray:
        """float32 [sub-blocks, rows]: what d is multiplied with in some sub-blocks."""
        return self.layout.multipliers(self.scale_codes[of])

    def set_scales_of(self, unit: int) -> None:
        """Scales of one block of each row from their stored parts."""
        per_unit = self.layout.block // self.layout.sub_block
        of = slice(unit * per_unit, (unit + 1) * per_unit)
        self.scales[of] = self.d[unit].astype(np.float32) * self.multipliers(of)

    def pack(self) -> np.ndarray:
        """uint8 [rows, row bytes]."""
        signs = np.packbits(self.negative.T, axis=1, bitorder="little")
        return self.layout.pack(GridFields(self.points.T, signs, self.d.T, self.scale_codes.T))

    def levels(self, columns: slice) -> np.ndarray:
        """float32 [columns, rows]: points with their signs, for a run of whole groups."""
        group = self.layout.group
        points = self.points[columns.start // group : columns.stop // group]
        magnitudes = self.grid[points].transpose(0, 2, 1).reshape(-1, points.shape[1])
        return np.where(self.negative[columns], -magnitudes, magnitudes)

    def set_errors(self, columns: slice) -> None:
        """Errors of a run of whole groups from what is stored, with the same float32 products as ggml's ``to_float``."""
        self.errors[columns] = self.errors_of(columns)

    def errors_of(self, columns: slice) -> np.ndarray:
        """float32 [columns, rows]: errors of a run of whole groups as they are stored now."""
        of = np.arange(columns.start, columns.stop) // self.layout.sub_block
        return self.weights[columns] - self.levels(columns) * self.scales[of]

    def unit_points(self, columns: slice) -> np.ndarray:
        """intp [points, rows] of a run of whole groups."""
        return self.points[columns.start // self.layout.group : columns.stop // self.layout.group].astype(np.intp)

    def put(self, columns: slice, points: np.ndarray, negative: np.ndarray) -> None:
        """Sets a run of whole groups, errors excepted: points [groups, rows], bool [columns, rows]."""
        self.points[columns.start // self.layout.group : columns.stop // self.layout.group] = points
        self.negative[columns] = negative


def features(grid: np.ndarray) -> np.ndarray:
    """float32 [terms, points]: products p_i p_j for i <= j, then p_i; a quadratic form of a point is linear in them."""
    first, second = np.triu_indices(grid.shape[1])
    return np.ascontiguousarray(np.concatenate([grid[:, first] * grid[:, second], grid], axis=1).T)


def nearest_points(
    target: np.ndarray, metric: np.ndarray, scale: np.ndarray, negative: np.ndarray, terms: np.ndarray
) -> np.ndarray:
    """intp [rows]: for each row the point p with least (t - s p)^T M (t - s p), s the scale with the signs.

    ``target``: float32 [group, rows]; ``metric``: float32 [group, group]; ``scale``: float32 [rows]; ``negative``: bool
    [group, rows]; ``terms``: ``features`` of the grid. All points are scored: exact, given the signs.
    """
    signed = np.where(negative, -scale, scale)
    first, second = np.triu_indices(len(target))
    weight = np.where(first == second, metric[first, second], 2 * metric[first, second]).astype(np.float32)
    products = signed[first] * signed[second] * weight[:, None]
    coefficients = np.concatenate([products, -2 * signed * (metric @ target)]).T
    out = np.empty(len(coefficients), np.intp)
    for start in range(0, len(out), _ROWS):
        np.argmin(coefficients[start : start + _ROWS] @ terms, axis=1, out=out[start : start + _ROWS])
    return out


def signs_for(target: np.ndarray, importance: np.ndarray, even: bool) -> np.ndarray:
    """bool [columns, rows]: where the target is negative; with ``even``, an even number of them in each row.

    Rows with an odd number give up the sign that is cheapest to lose: least |t_i| weighted by the root of its importance.
    Trying the next cheapest ones as well lowered errors by less than 1 %.
    """
    negative = target < 0
    if even:
        odd = np.flatnonzero(np.count_nonzero(negative, axis=0) % 2)
        cheapest = np.argmin(np.abs(target[:, odd]) * np.sqrt(importance)[:, None], axis=0)
        negative[cheapest, odd] ^= True
    return negative


def costs(target: np.ndarray, metric: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """float32 [rows]: (t - q)^T M (t - q)."""
    rest = target - decoded
    return np.einsum("ij,ij->j", rest, metric @ rest)


def decode_group(grid: np.ndarray, points: np.ndarray, negative: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 [columns, rows] of points [groups, rows]."""
    decoded = grid[points].transpose(0, 2, 1).reshape(negative.shape) * scale
    return np.where(negative, -decoded, decoded)
