"""Differences between two files that were measured alike, and whether chance explains them.

What was measured on the same windows or the same tasks is compared pair by pair: a hard window is hard for both files, and
only what differs within pairs counts. Tokens per second have no pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from quantplan.comparison import Gap
from quantplan.evaluate.bootstrap import chunks_needed, paired_difference
from quantplan.throughput import RUN_TO_RUN

LEVEL = 0.95
_NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))


def chunks_gap(own: np.ndarray, other: np.ndarray) -> Gap:
    """mean(own) - mean(other) of [windows] values: paired bootstrap, and about how many windows would decide.

    ValueError where they are not as many or fewer than two.
    """
    found = paired_difference(own, other)
    needed = None if found.decided else chunks_needed(own, other)
    return Gap(
        found.difference, found.low, found.high, found.decided, None if needed is None else max(needed, len(own) + 1)
    )


def tasks_gap(own: Sequence[bool], other: Sequence[bool]) -> Gap:
    """Percentage points by which ``own`` solved more of the same tasks.

    Only tasks that one solved and the other did not tell them apart. Decided by the exact test of McNemar (Psychometrika
    12, 1947): those are as good as tosses of a coin where the files are alike. The interval is that of a mean of n
    differences, by Student's t; where few tasks differ it is approximate, the test is not.
    """
    gaps = 100 * (np.array(own, np.float64) - np.array(other, np.float64))
    won, lost = int((gaps > 0).sum()), int((gaps < 0).sum())
    reach = _reach(len(gaps)) * _error(gaps)
    decided = bool(won + lost) and float(stats.binomtest(won, won + lost).pvalue) < 1 - LEVEL
    return _gap(float(gaps.mean()), reach, decided, None if decided else _needed(gaps))


def average_gap(pairs: Sequence[tuple[Sequence[bool], Sequence[bool]]]) -> Gap:
    """Difference of the averages over kinds of tasks, from the paired errors of each; the kinds are independent.

    A single kind is its own average: McNemar's test decides.
    """
    if len(pairs) == 1:
        return tasks_gap(*pairs[0])
    each = [100 * (np.array(own, np.float64) - np.array(other, np.float64)) for own, other in pairs]
    middle = float(np.mean([gaps.mean() for gaps in each]))
    reach = _NORMAL * math.hypot(*(_error(gaps) for gaps in each)) / len(each)
    return _gap(middle, reach, abs(middle) > reach)


def speed_gap(own: Sequence[float], other: Sequence[float]) -> Gap:
    """Difference of mean tokens per second. Welch's interval over repetitions, widened by what differs from run to run."""
    means = [float(np.mean(samples)) for samples in (own, other)]
    squares = [float(np.var(samples, ddof=1)) / len(samples) if len(samples) > 1 else 0.0 for samples in (own, other)]
    between = [(RUN_TO_RUN * mean) ** 2 for mean in means]
    reach = _welch(squares, [len(own), len(other)]) * math.sqrt(sum(squares)) if sum(squares) > 0 else 0.0
    reach = math.hypot(reach, _NORMAL * math.sqrt(sum(between)))
    middle = means[0] - means[1]
    return _gap(middle, reach, abs(middle) > reach)


def _gap(middle: float, reach: float, decided: bool, needed: int | None = None) -> Gap:
    return Gap(middle, middle - reach, middle + reach, decided, needed)


def _error(gaps: np.ndarray) -> float:
    return float(gaps.std(ddof=1) / math.sqrt(len(gaps))) if len(gaps) > 1 else math.inf


def _reach(count: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) if count > 1 else 1.0


def _needed(gaps: np.ndarray) -> int | None:
    """About how many tasks would decide a difference of this size; None where there is none."""
    if gaps.mean() == 0 or len(gaps) < 2:
        return None
    return max(len(gaps) + 1, math.ceil((_NORMAL * gaps.std(ddof=1) / gaps.mean()) ** 2))


def _welch(squares: Sequence[float], counts: Sequence[int]) -> float:
    """Student's t for two means of unequal variance (Welch, Biometrika 34, 1947)."""
    parts = sum(square**2 / (count - 1) for square, count in zip(squares, counts, strict=True) if count > 1)
    return float(stats.t.ppf((1 + LEVEL) / 2, sum(squares) ** 2 / parts))
