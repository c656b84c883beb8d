"""What a run keeps of a file that it made: how it measured, against what, and how refinement went."""

from collections.abc import Mapping
from dataclasses import dataclass

from quantplan.measurement import Estimate


@dataclass(frozen=True)
class EvaluatedFile:
    """The best plan, or a stock quant, on the evaluation text. ``kld_ratio``: the plan's KLD over this one's."""

    name: str
    file_bytes: int
    kld: float
    kld_ratio: float | None
    kld_ratio_low: float | None
    kld_ratio_high: float | None


@dataclass(frozen=True)
class ValidatedFile:
    """Predicted and measured KLD of a plan or stock quant on the validation text."""

    name: str
    file_bytes: int
    predicted_kld: float | None
    kld: float


@dataclass(frozen=True)
class RefineRound:
    """A round's plan, see ``run.refine.RefineStep``; ``factors``: natural logarithms of the correction, by type."""

    name: str
    relative: float
    better: bool
    moved: float
    factors: Mapping[str, float]
    factor_errors: Mapping[str, float]


@dataclass(frozen=True)
class LeaderTest:
    """KLD of the leader minus that of the plan, on the testing chunks; ``p`` two-sided."""

    difference: float
    stderr: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Gain:
    """KLD of the refined plan over that of the plan before, with its 95 % interval."""

    ratio: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RefinementRecord:
    """``counts``: the ``leader`` replaced the plan; ``withdrawn``: it did, and the evaluation text reversed it.

    ``kld_before`` and ``gain``: on the evaluation text, None where the leader did not replace the plan.
    """

    measured: tuple[ValidatedFile, ...]
    rounds: tuple[RefineRound, ...]
    leader: str
    test: LeaderTest | None
    counts: bool
    withdrawn: bool
    kld_before: float | None
    gain: Gain | None


@dataclass(frozen=True)
class RunRecord:
    """``kept``: the name of what the file is; ``evaluated``: the best plan first, then the stock quants."""

    budget: str | None
    budget_bytes: int | None
    file: str
    file_bytes: int
    bpw: float
    kld: Estimate
    ppl: Estimate
    is_stock_quant: bool
    kept: str
    reason: str
    evaluated: tuple[EvaluatedFile, ...]
    refinement: RefinementRecord
