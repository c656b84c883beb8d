"""What a score at a suite lets one say, as a sentence."""

from __future__ import annotations

from quantplan.evaluate.suites.suite_gap import SuiteGap
from quantplan.evaluate.suites.suite_score import SuiteScore

FEW = 30  # items below which a difference is called directional whatever its interval says
DIRECTIONAL = "directional, not definitive"


def alone(score: SuiteScore) -> str:
    """Of one model: its score, its interval, how much of it chance may be."""
    low, high = score.interval
    said = f"{score.overall.value:.1f} of 100 (95 %: {low:.1f} to {high:.1f}) from {score.items} items"
    return f"{said}: {DIRECTIONAL}" if score.items < FEW else said


def against(gap: SuiteGap, other: str) -> str:
    """Of a model beside another one: the difference, and whether it is one."""
    overall = gap.overall
    if overall.difference == 0:
        return f"no difference from {other} on {gap.items} items ({overall.low:+.1f} to {overall.high:+.1f}): {DIRECTIONAL}"
    word = "more" if overall.difference > 0 else "less"
    said = (
        f"{abs(overall.difference):.1f} points {word} than {other} (95 %: {overall.low:+.1f} to {overall.high:+.1f}, "
    )
    said += f"the same {gap.items} items)"
    if overall.decided and gap.items >= FEW:
        return f"{said}: chance alone would rarely give as much"
    more = f"; about {overall.needed} items would decide a difference of this size" if overall.needed else ""
    return f"{said}: {DIRECTIONAL}{more}"
