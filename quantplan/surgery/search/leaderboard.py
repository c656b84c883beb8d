"""The leaderboard of a search: the figures of each candidate, best first, and those of the best on evaluation text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from quantplan.comparison import Gap
from quantplan.measurement import Conditions, Estimate
from quantplan.surgery.layer_map import LayerMap

PPL, KLD, SCORE = "ppl", "kld", "score"  # figures that a search can rank by


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """One candidate's figures. PPL and KLD (against the original, nats per token) are None where its logits are NaN or infinite.

    ``gap``: mean negative log likelihood minus the original's, paired by chunk: ln(PPL / PPL of the original), below 0
    where the candidate is better; None for the original. ``score``: out of 100, where a suite was asked.
    """

    edits: str
    layer_map: LayerMap
    family: str
    phase: int
    ppl: Estimate | None
    kld: Estimate | None
    gap: Gap | None = None
    score: Estimate | None = None
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def better(self) -> bool:
        """Of a significantly lower perplexity than the original on this text, were it the only candidate."""
        return self.gap is not None and self.gap.decided and self.gap.difference < 0


@dataclass(frozen=True, kw_only=True)
class BestCandidateTest:
    """The best candidates and the original on evaluation text; ``standings`` in the order of the search."""

    conditions: Conditions
    original: RankedCandidate
    standings: tuple[RankedCandidate, ...]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """``standings``: best first by ``by``, without the original. ``refused``: candidates of each family that the architecture
    forbids; ``left_out``: known candidates that were not evaluated, because of --max-candidates or --max-time.
    """

    model: str
    blocks: int
    by: str
    conditions: Conditions
    families: tuple[str, ...]
    original: RankedCandidate | None
    standings: tuple[RankedCandidate, ...]
    refused: dict[str, int] = field(default_factory=dict)
    left_out: int = 0
    judgement: BestCandidateTest | None = None
    suite: str | None = None

    @property
    def best(self) -> RankedCandidate | None:
        """The first, unless its logits are NaN or infinite."""
        first = self.standings[0] if self.standings else None
        return first if first and first.ppl else None


def ordered(candidates: Iterable[RankedCandidate], by: str) -> tuple[RankedCandidate, ...]:
    """Best first; equal ones with fewer layers first, then by digest: the same order whichever was evaluated first."""

    def rank(candidate: RankedCandidate) -> tuple[bool, float, float, int, str]:
        return (*_rank(candidate, by), len(candidate.layer_map), candidate.layer_map.digest)

    return tuple(sorted(candidates, key=rank))


def _rank(candidate: RankedCandidate, by: str) -> tuple[bool, float, float]:
    """Scores at short suites are often equal: then the perplexity decides."""
    figure = {PPL: candidate.ppl, KLD: candidate.kld, SCORE: candidate.score}[by]
    if figure is None:
        return True, 0.0, 0.0
    if by == SCORE:
        return False, -figure.value, candidate.ppl.value if candidate.ppl else math.inf
    return False, figure.value, 0.0
