"""How sure a difference is: the windows of a text drawn anew with replacement, again and again, from a
fixed seed.

Windows are drawn whole, because the tokens of a window depend on one another, and for both files alike,
because a hard window is hard for both: only the differences within windows count. Efron and Tibshirani, An
Introduction to the Bootstrap (1993), chapters 6 and 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 10_000
_SEED = 20240229  # any fixed number: the same windows give the same interval
_AT_ONCE = 1 << 22  # drawn indices held in memory: 32 MiB
_LEVEL = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """mean(a) - mean(b): standard error, 95 % interval, and ``p``: how often chance alone would give as
    much (two-sided).
    """

    difference: float
    stderr: float
    low: float
    high: float
    p: float

    @property
    def decided(self) -> bool:
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Ratio:
    """mean(a) / mean(b) with its 95 % interval."""

    ratio: float
    low: float
    high: float


def mean_error(per_chunk: np.ndarray, draws: int = DRAWS) -> float:
    """Standard error of the mean of [windows] values; ValueError for fewer than two."""
    values = _checked(per_chunk)
    return float(_means(values[None], draws)[0].std(ddof=1) * _unbiased(len(values)))


def paired_difference(a: np.ndarray, b: np.ndarray, draws: int = DRAWS) -> PairedDifference:
    """Of [windows] values of the same windows; ValueError where they are not as many or fewer than two.

    The percentile interval is stretched by Student's t over the normal quantile and sqrt(n / (n - 1)):
    without that, 8 windows would give an interval a fifth too short (tests hold the coverage).
    """
    gaps = _checked(a) - _checked(b, like=a)
    middle = float(gaps.mean())
    drawn = _means(gaps[None], draws)[0] - middle
    stretch = _unbiased(len(gaps)) * _student(len(gaps))
    low, high = np.percentile(drawn, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)]) * stretch
    # as many standard errors from 0 as chance goes that far; the drawn values alone cannot tell less than 1
    # / draws
    stderr = float(drawn.std(ddof=1) * _unbiased(len(gaps)))
    p = 2 * stats.t.sf(abs(middle) / stderr, len(gaps) - 1) if stderr > 0 else float(middle == 0)
    return PairedDifference(middle, stderr, middle + float(low), middle + float(high), float(p))


def ratio_interval(a: np.ndarray, b: np.ndarray, draws: int = DRAWS) -> Ratio:
    """mean(a) / mean(b) of the same windows; infinite where b is 0 and a is not, 1 where both are."""
    a, b = _checked(a), _checked(b, like=a)
    if np.array_equal(a, b):
        return Ratio(1.0, 1.0, 1.0)
    if b.mean() <= 0 or a.mean() <= 0:
        ratio = math.inf if b.mean() <= 0 else 0.0
        return Ratio(ratio, ratio, ratio)
    middle = math.log(a.mean() / b.mean())
    top, bottom = _means(np.stack([a, b]), draws)
    drawn = np.log(top) - np.log(bottom) - middle  # in logarithms the interval is near symmetric and never below 0
    stretch = _unbiased(len(a)) * _student(len(a))
    low, high = np.percentile(drawn, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)]) * stretch
    return Ratio(math.exp(middle), math.exp(middle + low), math.exp(middle + high))


def chunks_needed(a: np.ndarray, b: np.ndarray) -> int | None:
    """About how many windows would decide a difference of this size at 95 %; None where there is no
    difference at all.

    The error falls with the root of the windows: n (t s / (difference sqrt n))^2. It says how far off a
    decision is, not more: the difference itself is as uncertain as its error.
    """
    gaps = _checked(a) - _checked(b, like=a)
    if gaps.mean() == 0:
        return None
    quantile = stats.norm.ppf((1 + _LEVEL) / 2)
    return max(2, math.ceil((quantile * gaps.std(ddof=1) / gaps.mean()) ** 2))


def _checked(values: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values of at least two windows are needed, not an array of shape {values.shape}")
    if like is not None and len(like) != len(values):
        raise ValueError(f"{len(like)} and {len(values)} windows cannot be paired")
    return values


def _means(values: np.ndarray, draws: int) -> np.ndarray:
    """float64 [rows, draws]: means of [rows, windows] over windows drawn with replacement, alike for all
    rows.
    """
    random, chunks = np.random.default_rng(_SEED), values.shape[1]
    step = max(1, _AT_ONCE // chunks)
    out = np.empty((len(values), draws))
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = random.integers(0, chunks, (count, chunks))
        for row, each in zip(out, values, strict=True):
            row[start : start + count] = each[drawn].mean(axis=1)
    return out


def _unbiased(chunks: int) -> float:
    """The bootstrap's variance is that of the sample with divisor n: too small by (n - 1) / n."""
    return math.sqrt(chunks / (chunks - 1))


def _student(chunks: int) -> float:
    tail = (1 + _LEVEL) / 2
    return float(stats.t.ppf(tail, chunks - 1) / stats.norm.ppf(tail))
