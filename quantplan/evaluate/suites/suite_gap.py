"""How far apart two models are at one suite, item by item, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from quantplan.comparison import Gap
from quantplan.evaluate.suites.suite_score import (
    LEVEL,
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
    """Own minus other: ``overall`` in points of 100, ``parts`` by name in credit from -1 to 1.

    ``items``: pairs that were compared. ``left_out``: parts that apply to one of the models only; they do not count.
    ``overall.needed``: about as many items, shared out alike, would decide a difference of this size.
    """

    overall: Gap
    parts: dict[str, Gap]
    items: int
    left_out: tuple[str, ...] = ()


def suite_gap(own: SuiteScore, other: SuiteScore) -> SuiteGap:
    """Paired over the items of the parts that apply to both; ConditionsDiffer where they were not asked alike.

    An item that is hard is hard for both, so only differences within pairs count; parts are independent of one another.
    Perplexities are compared as they are, each with its own error. ValueError where no part applies to both.
    """
    named = [(each.file or "model", replace(each.conditions, suite="")) for each in (own, other)]
    check_conditions(named, "surgery score")
    theirs = {part.name: part for part in other.applicable}
    pairs = [(part, theirs[part.name]) for part in own.applicable if part.name in theirs]
    if not pairs:
        raise ValueError("no part of the suite applies to both models")
    shared = {part.name for part, _ in pairs}
    found = {part.name: _difference(part, against) for part, against in pairs}
    overall = weighted([(part.weight, found[part.name]) for part, _ in pairs])
    fixed = weighted([(part.weight, _without_items(part, found[part.name])) for part, _ in pairs])
    items = sum(len(part.items) for part, _ in pairs)
    spreads = {part.name: (part.weight * (found[part.name].stderr or 0.0), len(part.items)) for part, _ in pairs}
    return SuiteGap(
        overall=_gap(overall, list(spreads.values()), _needed(overall, fixed, items)),
        parts={name: _gap(each, [spreads[name]]) for name, each in found.items()},
        items=items,
        left_out=tuple(part.name for part in own.parts if part.name not in shared and _applies(part, own, other)),
    )


def _applies(part: PartScore, *scores: SuiteScore) -> bool:
    return any(part.name == each.name for score in scores for each in score.applicable)


def _difference(own: PartScore, other: PartScore) -> Estimate:
    if own.items:
        return mean_difference(list(zip(own.credits, other.credits, strict=True)))
    errors = (own.credit.stderr or 0.0, other.credit.stderr or 0.0)
    return Estimate(own.credit.value - other.credit.value, math.hypot(*errors))


def _without_items(part: PartScore, found: Estimate) -> Estimate:
    """The part's share of the error that more items would not lower."""
    return replace(found, stderr=0.0) if part.items else found


def _gap(found: Estimate, spreads: Sequence[Spread], needed: int | None = None) -> Gap:
    reach = quantile(spreads) * (found.stderr or 0.0)
    decided = abs(found.value) > reach
    return Gap(found.value, found.value - reach, found.value + reach, decided, None if decided else needed)


def _needed(overall: Estimate, fixed: Estimate, items: int) -> int | None:
    """Items at which the interval would just not hold 0; None where no number of them would do."""
    allowed = (overall.value / _NORMAL) ** 2 - (fixed.stderr or 0.0) ** 2
    falling = (overall.stderr or 0.0) ** 2 - (fixed.stderr or 0.0) ** 2
    return max(items + 1, math.ceil(items * falling / allowed)) if allowed > 0 and items else None
