"""A leaderboard as tables, and what may be concluded from it in words. Nothing is computed here."""

from __future__ import annotations

import math

from quantplan.report.grid import Grid
from quantplan.report.measurement_table import UNKNOWN, estimate
from quantplan.surgery.search.leaderboard import KLD, PPL, SCORE, BestCandidateTest, Leaderboard, RankedCandidate

SHOWN = 20
_TAIL = 0.025  # of a 95 % interval, on the side of the better ones
_BY = {PPL: "perplexity", KLD: "KLD to the original", SCORE: "score"}


def leaderboard_grid(board: Leaderboard, shown: int = SHOWN) -> Grid:
    """The original and the best candidates, with the interval of each one's difference from it."""
    conditions = board.conditions
    where = f"{conditions.chunks} windows of {conditions.n_ctx} tokens"
    title = f"{board.model}: {_candidates(len(board.standings))} by {_BY[board.by]}, {where}"
    rows = [_row(standing, board.by, place) for place, standing in enumerate(board.standings[:shown], 1)]
    original = [_row(board.original, board.by)] if board.original else []
    return Grid(title, _headings(board.by), (*original, *rows), tuple(_notes(board, shown)))


def _candidates(count: int) -> str:
    return f"{count} candidate{'' if count == 1 else 's'}"


def judgement_grid(board: Leaderboard) -> Grid:
    """The same of the text that judges."""
    judgement = board.judgement
    assert judgement is not None
    conditions = judgement.conditions
    rows = [_row(standing, PPL, place) for place, standing in enumerate(judgement.standings, 1)]
    title = f"On the held-out text, {conditions.chunks} windows of {conditions.n_ctx} tokens"
    return Grid(title, _headings(PPL), (_row(judgement.original, PPL), *rows), (verdict(board),))


def _headings(by: str) -> tuple[str, ...]:
    score = ("Score",) if by == SCORE else ()
    return ("Edits", "Place", "Layers", *score, "PPL", "PPL against original, 95 %", "KLD")


def _row(standing: RankedCandidate, by: str, place: int | None = None) -> tuple[str, ...]:
    score = (estimate(standing.score),) if by == SCORE else ()
    return (
        standing.edits or "(the original)",
        str(place or ""),
        str(len(standing.layer_map)),
        *score,
        estimate(standing.ppl),
        _gap(standing),
        estimate(standing.kld),
    )


def _gap(standing: RankedCandidate) -> str:
    """The difference of negative log likelihoods as percent of perplexity, which is how people think of it."""
    gap = standing.gap
    if gap is None:
        return "" if not standing.edits else UNKNOWN
    low, middle, high = (100 * math.expm1(value) for value in (gap.low, gap.difference, gap.high))
    return f"{middle:+.2f} % ({low:+.2f} to {high:+.2f})"


def _notes(board: Leaderboard, shown: int) -> list[str]:
    notes = []
    if len(board.standings) > shown:
        notes.append(f"{len(board.standings) - shown} more are in the record.")
    lucky = round(_TAIL * len(board.standings))
    if lucky:
        count = len(board.standings)
        notes.append(
            f"Each interval is its candidate's own: of {count} that gain nothing about {lucky} lie below 0 by chance."
        )
    if board.by == SCORE:
        notes.append("Scores of few items are directional, not definitive: beside them stand their standard errors.")
    if board.refused:
        words = ", ".join(f"{count} of {family}" for family, count in sorted(board.refused.items()))
        notes.append(f"Not possible with this model: {words}.")
    if board.left_out:
        notes.append(f"{board.left_out} candidates known of were not read: the budget was over.")
    return notes


def in_short(standing: RankedCandidate, by: str) -> str:
    """The edits and the figure that ranks them."""
    figure = {PPL: standing.ppl, KLD: standing.kld, SCORE: standing.score}[by]
    return f"{standing.edits}: {_BY[by]} {estimate(figure)}"


def verdict(board: Leaderboard) -> str:
    """What the held-out text says of the search's winner, in a sentence or two."""
    judgement = board.judgement
    if judgement is None or not judgement.standings:
        return "No candidate gives a usable model."
    found, judged = board.standings[0], judgement.standings[0]
    name, count = f"'{judged.edits}'", len(board.standings)
    if found.gap is None or judged.gap is None:
        return f"{name} cannot be judged: its logits are not all numbers."
    how = "is worse than" if _worse(judged) else "is better than" if judged.better else "cannot be told from"
    if board.by != PPL:
        return f"{name}, the first by {_BY[board.by]}, {how} the original in perplexity ({_gap(judged)}).{_other(judgement)}"
    if judged.better:
        return f"{name} holds what it promised: {_gap(judged)} PPL on a text that had no part in choosing it."
    if found.gap.difference < 0:
        gains = f"{_gap(found)} PPL where it was chosen, {_gap(judged)} here"
        because = f"the best of {_candidates(count)} owes part of its place to chance"
        return f"The gain of {name} vanishes: {gains}, where it {how} the original; {because}.{_other(judgement)}"
    return f"No candidate gains: the best, {name}, {how} the original ({_gap(judged)} PPL).{_other(judgement)}"


def _worse(standing: RankedCandidate) -> bool:
    return standing.gap is not None and standing.gap.decided and standing.gap.difference > 0


def _other(judgement: BestCandidateTest) -> str:
    """Whether another of those that were judged is better than the original."""
    others = [each.edits for each in judgement.standings[1:] if each.better]
    return f" Better than the original here: {', '.join(repr(each) for each in others)}." if others else ""
