"""The difference of two models at one suite, item by item, whether it is significant, and what scores say in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from scipy import stats

from quantplan.comparison import Gap
from quantplan.evaluate.significance import outcomes_gap
from quantplan.evaluate.suites.suite import ALL_OR_NOTHING
from quantplan.evaluate.suites.suite_score import (
    LEVEL,
    WHOLE,
    PartScore,
    Spread,
    SuiteScore,
    mean_difference,
    quantile,
    weighted,
)
from quantplan.measurement import Estimate, check_conditions

FEW = 30  # items: with fewer a difference is called directional whatever its interval says
_NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))  # of many items


@dataclass(frozen=True)
class SuiteGap:
    """First minus second: ``overall`` in points of 100, ``parts`` by name in credit from -1 to 1.

    ``items``: compared pairs, ``part_items`` of each part. ``left_out``: parts that apply to one model only; they do not count.
    Intervals have no end where they would reach over all differences that there can be: too few items.
    ``overall.needed``: about how many items, distributed alike, would make a difference of this size significant.
    """

    overall: Gap
    parts: dict[str, Gap]
    items: int
    left_out: tuple[str, ...] = ()
    part_items: dict[str, int] = field(default_factory=dict)

    def directional(self, part: str) -> bool:
        """Whether the difference of a part is no more than a direction: not significant, or of fewer than FEW items."""
        few = part in self.part_items and 0 < self.part_items[part] < FEW
        return few or not self.parts[part].decided


def suite_gap(first: SuiteScore, second: SuiteScore) -> SuiteGap:
    """Paired over the items of the parts that apply to both; ConditionsDiffer where they were not asked alike.

    A hard item is hard for both, so only differences within pairs count; parts are independent of one another.
    Perplexities are compared with the error of each. ValueError where no part applies to both.
    """
    named = [(score.file or "model", replace(score.conditions, suite="")) for score in (first, second)]
    check_conditions(named, "score")
    of_second = {part.name: part for part in second.applicable}
    pairs = [_PartPair(part, of_second[part.name]) for part in first.applicable if part.name in of_second]
    pairs = [pair for pair in pairs if pair.comparable]
    if not pairs:
        raise ValueError("no part of the suite applies to both models")
    spreads = [pair.spread for pair in pairs]
    overall = weighted([(pair.first.weight, pair.difference) for pair in pairs])
    fixed = weighted([(pair.first.weight, pair.fixed_error) for pair in pairs])
    items = sum(pair.items for pair in pairs)
    applicable = {part.name for score in (first, second) for part in score.applicable}
    compared = {pair.first.name for pair in pairs}
    return SuiteGap(
        overall=_gap(overall, spreads, 100.0, _needed(overall, fixed, items)),
        parts={pair.first.name: pair.gap for pair in pairs},
        items=items,
        left_out=tuple(part.name for part in first.parts if part.name in applicable - compared),
        part_items={pair.first.name: pair.items for pair in pairs},
    )


@dataclass(frozen=True)
class _PartPair:
    """One part of two models, and the credits of the items that both were asked."""

    first: PartScore
    second: PartScore

    @cached_property
    def credits(self) -> list[tuple[float, float]]:
        both = zip(self.first.items, self.second.items, strict=True)
        return [(item.credit, other.credit) for item, other in both if item.counts and other.counts]

    @property
    def items(self) -> int:
        return len(self.credits)

    @property
    def comparable(self) -> bool:
        return bool(self.credits) or not self.first.items

    @cached_property
    def difference(self) -> Estimate:
        if self.credits:
            return mean_difference(self.credits)
        one, other = self.first.credit, self.second.credit
        return Estimate(one.value - other.value, math.hypot(one.stderr or 0.0, other.stderr or 0.0))

    @property
    def fixed_error(self) -> Estimate:
        """The difference with the part of its error that more items would not lower."""
        return replace(self.difference, stderr=0.0) if self.credits else self.difference

    @property
    def spread(self) -> Spread:
        return self.first.weight * (self.difference.stderr or 0.0), self.items

    @property
    def gap(self) -> Gap:
        """By McNemar's test where each item is right or wrong, else by Student's."""
        if self.first.kind not in ALL_OR_NOTHING:
            return _gap(self.difference, [self.spread], 1.0)
        first, second = zip(*self.credits, strict=True)
        return outcomes_gap([credit == 1 for credit in first], [credit == 1 for credit in second])


def _gap(difference: Estimate, spreads: Sequence[Spread], most: float, needed: int | None = None) -> Gap:
    """``most``: the largest difference that there can be."""
    value, half_width = difference.value, quantile(spreads) * (difference.stderr or 0.0)
    if half_width >= most:
        return Gap(value, -math.inf, math.inf, False, needed)
    significant = abs(value) > half_width
    low, high = max(-most, value - half_width), min(most, value + half_width)
    return Gap(value, low, high, significant, None if significant else needed)


def _needed(overall: Estimate, fixed: Estimate, items: int) -> int | None:
    """Items at which the interval would just not contain 0; None where no number of them would do."""
    allowed = (overall.value / _NORMAL) ** 2 - (fixed.stderr or 0.0) ** 2
    falling = (overall.stderr or 0.0) ** 2 - (fixed.stderr or 0.0) ** 2
    return max(items + 1, math.ceil(items * falling / allowed)) if allowed > 0 and items else None


DIRECTIONAL = "directional, not definitive"
TOO_FEW = "too few for an interval"


def alone(score: SuiteScore) -> str:
    """Of one model: its score and the interval."""
    low, high = score.interval
    if (low, high) == WHOLE:
        return f"{score.overall.value:.1f} of 100 from {score.items} items: {TOO_FEW}"
    sentence = f"{score.overall.value:.1f} of 100 (95 %: {low:.1f} to {high:.1f}) from {score.items} items"
    return f"{sentence}: {DIRECTIONAL}" if score.items < FEW else sentence


def against(gap: SuiteGap, other: str) -> str:
    """Of a model against another one: the difference, and whether it is significant."""
    overall = gap.overall
    if math.isinf(overall.high):
        return f"{overall.difference:+.1f} points against {other} on {gap.items} items: {TOO_FEW}"
    interval = f"{overall.low:+.1f} to {overall.high:+.1f}"
    if overall.difference == 0:
        return f"no difference from {other} on {gap.items} items ({interval}): {DIRECTIONAL}"
    word = "more" if overall.difference > 0 else "less"
    points = f"{abs(overall.difference):.1f} points {word} than {other} (95 %: {interval}, the same {gap.items} items)"
    if overall.decided and gap.items >= FEW:
        return f"{points}: significant (p < 0.05)"
    more = f"; about {overall.needed} items would decide a difference of this size" if overall.needed else ""
    return f"{points}: {DIRECTIONAL}{more}"
