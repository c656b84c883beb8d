"""Error-compensated rounding of a matrix into ggml's blocks.

Block scales come from ggml's encoder with the diagonal of H as importance. Codes are then chosen by error feedback and
coordinate descent, scales are refitted to them, and each row keeps the better of ggml's encoding and this one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from quantplan.errors import BadFile
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType
from quantplan.rounding.blocks import ScalarBlocks
from quantplan.rounding.feedback import descend, feed_back, row_energies
from quantplan.rounding.grid_blocks import GridBlocks
from quantplan.rounding.grid_feedback import descend_groups, feed_back_groups
from quantplan.rounding.grid_panel import GridPanel
from quantplan.rounding.layouts import CODEBOOK, column_group, layout_of
from quantplan.rounding.metric import Metric, prepare
from quantplan.rounding.panel import ScalarPanel
from quantplan.rounding.threads import spans, workers

_CONVERGED = 1e-3  # share of codes changed by a sweep below which no further one is made
# a panel of rows, its error feedback and its coordinate descent: column by column, or in groups of the codebook
_Steps = tuple[Callable[..., Any], Callable[..., None], Callable[..., int]]
_COLUMNS: _Steps = (ScalarPanel, feed_back, descend)
_GROUPS: _Steps = (GridPanel, feed_back_groups, descend_groups)
_PANELS, _LEAST_ROWS, _MOST_ROWS = 8, 256, 1024


@dataclass(frozen=True, slots=True)
class RoundingOptions:
    """``damping``: ridge of the feedback over the mean of H_jj; ``sweeps``: most sweeps of coordinate descent; ``refit``:
    fit the scales to the codes in all sweeps but the first; ``threads``: 0 for all cores, never changes the result.
    """

    damping: float = 0.01
    sweeps: int = 3
    refit: bool = True
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Rounded:
    """An encoded matrix and what it costs in the metric of H, without damping.

    ``blocks``: uint8 [rows, row bytes]; ``stock_errors``, ``errors``: float64 [rows], x H x^T of the errors of ggml's own
    encoding and of this one; ``rows_kept``: rows where ggml's encoding was no worse.
    """

    blocks: np.ndarray
    stock_errors: np.ndarray
    errors: np.ndarray
    rows_kept: int

    @property
    def error_ratio(self) -> float:
        """tr(D H D^T) of this encoding over that of ggml's own; 1 where that has no error."""
        total = float(self.stock_errors.sum())
        return float(self.errors.sum()) / total if total > 0 else 1.0


def compensate(
    weights: np.ndarray, metric: Metric | np.ndarray, kind: QuantType, options: RoundingOptions | None = None
) -> Rounded:
    """Encodes float32 [rows, columns] as ``kind`` with the least error found in the metric.

    ``metric``: second moments of the inputs, float32 [columns, columns], or ``prepare`` of them. BadFile where either has
    NaN or infinite values, NothingSelected for types without a layout, ValueError where shapes do not fit.
    """
    options, layout = options or RoundingOptions(), layout_of(kind)
    if not isinstance(metric, Metric):
        metric = prepare(metric, options.damping, column_group(kind), options.threads)
    if metric.group % column_group(kind):
        raise ValueError(f"{kind} needs second moments prepared in groups of {column_group(kind)} columns")
    rows, columns = weights.shape
    if columns != len(metric.hessian):
        raise ValueError(f"weights of {columns} columns do not fit second moments of {len(metric.hessian)}")
    kind.row_bytes(columns)  # ValueError where blocks do not fit
    panels = spans(rows, _panel_rows(rows))
    with workers(options.threads) as run_all:
        parts = run_all(partial(_round_panel, weights, metric, kind, layout, options), panels)
    return Rounded(
        np.concatenate([part.blocks for part in parts]),
        np.concatenate([part.stock_errors for part in parts]),
        np.concatenate([part.errors for part in parts]),
        sum(part.rows_kept for part in parts),
    )


def _panel_rows(rows: int) -> int:
    """Rows rounded together: by the matrix alone, so that the number of threads changes no shape of any product."""
    share = -(-rows // _PANELS)
    return min(max(-(-share // 64) * 64, _LEAST_ROWS), _MOST_ROWS)


def _round_panel(
    weights: np.ndarray,
    metric: Metric,
    kind: QuantType,
    layout: ScalarBlocks | GridBlocks,
    options: RoundingOptions,
    rows: slice,
) -> Rounded:
    part = np.ascontiguousarray(weights[rows], np.float32)
    if not np.isfinite(part).all():
        raise BadFile("the weights contain NaN or infinite values; is the model file damaged?")
    stock = ggml.quantize(part, kind, _importance(metric))
    new_panel, feedback, descent = _GROUPS if kind.name in CODEBOOK else _COLUMNS
    panel = new_panel(layout, part, layout.parse(stock))
    stock_errors = row_energies(panel.errors, metric.hessian)
    if not len(metric.order) or not stock_errors.any():
        return Rounded(stock, stock_errors, stock_errors, len(part))
    feedback(panel, metric)
    for sweep in range(options.sweeps):
        refitting = options.refit and sweep > 0
        if descent(panel, metric, refitting) < _CONVERGED * part.size and refitting == options.refit:
            break
    blocks = panel.pack()
    for some in spans(len(part), _LEAST_ROWS):  # the errors that are reported are those of what ggml decodes
        panel.errors[:, some] = (part[some] - ggml.dequantize(blocks[some], kind, part.shape[1])).T
    errors = row_energies(panel.errors, metric.hessian)
    worse = ~(errors < stock_errors)
    blocks[worse], errors[worse] = stock[worse], stock_errors[worse]
    return Rounded(blocks, stock_errors, errors, int(worse.sum()))


def _importance(metric: Metric) -> np.ndarray:
    diagonal = metric.diagonal
    return diagonal if diagonal.any() else np.ones_like(diagonal)  # ggml's encoders divide by sums of it
