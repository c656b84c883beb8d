"""Scales fitted to the codes that were chosen, for all rows of a panel at once.

With the codes fixed, decoded weights are linear in the factors d and dmin of a block, and in the integer scales of its
sub-blocks: tr(D H D^T) is a quadratic form in them. Its minimum is rounded to what the block can store, and taken in
those rows where the form is lower than before.
"""

import numpy as np

from quantplan.rounding.grid_panel import GridPanel
from quantplan.rounding.panel import ScalarPanel, reciprocal

_LARGEST_HALF = np.float32(np.finfo(np.float16).max)


def refit(panel: ScalarPanel | GridPanel, hessian: np.ndarray, pull: np.ndarray, block: slice) -> None:
    """Refits all scales of a run of whole blocks.

    ``hessian``: float32 [columns, columns]; ``pull``: float32 [columns of the run, rows], (E H)_j, kept up to date.
    """
    layout = panel.layout
    if layout.sub_block < layout.block:
        for start in range(block.start, block.stop, layout.sub_block):
            _refit_sub_block(panel, hessian, pull, block, slice(start, start + layout.sub_block))
    for start in range(block.start, block.stop, layout.block):
        _refit_factors(panel, hessian, pull, block, slice(start, start + layout.block))
    panel.set_errors(block)


def _refit_sub_block(
    panel: ScalarPanel | GridPanel, hessian: np.ndarray, pull: np.ndarray, block: slice, columns: slice
) -> None:
    """The integers of one sub-block: first its scale, then its minimum."""
    index, unit = columns.start // panel.layout.sub_block, columns.start // panel.layout.block
    here, local = pull[columns.start - block.start : columns.stop - block.start], hessian[columns, columns]
    change = panel.levels(columns) * (panel.d[unit].astype(np.float32) * panel.unit)  # of adding 1 to the scale code
    pulled = local @ change
    moves = _move(panel.scale_codes[index], panel.layout.scale_range, _dot(change, here), _dot(change, pulled))
    change *= moves
    if panel.dmin is not None and panel.min_codes is not None and panel.layout.min_range is not None:
        dmin = panel.dmin[unit].astype(np.float32)
        slope = _dot(pulled, np.broadcast_to(moves, pulled.shape)) - here.sum(axis=0)
        moves = _move(panel.min_codes[index], panel.layout.min_range, slope * dmin, dmin**2 * local.sum())
        change -= moves * dmin
    pull -= hessian[block, columns] @ change


def _move(integers: np.ndarray, limits: tuple[int, int], slope: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Moves integers [rows] to the least of moves^2 curvature - 2 moves slope, float32 moves; 0 where nothing is gained."""
    best = np.divide(slope, curvature, out=np.zeros_like(slope), where=curvature > 0)
    moves = np.clip(np.rint(integers + best), *limits).astype(np.float32) - integers
    moves[moves * (moves * curvature - 2 * slope) >= 0] = 0
    integers += moves.astype(integers.dtype)
    return moves


def _refit_factors(
    panel: ScalarPanel | GridPanel, hessian: np.ndarray, pull: np.ndarray, block: slice, columns: slice
) -> None:
    """d, and dmin where there is one, of one block of each row."""
    unit, inner = columns.start // panel.layout.block, slice(columns.start - block.start, columns.stop - block.start)
    of = np.arange(columns.start, columns.stop) // panel.layout.sub_block
    levels = panel.levels(columns) * panel.multipliers(of)
    pulled = hessian[columns, columns] @ levels
    slope, curvature = _dot(levels, pull[inner]), _dot(levels, pulled)
    d = panel.d[unit].astype(np.float32)
    if panel.dmin is None or panel.min_codes is None:
        new = _half(d + slope * reciprocal(curvature))
        move = new - d
        better = move * (move * curvature - 2 * slope) < 0
        panel.d[unit] = np.where(better, new, d)
    else:
        mins = -panel.min_codes[of].astype(np.float32)
        min_slope, min_curvature = _dot(mins, pull[inner]), _dot(mins, hessian[columns, columns] @ mins)
        both = _dot(mins, pulled)
        dmin = panel.dmin[unit].astype(np.float32)
        determinant = curvature * min_curvature - both**2
        safe = determinant > 1e-6 * curvature * min_curvature
        ideal = np.where(
            safe,
            (slope * min_curvature - min_slope * both) * reciprocal(np.where(safe, determinant, 0)),
            slope * reciprocal(curvature),
        )
        new = _half(d + ideal)
        move = new - d
        new_min = _half(dmin + (min_slope - move * both) * reciprocal(min_curvature))
        min_move = new_min - dmin
        gain = move * (move * curvature - 2 * slope) + min_move * (min_move * min_curvature - 2 * min_slope)
        better = gain + 2 * move * min_move * both < 0
        panel.d[unit], panel.dmin[unit] = np.where(better, new, d), np.where(better, new_min, dmin)
    panel.set_scales_of(unit)


def _half(values: np.ndarray) -> np.ndarray:
    """float32: the values that float16 can store nearest to ``values``."""
    return np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16).astype(np.float32)


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->j", left, right)
