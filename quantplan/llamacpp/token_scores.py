"""From logits to figures per token: negative log likelihood, KL divergence, difference of probabilities,
same top.

Logits stay in float32, but nothing is taken from the difference of two large log-probabilities. With p the
base's probabilities, d the difference of the two rows of logits and c = sum p d its mean,

    KL(p||q) = log1p(sum p g(d - c)),   g(x) = exp(x) - 1 - x >= 0,

which follows from KL = log(sum p exp d) - sum p d. No term can cancel another: equal rows give exactly 0,
and 1e-10 nats are as exact as 1. The same sum gives log(sum exp) of the other row without another
exponential.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache

import numpy as np

from quantplan.execution import cores

# 2^18 logits a task: three scratch arrays of 1 MiB stay near the core. With 2^15 the same work takes 1.6
# times as long on two cores, spent on handing the interpreter's lock over between short numpy calls.
BLOCK_VALUES = 1 << 18
_SERIES = tuple(1 / math.factorial(k + 2) for k in range(7))  # of g(x) / x^2
_SERIES_ERROR = 3e-8  # half a unit in the last place of float32
_LARGE = 20.0  # exp of more than 88 overflows float32; rows with such differences are done in float64


@dataclass(frozen=True)
class BaseRows:
    """The reference: ``logits`` float32 [rows, vocabulary] and ``log_sum`` float64 [rows], log of the sum
    of exponentials.
    """

    logits: np.ndarray
    log_sum: np.ndarray


@dataclass(frozen=True)
class TokenScores:
    """Per scored token, each float64 [rows]: nll and base nll of the true token, KLD, change of its
    probability, same top.
    """

    nll: np.ndarray
    base_nll: np.ndarray
    kld: np.ndarray
    delta_p: np.ndarray
    same_top: np.ndarray


def base_rows(logits: np.ndarray, out: np.ndarray | None = None) -> BaseRows:
    """A copy of the rows with their normalisation; ``out``: float32 [rows, vocabulary] to copy to."""
    if out is None:
        out = np.empty((logits.size // logits.shape[-1], logits.shape[-1]), np.float32)
    log_sum = np.empty(len(out))

    def work(rows: slice, block: np.ndarray) -> None:
        out[rows] = block
        log_sum[rows] = _log_sum_exp(out[rows])

    _each_block(logits, work)
    return BaseRows(out, log_sum)


def divergence(base: BaseRows, logits: np.ndarray) -> np.ndarray:
    """float64 [rows]: KL(base || other) in nats; 0 for equal rows, NaN where logits are NaN or infinite."""
    out = np.empty(len(base.logits))

    def work(rows: slice, block: np.ndarray) -> None:
        out[rows] = _compare(base.logits[rows], block, base.log_sum[rows])[1]

    _each_block(logits, work)
    return out


def token_scores(base: BaseRows, logits: np.ndarray, targets: np.ndarray) -> TokenScores:
    """All figures of the rows; ``targets``: int [rows], the token that really came."""
    count = len(base.logits)
    nll, kld, same_top = np.empty(count), np.empty(count), np.empty(count)

    def work(rows: slice, block: np.ndarray) -> None:
        own = base.logits[rows]
        shift, kld[rows] = _compare(own, block, base.log_sum[rows])
        log_sum = base.log_sum[rows] + shift + kld[rows]
        nll[rows] = log_sum - block[np.arange(len(block)), targets[rows]]
        same_top[rows] = block.argmax(axis=1) == own.argmax(axis=1)

    _each_block(logits, work)
    base_nll = base.log_sum - base.logits[np.arange(count), targets]
    return TokenScores(nll, base_nll, kld, np.exp(-nll) - np.exp(-base_nll), same_top)


def joined(parts: Sequence[TokenScores]) -> TokenScores:
    """The scores of consecutive parts of a text as those of the whole."""
    return TokenScores(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(TokenScores)))


# -- one block of rows
# ---------------------------------------------------------------------------------------------


def _log_sum_exp(rows: np.ndarray) -> np.ndarray:
    (scratch,) = _scratch(1, rows.shape)
    top = rows.max(axis=1)
    np.exp(np.subtract(rows, top[:, None], out=scratch), out=scratch)
    return top + np.log(scratch.sum(axis=1, dtype=np.float64))


def _compare(own: np.ndarray, other: np.ndarray, log_sum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(c, KLD) per row, see the module's docstring; ``own`` are the base's logits, ``log_sum`` theirs."""
    p, d, g = _scratch(3, own.shape)
    rounded = log_sum.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        np.exp(np.subtract(own, rounded[:, None], out=p), out=p)
        correction = np.exp(rounded - log_sum)  # of rounding the normalisation: up to 1e-6, the same for the whole row
        shift = _row_dot(p, np.subtract(other, own, out=d)) * correction
        d -= shift.astype(np.float32)[:, None]
        top, bottom = d.max(axis=1), d.min(axis=1)
        _excess(d, float(max(top.max(), -bottom.min())), out=g)
        kld = np.log1p(_row_dot(p, g) * correction)
    for row in np.flatnonzero(~(top <= _LARGE)):
        shift[row], kld[row] = _compare_in_double(own[row], other[row])
    return shift, kld


def _excess(x: np.ndarray, largest: float, out: np.ndarray) -> None:
    """out = exp(x) - 1 - x, by its series where |x| is at most ``largest`` and that is small enough.

    expm1(x) - x alone would lose the small ones: at |x| = 0.01 it is right to 1e-5 only.
    """
    terms = next((n for n in range(1, len(_SERIES)) if 2 * largest**n * _SERIES[n] < _SERIES_ERROR), None)
    if terms is None:
        np.subtract(np.expm1(x, out=out), x, out=out)
        return
    out[:] = _SERIES[terms - 1]
    for coefficient in reversed(_SERIES[: terms - 1]):
        out *= x
        out += np.float32(coefficient)
    out *= x
    out *= x


def _compare_in_double(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """(c, KLD) of one row in float64. Logits of minus infinity in both rows are tokens that cannot come."""
    own, other = own.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        log_p, log_q = (row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in (own, other))
        p = np.exp(log_p)
        possible = p != 0  # NaN stays in: it must not pass for a row without damage
        kld = float(p[possible] @ (log_p - log_q)[possible])
        shift = float(p[possible] @ (other - own)[possible])
    return shift, kld


def _row_dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [rows]: scalar products of the rows, summed in float32."""
    return np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0].astype(np.float64)


# -- blocks over threads
# -------------------------------------------------------------------------------------------

_kept = threading.local()


def _scratch(count: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """``count`` float32 arrays that belong to this thread until it asks again: fresh ones cost a page fault
    each 4 KiB.
    """
    size = math.prod(shape)
    arrays = getattr(_kept, "arrays", None)
    if arrays is None or arrays.shape[0] < count or arrays.shape[1] < size:
        arrays = _kept.arrays = np.empty((max(count, 3), max(size, BLOCK_VALUES)), np.float32)
    return [arrays[index, :size].reshape(shape) for index in range(count)]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="scoring")


def _each_block(logits: np.ndarray, work: Callable[[slice, np.ndarray], None]) -> None:
    """work(rows, block) for all blocks of [rows, vocabulary] or [chunks, rows, vocabulary], on all cores."""
    list(_pool().map(lambda task: work(*task), row_blocks(logits)))


def row_blocks(logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Views of whole rows: the engine's chunks are not contiguous, and flattening them would copy all
    logits.
    """
    chunks = logits if logits.ndim == 3 else logits[None]
    step = max(1, BLOCK_VALUES // logits.shape[-1])
    for index, chunk in enumerate(chunks):
        for start in range(0, len(chunk), step):
            block = chunk[start : start + step]
            first = index * len(chunk) + start
            yield slice(first, first + len(block)), block
