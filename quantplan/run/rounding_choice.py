"""Whether a run keeps compensated rounding: judged against llama-quantize's rounding of the same types, paired by chunk."""

from collections.abc import Mapping
from dataclasses import dataclass

from quantplan.evaluate.significance import ratio_interval
from quantplan.run.refine import Scored, significantly_better


@dataclass(frozen=True)
class RoundingChoice:
    """``compensated``: whether it is kept; ``words``: its KLD over that of llama-quantize's rounding, on each text."""

    compensated: bool
    words: str


def choose_rounding(pairs: Mapping[str, tuple[Scored, Scored]]) -> RoundingChoice:
    """By the KLDs of (compensated, stock rounding) on each text: compensated where it is significantly better on all."""
    ratios = []
    for text, (compensated, stock) in pairs.items():
        ratio = ratio_interval(compensated.klds, stock.klds)
        ratios.append(f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) on the {text}")
    better = all(significantly_better(*pair) for pair in pairs.values())
    words = f"KLD with compensated rounding over llama-quantize's: {', '.join(ratios)}"
    return RoundingChoice(better, words if better else f"{words}: llama-quantize's rounding is taken")
