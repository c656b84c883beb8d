"""Error feedback and coordinate descent for codebook types, by units of columns that share a point or a parity of signs.

As in feedback.py, with units in place of columns. A unit's own metric is a small matrix M: the block of U diag(v) U^T in
the feedback, the block of H in the descent; all points of the grid are compared in it.
"""

import numpy as np

from quantplan.rounding.feedback import BLOCK
from quantplan.rounding.grid_panel import (
    GridPanel,
    costs,
    decode_group,
    features,
    nearest_points,
    signs_for,
)
from quantplan.rounding.metric import Metric
from quantplan.rounding.refit import refit
from quantplan.rounding.threads import spans


def feed_back_groups(panel: GridPanel, metric: Metric) -> None:
    """Rounds the live units in the metric's order, which keeps each 8 columns together.

    U gives the target of one column after another; for a unit at once it is t = w + pull L^-1 with L = U of the unit, and
    M = L diag(v) L^T.
    """
    order, factor, pivots = metric.order, metric.feedback, metric.pivots
    terms, unit = features(panel.grid), panel.layout.unit_columns
    errors = panel.errors[: len(order)]  # meanwhile in the order of rounding
    for block in spans(len(order), BLOCK):
        pull = factor[: block.start, block].T @ errors[: block.start]
        for inner in spans(block.stop - block.start, unit):
            here = slice(block.start + inner.start, block.start + inner.stop)
            columns = slice(int(order[here.start]), int(order[here.start]) + unit)
            pull[inner] += factor[block.start : here.start, here].T @ errors[block.start : here.start]
            upper = np.triu(factor[here, here]).astype(np.float64)
            target = panel.weights[columns] + np.linalg.inv(upper).astype(np.float32).T @ pull[inner]
            local = ((upper * pivots[here]) @ upper.T).astype(np.float32)
            _choose(panel, columns, target, local, terms, keep=False)
            errors[here] = panel.errors_of(columns)
    for block in spans(len(panel.errors), BLOCK):
        panel.set_errors(block)


def descend_groups(panel: GridPanel, metric: Metric, refitting: bool = False) -> int:
    """One sweep of coordinate descent over all units in the natural order; the number of weights that changed."""
    hessian, terms, unit = metric.hessian, features(panel.grid), panel.layout.unit_columns
    ridge, diagonal, changed = _dead_ridge(metric), metric.diagonal, 0
    for block in spans(len(hessian), BLOCK):
        pull = hessian[block] @ panel.errors
        blocks, inverses = _units(hessian, block, unit, ridge)
        for inner, local, inverse in zip(spans(block.stop - block.start, unit), blocks, inverses, strict=True):
            columns = slice(block.start + inner.start, block.start + inner.stop)
            if not diagonal[columns].any():  # dead inputs
                continue
            before = panel.errors[columns].copy()
            pulled = pull[inner] + ridge[columns, None] * before
            target = panel.weights[columns] - before + inverse @ pulled
            _choose(panel, columns, target, local, terms, keep=True)
            panel.set_errors(columns)
            changes = panel.errors[columns] - before
            changed += int(np.count_nonzero(changes))
            pull += hessian[block, columns] @ changes
        if refitting:
            refit(panel, hessian, pull, block)
    return changed


def _units(hessian: np.ndarray, block: slice, unit: int, ridge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [units, columns, columns]: the blocks of H + ridge on the diagonal, and their (pseudo-)inverses."""
    columns = np.arange(block.start, block.stop).reshape(-1, unit)
    out = hessian[columns[:, :, None], columns[:, None, :]] + ridge[columns][:, :, None] * np.eye(
        unit, dtype=np.float32
    )
    return out, np.linalg.pinv(out.astype(np.float64), rcond=1e-6, hermitian=True).astype(np.float32)


def _dead_ridge(metric: Metric) -> np.ndarray:
    """float32 [columns]: what keeps dead inputs near their weights where they share a point with live ones; 0 for the live."""
    return np.where(metric.diagonal > 0, 0, metric.ridge).astype(np.float32)


def _choose(
    panel: GridPanel, columns: slice, target: np.ndarray, local: np.ndarray, terms: np.ndarray, keep: bool
) -> None:
    """Takes the best points found for a unit; ``keep``: only in rows where they are better than what is there."""
    scale = panel.scales[columns.start // panel.layout.sub_block]
    facing = np.where(scale < 0, -target, target)
    negative = signs_for(facing, np.diagonal(local), panel.layout.even)
    points = _points(panel.layout.group, target, local, scale, negative, terms)
    if keep:
        old_points, old_negative = panel.unit_points(columns), panel.negative[columns]
        cost = costs(target, local, decode_group(panel.grid, points, negative, scale))
        better = cost < costs(target, local, decode_group(panel.grid, old_points, old_negative, scale))
        points, negative = np.where(better, points, old_points), np.where(better, negative, old_negative)
    panel.put(columns, points, negative)


def _points(
    group: int, target: np.ndarray, local: np.ndarray, scale: np.ndarray, negative: np.ndarray, terms: np.ndarray
) -> np.ndarray:
    """intp [points of the unit, rows]. With two points, the first knows that the second will make up for its error."""
    if len(target) == group:
        return nearest_points(target, local, scale, negative, terms)[None]
    first, second = slice(0, group), slice(group, None)
    behind = local[second, second].astype(np.float64)
    behind += 1e-6 * (np.trace(behind) or 1) * np.eye(group)  # few tokens may leave it singular
    answer = np.linalg.solve(behind, local[second, first]).astype(np.float32)
    ahead = local[first, first] - local[first, second] @ answer
    chosen = nearest_points(target[first], ahead, scale, negative[first], terms)
    grid = terms[-group:].T
    rest = target[first] - decode_group(grid, chosen[None], negative[first], scale)
    then = nearest_points(target[second] + answer @ rest, local[second, second], scale, negative[second], terms)
    return np.stack([chosen, then])
