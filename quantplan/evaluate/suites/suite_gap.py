"""The difference of two models at one suite, item by item, whether it is significant, and what scores say in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from quantplan.comparison import Gap
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

_NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))  # of many items


@dataclass(frozen=True)
class SuiteGap:
    """First minus second: ``overall`` in points of 100, ``parts`` by name in credit from -1 to 1.

    ``items``: compared pairs. ``left_out``: parts that apply to only one of the models; they do not count.
    Intervals have no end where they would reach over all differences that there can be: too few items.
    ``overall.needed``: about how many items, distributed alike, would make a difference of this size significant.
    """

    overall: Gap
    parts: dict[str, Gap]
    items: int
    left_out: tuple[str, ...] = ()


def suite_gap(first: SuiteScore, second: SuiteScore) -> SuiteGap:
    """Paired over the items of the parts that apply to both; ConditionsDiffer where they were not asked alike.

    A hard item is hard for both, so only differences within pairs count; parts are independent of one another.
    Perplexities are compared with the error of each. ValueError where no part applies to both.
    """
    named = [(score.file or "model", replace(score.conditions, suite="")) for score in (first, second)]
    check_conditions(named, "score")
    of_second = {part.name: part for part in second.applicable}
    pairs = [(part, of_second[part.name]) for part in first.applicable if part.name in of_second]
    if not pairs:
        raise ValueError("no part of the suite applies to both models")
    differences = {part.name: _difference(part, other) for part, other in pairs}
    spreads = {part.name: (part.weight * (differences[part.name].stderr or 0.0), len(part.items)) for part, _ in pairs}
    overall = weighted([(part.weight, differences[part.name]) for part, _ in pairs])
    fixed = weighted([(part.weight, _fixed_error(part, differences[part.name])) for part, _ in pairs])
    items = sum(len(part.items) for part, _ in pairs)
    applicable = {part.name for score in (first, second) for part in score.applicable}
    return SuiteGap(
        overall=_gap(overall, list(spreads.values()), 100.0, _needed(overall, fixed, items)),
        parts={name: _gap(difference, [spreads[name]], 1.0) for name, difference in differences.items()},
        items=items,
        left_out=tuple(part.name for part in first.parts if part.name in applicable - differences.keys()),
    )


def _difference(first: PartScore, second: PartScore) -> Estimate:
    if first.items:
        return mean_difference(list(zip(first.credits, second.credits, strict=True)))
    errors = (first.credit.stderr or 0.0, second.credit.stderr or 0.0)
    return Estimate(first.credit.value - second.credit.value, math.hypot(*errors))


def _fixed_error(part: PartScore, difference: Estimate) -> Estimate:
    """The difference with the part of its error that more items would not lower."""
    return replace(difference, stderr=0.0) if part.items else difference


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


FEW = 30  # items: with fewer a difference is called directional whatever its interval says
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
