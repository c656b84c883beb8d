"""A comparison: files measured under the same conditions against the first of them, and what may be concluded."""

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


def of_domain(name: str) -> str:
    """The figure that is the KLD on one text of several."""
    return f"{KLD}:{name}"


@dataclass(frozen=True, slots=True)
class Gap:
    """This file's figure minus the first file's, with a 95 % interval. ``decided``: significant (p < 0.05).

    ``needed``: about how many chunks (or tasks) would make a difference of this size significant; None where it is, where
    there is no difference at all, and for figures that more text does not sharpen.
    """

    difference: float
    low: float
    high: float
    decided: bool
    needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row(ComparedFile):
    """``kld_ratio``: KLD of the FIRST file (the plan) over KLD of this one, below 1 where the first is better, 1 in its
    own row. Infinite where this file has a KLD of 0.

    ``low`` and ``high``: its 95 % interval, paired by chunk; it leaves out 1 exactly where the KLDs differ significantly.

    ``gaps`` by figure: KLD in nats per token (``of_domain`` on one text of several), PPL as the difference of mean negative
    log likelihoods (the logarithm of the ratio), tasks and average in percentage points, tests of speed in tokens/s; empty in
    the first row.
    """

    kld_ratio: float
    low: float
    high: float
    size_difference: float  # bytes over the first file's bytes - 1
    shrinkage: float | None = None  # 1 - bytes over the reference file's bytes
    gaps: dict[str, Gap] = field(default_factory=dict)

    @property
    def larger(self) -> bool:
        """Larger than the first: whatever it wins, it wins with more bytes."""
        return self.size_difference > SAME_SIZE

    @property
    def significant(self) -> bool:
        """Whether its KLD differs significantly from the first file's; False in the first file's own row."""
        return KLD in self.gaps and self.gaps[KLD].decided

    @property
    def chunks_needed(self) -> int | None:
        """About how many chunks would make the KLD difference significant; None where it is, or where there is none."""
        return self.gaps[KLD].needed if KLD in self.gaps else None

    def alike(self, figure: str) -> bool:
        """Whether this figure does not differ significantly from the first row's."""
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
