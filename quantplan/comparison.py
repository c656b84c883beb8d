"""A comparison: files measured under the same conditions beside the first of them, and what may be concluded."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantplan.measurement import Estimate, Measurement
from quantplan.task_score import TaskScore, average
from quantplan.throughput import Throughput

SAME_SIZE = 0.001  # a file up to this share larger than the first still counts as one of the same size
KLD, PPL, AVERAGE, SIZE = "kld", "ppl", "average", "size"  # names of figures; tasks and tests of speed go by their own


@dataclass(frozen=True, kw_only=True)
class ComparedFile:
    """One file and all that was measured of it. ``blocks`` and ``elements`` (weights) where the file is at hand."""

    name: str
    measurement: Measurement
    tasks: tuple[TaskScore, ...] = ()
    throughput: Throughput | None = None
    blocks: int | None = None
    elements: int | None = None

    @property
    def average(self) -> Estimate | None:
        """Of its scores at all kinds of tasks, percent."""
        return average(self.tasks) if self.tasks else None


@dataclass(frozen=True, slots=True)
class Gap:
    """This file's figure minus the first file's, with a 95 % interval. ``decided``: chance does not explain it.

    ``needed``: about as many windows (or tasks) would decide a difference of this size, where it is not decided; None
    where it is, where there is no difference at all, and for figures that more text does not sharpen.
    """

    difference: float
    low: float
    high: float
    decided: bool
    needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row(ComparedFile):
    """``kld_ratio``: KLD of the FIRST file (the plan) over KLD of this one, below 1 where the first is better, 1 in its
    own row.

    ``low`` and ``high`` hold its 95 % interval, from a bootstrap over windows drawn alike for both files.
    Infinite where this file loses nothing at all. ``gaps`` by figure: KLD in nats per token, PPL as the difference of mean
    negative log likelihoods (the logarithm of the ratio), tasks and average in percentage points, tests of speed in
    tokens/s; empty in the first row.
    """

    kld_ratio: float
    low: float
    high: float
    size_difference: float  # bytes over the first file's bytes - 1
    chunks_needed: int | None = None  # about as many would tell the two apart; None where they are, or are just alike
    shrinkage: float | None = None  # 1 - bytes over the reference file's bytes
    gaps: dict[str, Gap] = field(default_factory=dict)

    @property
    def larger(self) -> bool:
        """Larger than the first: whatever it wins, it wins with more bytes."""
        return self.size_difference > SAME_SIZE

    @property
    def significant(self) -> bool:
        """Whether the difference is outside of what the choice of windows explains."""
        return self.high < 1 or self.low > 1

    def alike(self, figure: str) -> bool:
        """Whether this figure's difference from the first row's is inside the noise."""
        return figure in self.gaps and not self.gaps[figure].decided


@dataclass(frozen=True)
class Comparison:
    """``rows``: the first is what all others are held against; ``verdict``: one sentence. ``reference``: what file the
    shrinkage is of, with its size. ``sorted_by``: the figure that ordered the rows; None leaves them as given.
    """

    rows: tuple[Row, ...]
    verdict: str
    reference: str | None = None
    sorted_by: str | None = None
