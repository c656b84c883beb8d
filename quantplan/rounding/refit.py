"""Scales fitted to the codes that were chosen, for all rows of a panel at once.

With the codes fixed, decoded weights are linear in the factors d and dmin of a block, and in the integer scales of its
sub-blocks: tr(D H D^T) is a quadratic form in them. Its minimum is rounded to what the block can store, and taken in
those rows where the form is lower than before.
"""

from __future__ import annotations

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
    inner = slice(columns.start - block.start, columns.stop - block.start)
    change = panel.levels(columns) * (panel.d[unit].astype(np.float32) * panel.unit)
    _step(panel.scale_codes[index], panel.layout.scale_range, change, hessian, pull, block, inner)
    if panel.dmin is not None:
        change = np.broadcast_to(-panel.dmin[unit].astype(np.float32), change.shape)
        _step(panel.min_codes[index], panel.layout.min_range, change, hessian, pull, block, inner)


def _step(
    integers: np.ndarray,
    limits: tuple[int, int],
    change: np.ndarray,
    hessian: np.ndarray,
    pull: np.ndarray,
    block: slice,
    inner: slice,
) -> None:
    """Moves integers [rows], each of which adds ``change`` [columns, rows] to the decoded weights, to the best value."""
    columns = slice(block.start + inner.start, block.start + inner.stop)
    slope = np.einsum("ij,ij->j", change, pull[inner])
    curvature = np.einsum("ij,ij->j", change, hessian[columns, columns] @ change)
    ideal = integers + slope * reciprocal(curvature)
    moves = np.clip(np.rint(ideal), *limits).astype(np.float32) - integers
    moves[moves * (moves * curvature - 2 * slope) >= 0] = 0
    integers += moves.astype(integers.dtype)
    pull -= hessian[block, columns] @ (change * moves)


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
    if panel.dmin is None:
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
