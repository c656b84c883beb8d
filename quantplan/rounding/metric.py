"""The metric of rounding errors: second moments of a matrix's inputs, in the form that rounding needs.

For inputs x with H = E[x x^T], an error D = W - Q of the weights costs tr(D H D^T) at the output. With columns in order of
falling H_jj and

    H + ridge I = U diag(v) U^T        U upper triangular, ones on its diagonal

that is the sum over columns of v_j |D_j + sum_{i<j} D_i U_ij|^2: a column rounded after others should aim at
w_j + sum_{i<j} D_i U_ij. That is the feedback of GPTQ (arXiv 2210.17323) in the form of LDLQ (QuIP, arXiv 2307.13304),
which needs one factorization and no inverse.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from quantplan.errors import BadFile
from quantplan.rounding.threads import RunAll, spans, workers

_TILE = 256  # large enough for BLAS, small enough that sixteen threads have work in each step
_MOST_RIDGE = 1e3  # times the ridge asked for: a matrix that needs more is not a matrix of second moments


@dataclass(frozen=True, eq=False)
class Metric:
    """Second moments, factorized.

    ``hessian``: float32 [columns, columns] as it was given; ``order``: columns with H_jj > 0, in the order in which they
    are rounded; ``feedback``: float32 [live, live], U in that order (below the diagonal: undefined); ``pivots``: float32
    [live], v; ``ridge``: what was
    added to the diagonal; ``group``: columns that stay together in the order.
    """

    hessian: np.ndarray
    order: np.ndarray
    feedback: np.ndarray
    pivots: np.ndarray
    ridge: float
    group: int = 1

    @property
    def diagonal(self) -> np.ndarray:
        """float32 [columns]: H_jj, the importance of each column."""
        return np.ascontiguousarray(np.diagonal(self.hessian))


def prepare(hessian: np.ndarray, damping: float = 0.01, group: int = 1, threads: int = 0) -> Metric:
    """Factorizes second moments; one further float32 [columns, columns] is kept.

    ``hessian``: float32 [columns, columns], symmetric; ``damping``: ridge over the mean of the diagonal; ``group``: order
    groups of so many columns by the mean of their H_jj. BadFile where H has NaN or infinite values, or is not
    positive semidefinite.
    """
    hessian = np.ascontiguousarray(hessian, np.float32)
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1]:
        raise ValueError(f"second moments must be a square matrix, not {hessian.shape}")
    diagonal = np.diagonal(hessian)
    if not all(np.isfinite(hessian[span]).all() for span in spans(len(hessian), _TILE)):
        raise BadFile("the second moments of the inputs contain NaN or infinite values; collect them again")
    if (diagonal < 0).any():
        raise BadFile("the second moments of the inputs have negative values on the diagonal; collect them again")
    order = _order(diagonal, group)
    ridge = damping * float(diagonal[order].mean(dtype=np.float64)) if len(order) else 0.0
    with workers(threads) as run_all:
        for more in (1.0, 10.0, 100.0, _MOST_RIDGE):
            factored = _factor(hessian, order, max(ridge, 1e-30) * more, run_all)
            if factored is not None:
                return Metric(hessian, order, *factored, ridge * more, group)
    raise BadFile("the second moments of the inputs are not positive semidefinite; collect them again")


def _order(diagonal: np.ndarray, group: int) -> np.ndarray:
    """Live columns by falling H_jj; equal ones keep their order. Groups with any live column stay whole."""
    means = diagonal.reshape(-1, group).mean(axis=1, dtype=np.float64)
    groups = np.argsort(-means, kind="stable")
    groups = groups[means[groups] > 0]
    return (groups[:, None] * group + np.arange(group)).reshape(-1)


def _factor(
    hessian: np.ndarray, order: np.ndarray, ridge: float, run_all: RunAll
) -> tuple[np.ndarray, np.ndarray] | None:
    """U and v; None where a pivot is not positive. Blocked, from the last columns to the first, each looking at those done."""
    size = len(order)
    out = np.empty((size, size), np.float32)
    tiles = spans(size, _TILE)
    for tile in tiles:
        np.take(hessian[order[tile]], order, axis=1, out=out[tile])
        out[np.arange(tile.start, tile.stop), np.arange(tile.start, tile.stop)] += ridge
    pivots = np.empty(size, np.float32)
    for index in reversed(range(len(tiles))):
        inverse = _factor_diagonal(out, tiles[index])
        if inverse is None:
            return None
        pivots[tiles[index]] = np.diagonal(out[tiles[index], tiles[index]])
        run_all(partial(_factor_panel, out, tiles[index], inverse), tiles[:index])
    run_all(lambda tile: np.divide(out[tile, tile.start :], pivots[tile.start :], out=out[tile, tile.start :]), tiles)
    return out, pivots**2


def _factor_diagonal(out: np.ndarray, tile: slice) -> np.ndarray | None:
    """Factorizes the tile on the diagonal in place; its inverse, float32, or None where it is not positive definite."""
    done = out[tile, tile.stop :]
    rest = (out[tile, tile] - done @ done.T).astype(np.float64)
    try:
        factor = cholesky(rest[::-1, ::-1], lower=True)[::-1, ::-1]
    except np.linalg.LinAlgError:
        return None
    out[tile, tile] = factor
    return solve_triangular(factor, np.eye(len(factor)), lower=False).astype(np.float32)


def _factor_panel(out: np.ndarray, tile: slice, inverse: np.ndarray, rows: slice) -> None:
    rest = out[rows, tile] - out[rows, tile.stop :] @ out[tile, tile.stop :].T
    np.matmul(rest, inverse.T, out=out[rows, tile])
