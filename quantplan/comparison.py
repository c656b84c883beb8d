"""A comparison: a plan's file beside others, measured under the same conditions, and what may be concluded
from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantplan.measurement import Measurement

SAME_SIZE = 0.001  # a file up to this share larger than the plan's still counts as one of the same size


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file. ``kld_ratio``: KLD of the PLAN over KLD of this file, below 1 where the plan is better, 1
    in the plan's own row.

    ``low`` and ``high`` hold its 95 % interval, from a bootstrap over windows drawn alike for both files.
    Infinite where this file loses nothing at all.
    """

    name: str
    measurement: Measurement
    kld_ratio: float
    low: float
    high: float
    size_difference: float  # bytes over the plan's bytes - 1
    windows_needed: int | None = None  # about as many would tell the two apart; None where they are, or are just alike

    @property
    def larger(self) -> bool:
        """Larger than the plan: whatever it wins, it wins with more bytes."""
        return self.size_difference > SAME_SIZE

    @property
    def told_apart(self) -> bool:
        """Whether the difference is outside of what the choice of windows explains."""
        return self.high < 1 or self.low > 1


@dataclass(frozen=True)
class Comparison:
    """``rows``: the plan first, then the others as given; ``verdict``: one sentence about the best that is
    no larger.
    """

    rows: tuple[Row, ...]
    verdict: str
