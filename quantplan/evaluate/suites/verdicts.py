"""Scores at a suite as sentences: what they show, and whether it is significant."""

from quantplan.evaluate.suites.suite_gap import SuiteGap
from quantplan.evaluate.suites.suite_score import SuiteScore

FEW = 30  # items: with fewer a difference is called directional whatever its interval says
DIRECTIONAL = "directional, not definitive"


def alone(score: SuiteScore) -> str:
    """Of one model: its score and the interval."""
    low, high = score.interval
    sentence = f"{score.overall.value:.1f} of 100 (95 %: {low:.1f} to {high:.1f}) from {score.items} items"
    return f"{sentence}: {DIRECTIONAL}" if score.items < FEW else sentence


def against(gap: SuiteGap, other: str) -> str:
    """Of a model against another one: the difference, and whether it is significant."""
    overall = gap.overall
    interval = f"{overall.low:+.1f} to {overall.high:+.1f}"
    if overall.difference == 0:
        return f"no difference from {other} on {gap.items} items ({interval}): {DIRECTIONAL}"
    word = "more" if overall.difference > 0 else "less"
    points = f"{abs(overall.difference):.1f} points {word} than {other} (95 %: {interval}, the same {gap.items} items)"
    if overall.decided and gap.items >= FEW:
        return f"{points}: significant (p < 0.05)"
    more = f"; about {overall.needed} items would decide a difference of this size" if overall.needed else ""
    return f"{points}: {DIRECTIONAL}{more}"
