"""Whether a difference between two files is significant (p < 0.05): the one rule of compare, run, card and report.

What was measured on the same chunks or the same tasks is compared in pairs: a hard chunk is hard for both files, and only
differences within pairs count. Chunks are the units, not tokens, because the tokens of a chunk depend on one another.
Tokens per second have no pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from quantplan.comparison import Gap
from quantplan.measurement import Measurement
from quantplan.throughput import RUN_TO_RUN

Values = Sequence[float] | np.ndarray  # one for each chunk or task
LEVEL = 0.95
LEAST_SAMPLES = 4  # chunks: of fewer Student's t says little (12.7 standard errors for two), so there is no interval
_NEXT = 1e-9  # to a share
_NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class PairedDifference:
    """mean(a) - mean(b) with its standard error, 95 % interval and two-sided ``p``, by Student's paired t test."""

    difference: float
    stderr: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        return self.p < 1 - LEVEL


@dataclass(frozen=True)
class Ratio:
    """mean(a) / mean(b) with its 95 % interval."""

    ratio: float
    low: float
    high: float


def paired_difference(a: Values, b: Values) -> PairedDifference:
    """Of values of the same chunks; ValueError where they are not equally many, or fewer than two.

    Of fewer than LEAST_SAMPLES that differ nothing is significant, and the interval is without end.
    """
    gaps = np.subtract(*_paired(a, b))
    mean, stderr = float(gaps.mean()), float(stats.sem(gaps))
    if len(gaps) < LEAST_SAMPLES and gaps.any():
        return PairedDifference(mean, stderr, -math.inf, math.inf, 1.0)
    if stderr <= 1e-12 * abs(mean):  # every chunk differs by the same
        return PairedDifference(mean, stderr, mean, mean, float(mean == 0))
    test = stats.ttest_1samp(gaps, 0)
    low, high = test.confidence_interval(LEVEL)
    return PairedDifference(mean, stderr, float(low), float(high), float(test.pvalue))


def ratio_interval(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """mean(a) / mean(b) of values of the same chunks; infinite where b is 0 and a is not.

    Fieller's interval (Journal of the Royal Statistical Society B 16, 1954): every ratio r for which the paired t test finds
    a - r b not significantly different from 0. So it holds 1 exactly where ``paired_difference`` is not significant. Without
    upper end where b itself is not significantly above 0; from 0 to infinity where there are fewer than LEAST_SAMPLES.
    """
    pair = _paired(a, b)
    mean_a, mean_b = map(float, np.mean(pair, axis=1))
    if mean_b <= 0:
        return Ratio(math.inf, math.inf, math.inf) if mean_a > 0 else Ratio(1.0, 1.0, 1.0)
    if len(a) < LEAST_SAMPLES and not np.array_equal(*pair):
        return Ratio(mean_a / mean_b, 0.0, math.inf)
    (var_a, cov), (_, var_b) = np.cov(*pair) * float(stats.t.ppf((1 + LEVEL) / 2, len(a) - 1)) ** 2 / len(a)
    square, linear, constant = mean_b**2 - var_b, mean_a * mean_b - cov, mean_a**2 - var_a
    root = math.sqrt(max(0.0, linear**2 - square * constant))
    low, high = ((linear - root) / square, (linear + root) / square) if square > 0 else (0.0, math.inf)
    return Ratio(mean_a / mean_b, max(0.0, float(low)), float(high))


def chunks_needed(a: Sequence[float], b: Sequence[float]) -> int | None:
    """About how many chunks would make a difference of this size significant; None where there is none at all.

    n (1.96 standard errors / difference)^2. The difference is itself as uncertain as its error.
    """
    gaps = np.subtract(*_paired(a, b))
    return None if gaps.mean() == 0 else max(2, _needed(gaps))


def _needed(gaps: np.ndarray) -> int:
    return math.ceil((_NORMAL * gaps.std(ddof=1) / gaps.mean()) ** 2)


def _paired(a: Values, b: Values) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or len(first) < 2:
        raise ValueError(f"values of at least two chunks are needed, not an array of shape {first.shape}")
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} chunks cannot be paired")
    return first, second


# --- differences of what is measured


def kld_gap(file: Measurement, other: Measurement) -> Gap | None:
    """KLD of ``file`` less that of ``other``. None, not comparable, where conditions differ or KLDs per chunk are missing."""
    if file.conditions != other.conditions or min(len(file.per_chunk_kld), len(other.per_chunk_kld)) < 2:
        return None
    return chunks_gap(file.per_chunk_kld, other.per_chunk_kld)


def chunks_gap(file: Sequence[float], other: Sequence[float]) -> Gap:
    """mean(file) - mean(other) of values of the same chunks, and about how many chunks would make it significant.

    ValueError where they are not equally many, or fewer than two.
    """
    test = paired_difference(file, other)
    needed = None if test.significant else chunks_needed(file, other)
    return Gap(
        test.difference,
        test.low,
        test.high,
        test.significant,
        None if needed is None else max(needed, len(file) + 1, LEAST_SAMPLES),
    )


def tasks_gap(file: Sequence[bool], other: Sequence[bool]) -> Gap:
    """Percentage points by which ``file`` solved more of the same tasks, see ``outcomes_gap``."""
    gap = outcomes_gap(file, other)
    return replace(gap, difference=100 * gap.difference, low=100 * gap.low, high=100 * gap.high)


def outcomes_gap(file: Sequence[bool], other: Sequence[bool]) -> Gap:
    """Share of outcomes that are true in ``file``, less that in ``other``, of the same tasks.

    Significant by McNemar's exact test (Psychometrika 12, 1947): tasks that only one of two equal files solved are tosses of
    a coin. The interval is Tango's (Statistics in Medicine 17, 1998), of the differences that the test's approximation for many
    tasks does not reject; it is drawn out to 0 where the exact test, which is the more careful one, does not reject 0.
    """
    points = _points(file, other)
    won, lost, count = int((points > 0).sum()), int((points < 0).sum()), len(points)
    difference = (won - lost) / count
    if count < 2:
        return Gap(difference, -math.inf, math.inf, False)
    significant = bool(won + lost) and float(stats.binomtest(won, won + lost).pvalue) < 1 - LEVEL
    low, high = _tango(won, lost, count)
    needed = None if significant or difference == 0 else max(count + 1, _needed(points))
    if not significant:
        low, high = min(low, 0.0), max(high, 0.0)
    return Gap(difference, low, high, significant, needed)


def _tango(won: int, lost: int, count: int) -> tuple[float, float]:
    """The differences of paired shares at which the score statistic is 1.96 standard errors."""
    difference = (won - lost) / count

    def beyond(delta: float, sign: int) -> float:
        linear = (2 * count - won + lost) * delta - won - lost
        root = math.sqrt(max(0.0, linear**2 + 8 * count * lost * delta * (1 - delta)))
        share = (root - linear) / (4 * count)  # of tasks that only the other solves, the likeliest at this difference
        variance = count * (2 * share + delta * (1 - delta))
        return sign * (won - lost - count * delta) - _NORMAL * math.sqrt(max(0.0, variance))

    # where no task or every task differs, the statistic has no error at the difference itself
    low = -1.0 if beyond(-1.0, 1) <= 0 else float(optimize.brentq(beyond, -1.0, difference - _NEXT, (1,)))
    high = 1.0 if beyond(1.0, -1) <= 0 else float(optimize.brentq(beyond, difference + _NEXT, 1.0, (-1,)))
    return low, high


def average_gap(pairs: Sequence[tuple[Sequence[bool], Sequence[bool]]]) -> Gap:
    """Difference of the averages over kinds of tasks, from the paired standard errors of each; the kinds are independent.

    A single kind is its own average: McNemar's test decides.
    """
    if len(pairs) == 1:
        return tasks_gap(*pairs[0])
    points = [_points(file, other) for file, other in pairs]
    error = math.hypot(*(stats.sem(gaps) if len(gaps) > 1 else math.inf for gaps in points)) / len(points)
    return _gap(float(np.mean([gaps.mean() for gaps in points])), _NORMAL * error)


def speed_gap(file: Sequence[float], other: Sequence[float]) -> Gap:
    """Difference of mean tokens per second: Welch's interval over repetitions, widened by what differs from run to run."""
    means = float(np.mean(file)), float(np.mean(other))
    reach = _NORMAL * math.hypot(*(RUN_TO_RUN * mean for mean in means))
    if min(len(file), len(other)) > 1 and np.ptp(file) + np.ptp(other) > 0:
        low, high = stats.ttest_ind(file, other, equal_var=False).confidence_interval(LEVEL)
        reach = math.hypot(reach, float(high - low) / 2)
    return _gap(means[0] - means[1], reach)


def _points(file: Sequence[bool], other: Sequence[bool]) -> np.ndarray:
    return 100 * (np.array(file, np.float64) - np.array(other, np.float64))


def _gap(difference: float, reach: float) -> Gap:
    return Gap(difference, difference - reach, difference + reach, abs(difference) > reach)
