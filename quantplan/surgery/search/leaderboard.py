"""A leaderboard of operated models: what a search measured of each, best first, and what a text that chose nothing says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from quantplan.comparison import Gap
from quantplan.measurement import Conditions, Estimate
from quantplan.surgery.layer_map import LayerMap

PPL, KLD, SCORE = "ppl", "kld", "score"  # what a search may go by


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """One candidate's figures. PPL and KLD (to the original, nats per token) are None where its logits are no numbers.

    ``gap``: mean negative log likelihood minus the original's, paired over windows: ln(PPL / PPL of the original), below 0
    where the candidate is better; None for the original. ``score``: out of 100, of the suite, where one was asked.
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
        """Surely of a lower perplexity than the original, on this text, were it the only candidate."""
        return self.gap is not None and self.gap.decided and self.gap.difference < 0


@dataclass(frozen=True, kw_only=True)
class BestCandidateTest:
    """The best and the original on a text that had no part in choosing; ``standings`` in the order of the search."""

    conditions: Conditions
    original: RankedCandidate
    standings: tuple[RankedCandidate, ...]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """``standings``: best first by ``by``, the original not among them. ``refused``: candidates of each family that the
    architecture forbids; ``left_out``: how many candidates known of were not measured, for the budget.
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
        """The first, where its logits are numbers."""
        first = self.standings[0] if self.standings else None
        return first if first and first.ppl else None


def ordered(standings: Iterable[RankedCandidate], by: str) -> tuple[RankedCandidate, ...]:
    """Best first; equals with fewer layers before those with more, then by name: the same order whoever came first."""
    return tuple(sorted(standings, key=lambda each: (*_rank(each, by), len(each.layer_map), each.layer_map.digest)))


def _rank(standing: RankedCandidate, by: str) -> tuple[bool, float, float]:
    """Scores of few items are often equal: the perplexity decides then."""
    figure = {PPL: standing.ppl, KLD: standing.kld, SCORE: standing.score}[by]
    if figure is None:
        return True, 0.0, 0.0
    if by == SCORE:
        return False, -figure.value, standing.ppl.value if standing.ppl else math.inf
    return False, figure.value, 0.0
