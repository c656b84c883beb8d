"""A model's score at a suite: a credit from 0 to 1 and the answer of each item, and the figures that follow from them.

A part's figure is the mean of its credits. Its standard error is that of a mean, with the variance of the credits and one more,
half right and half wrong: what Jeffreys' prior Beta(1/2, 1/2) adds to a proportion (Brown, Cai and DasGupta, Statistical
Science 16, 2001). So 17 of 17 has an error, too. The overall score is 100 times the weighted mean of the parts that apply.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from scipy import stats

from quantplan.evaluate.suites.loops import loops
from quantplan.evaluate.suites.suite import NOT_MEASURED, PERPLEXITY
from quantplan.llamacpp.generation import LENGTH, TOO_LONG
from quantplan.measurement import Estimate

# raised when questions are worded, answered or judged in another way; 2: items longer than the context do not count; 1: first
GRADING_VERSION = 2
LEVEL = 0.95
WHOLE = (0.0, 100.0)  # an interval that says nothing: too few items

Spread = tuple[float, int]  # a part's weighted standard error and the number of its items, 0 for perplexity


@dataclass(frozen=True)
class SuiteConditions:
    """All that credits depend on except the model. ``suite``: a name for people; the digest identifies what was asked."""

    suite: str
    suite_digest: str
    backend: str
    llama_cpp: str
    grading: int = GRADING_VERSION


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """``text``: the whole answer, thinking and special tokens written out; ``ending``: see llamacpp.generation.

    ``remark``: what is missing where the credit is not 1.
    """

    name: str
    credit: float
    text: str
    tokens: int
    ending: str
    remark: str = ""

    @property
    def counts(self) -> bool:
        """Whether it was asked: not where it is longer, with its answer, than the model's context."""
        return self.ending != TOO_LONG

    @property
    def cut_off(self) -> bool:
        """Whether the answer took all tokens that it was given."""
        return self.ending == LENGTH

    @cached_property
    def loops(self) -> bool:
        """Whether the answer was cut off going round in circles."""
        return self.cut_off and loops(self.text)


@dataclass(frozen=True, kw_only=True)
class PartScore:
    """``given``: the credit of a part without items (perplexity). ``reason``: why the part does not apply to the model."""

    name: str
    kind: str
    weight: float
    items: tuple[ItemScore, ...] = ()
    given: Estimate | None = None
    reason: str = ""

    @property
    def applies(self) -> bool:
        return not self.reason

    @property
    def counted(self) -> tuple[ItemScore, ...]:
        """Items that were asked."""
        return tuple(item for item in self.items if item.counts)

    @property
    def credits(self) -> tuple[float, ...]:
        return tuple(item.credit for item in self.counted)

    @cached_property
    def credit(self) -> Estimate:
        """From 0 to 1; ValueError where the part does not apply."""
        if self.reason:
            raise ValueError(f"{self.name} does not apply: {self.reason}")
        return self.given or mean_credit(self.credits)


@dataclass(frozen=True, kw_only=True)
class SuiteScore:
    """``template``: questions went through the model's own chat template. ``thinks``: always, switch or never."""

    file: str
    model_digest: str
    parts: tuple[PartScore, ...]
    conditions: SuiteConditions
    template: bool
    thinks: str
    notes: tuple[str, ...] = ()

    @property
    def applicable(self) -> tuple[PartScore, ...]:
        return tuple(part for part in self.parts if part.applies)

    @property
    def items(self) -> int:
        """Items that were asked."""
        return sum(len(part.counted) for part in self.applicable)

    @cached_property
    def overall(self) -> Estimate:
        """Out of 100, the weights of parts that do not apply spread over the others."""
        return weighted([(part.weight, part.credit) for part in self.applicable])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the overall score."""
        reach = quantile(self._spread) * (self.overall.stderr or 0.0)
        return max(0.0, self.overall.value - reach), min(100.0, self.overall.value + reach)

    @property
    def _spread(self) -> list[Spread]:
        return [(part.weight * (part.credit.stderr or 0.0), len(part.counted)) for part in self.applicable]

    def share(self, part: PartScore) -> float:
        """The part's weight in the overall score, percent."""
        return 100 * part.weight / sum(applicable.weight for applicable in self.applicable) if part.applies else 0.0


def mean_credit(credits: Sequence[float]) -> Estimate:
    """The mean of credits from 0 to 1, and its standard error, which is never 0; ValueError for no credits."""
    return Estimate(math.fsum(credits) / len(credits), _error(credits, (0.0, 1.0)))


def mean_difference(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Mean of (first - second) over the same items; for the error one more pair is added, half won and half lost outright."""
    gaps = [first - second for first, second in pairs]
    return Estimate(math.fsum(gaps) / len(gaps), _error(gaps, (-1.0, 1.0)))


def _error(values: Sequence[float], ends: tuple[float, float]) -> float:
    """sqrt(variance / n), the variance over n + 1 values: both ends count as half a value each."""
    if not values:
        raise ValueError("a part without items has no mean")
    count = len(values) + 1
    mean = (math.fsum(values) + sum(ends) / 2) / count
    square = (math.fsum(value**2 for value in values) + sum(end**2 for end in ends) / 2) / count
    return math.sqrt(max(0.0, square - mean**2) / len(values))


def weighted(figures: Sequence[tuple[float, Estimate]]) -> Estimate:
    """100 times the weighted mean of independent figures."""
    total = math.fsum(weight for weight, _ in figures)
    value = math.fsum(weight * figure.value for weight, figure in figures) / total
    error = math.hypot(*(weight * (figure.stderr or 0.0) for weight, figure in figures)) / total
    return Estimate(100 * value, 100 * error)


def quantile(spreads: Sequence[Spread]) -> float:
    """The half width of the 95 % interval of a weighted mean, in standard errors: Student's t.

    Its degrees of freedom as Welch and Satterthwaite have them (Biometrics Bulletin 2, 1946), at least 1; the error
    of a figure that does not come from items is taken as exact.
    """
    total = math.fsum(error**2 for error, _ in spreads)
    of_items = math.fsum(error**4 / max(1, count - 1) for error, count in spreads if count)
    freedom = max(1.0, total**2 / of_items) if of_items else math.inf
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def with_perplexity(score: SuiteScore, ratio: Estimate | float | None) -> SuiteScore:
    """The score with its perplexity part filled in: credit = min(1, 1 / ratio).

    ``ratio``: PPL of this model over PPL of the original, above 0; None where it was not measured. A ratio that is NaN
    counts as infinite. ValueError for a ratio of 0 or less.
    """
    return replace(
        score, parts=tuple(_filled(part, ratio) if part.kind == PERPLEXITY else part for part in score.parts)
    )


def _filled(part: PartScore, ratio: Estimate | float | None) -> PartScore:
    if ratio is None:
        return replace(part, given=None, reason=NOT_MEASURED)
    value, error = (ratio.value, ratio.stderr or 0.0) if isinstance(ratio, Estimate) else (float(ratio), 0.0)
    if value <= 0:
        raise ValueError(f"a ratio of perplexities is above 0, not {value}")
    if not math.isfinite(value):
        return replace(part, given=Estimate(0.0, 0.0), reason="")
    return replace(part, given=Estimate(min(1.0, 1 / value), error / value**2), reason="")
