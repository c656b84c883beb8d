"""Sums of x x^T in memory, by threaded BLAS (ssyrk: half the work of a product)."""

import numpy as np
from scipy.linalg.blas import ssyrk

_JOINED_ROWS = 512  # arrays of fewer rows are joined first: ssyrk is slow on few


class MomentSums:
    """Sum of x x^T over inputs x; ``tokens`` of them. Rows wait until ``flush``, so that ssyrk gets many at once."""

    def __init__(self, columns: int) -> None:
        # Fortran order, upper triangle: what ssyrk adds to in place
        self._sums = np.zeros((columns, columns), np.float32, order="F")
        self._waiting: list[np.ndarray] = []
        self.tokens = 0

    def add(self, rows: np.ndarray) -> int:
        """Takes float32 [rows, columns] over, C order; returns its bytes."""
        self._waiting.append(rows)
        self.tokens += len(rows)
        return rows.nbytes

    def flush(self) -> None:
        """Adds all that waits. NaN and infinity reach the diagonal, wherever they are."""
        for rows in _joined(self._waiting):
            self._sums = ssyrk(1.0, rows.T, beta=1.0, c=self._sums, overwrite_c=1)
        self._waiting.clear()

    @property
    def diagonal(self) -> np.ndarray:
        """float32 [columns]: sum of x_j^2."""
        return self._sums.diagonal()

    @property
    def lower(self) -> np.ndarray:
        """float32 [columns, columns], C order; only the lower triangle is filled."""
        return self._sums.T


class DiagonalSums:
    """Sum of x_j^2 alone, for matrices that are never quantized."""

    lower = None

    def __init__(self, columns: int) -> None:
        self._sums = np.zeros(columns)
        self.tokens = 0

    def add(self, rows: np.ndarray) -> int:
        self._sums += np.einsum("ij,ij->j", rows, rows)
        self.tokens += len(rows)
        return 0

    def flush(self) -> None:
        """Nothing waits."""

    @property
    def diagonal(self) -> np.ndarray:
        return self._sums.astype(np.float32)


def _joined(arrays: list[np.ndarray]) -> list[np.ndarray]:
    joined: list[np.ndarray] = []
    small: list[np.ndarray] = []
    for rows in arrays:
        if len(rows) >= _JOINED_ROWS:
            joined.append(rows)
            continue
        small.append(rows)
        if sum(map(len, small)) >= _JOINED_ROWS:
            joined.append(np.concatenate(small))
            small = []
    return joined + ([np.concatenate(small)] if small else [])
