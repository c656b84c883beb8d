"""A leaderboard as tables, and what may be concluded from it in words."""

import math
from collections.abc import Sequence

from quantplan.report.cells import UNKNOWN, estimate, interval
from quantplan.report.measurement_table import chunks_of
from quantplan.report.table import Columns, Table, table_of
from quantplan.surgery.search.leaderboard import KLD, PPL, SCORE, BestCandidateTest, Leaderboard, RankedCandidate

SHOWN = 20
_TAIL = 0.025  # of a 95 % interval, on the side of the better ones
_BY = {PPL: "perplexity", KLD: "KLD to the original", SCORE: "score"}


def leaderboard_table(board: Leaderboard, shown: int = SHOWN) -> Table:
    """The original and the best candidates, with the interval of each one's difference from it."""
    title = f"{board.model}: {_candidates(len(board.standings))} by {_BY[board.by]}, {chunks_of(board.conditions)}"
    original = [board.original] if board.original else []
    return _table(title, board.by, original, board.standings[:shown], _notes(board, shown))


def evaluation_table(board: Leaderboard) -> Table:
    """The same on the evaluation text."""
    test = board.judgement
    assert test is not None
    title = f"On the evaluation text, {chunks_of(test.conditions)}"
    return _table(title, PPL, [test.original], test.standings, [verdict(board)])


def _candidates(count: int) -> str:
    return f"{count} candidate{'' if count == 1 else 's'}"


def _table(
    title: str,
    by: str,
    original: Sequence[RankedCandidate],
    standings: Sequence[RankedCandidate],
    notes: Sequence[str],
) -> Table:
    places = {id(standing): str(place) for place, standing in enumerate(standings, 1)}
    columns: Columns[RankedCandidate] = [
        ("Edits", lambda standing: standing.edits or "(the original)"),
        ("Place", lambda standing: places.get(id(standing), "")),
        ("Layers", lambda standing: str(len(standing.layer_map))),
        *([("Score", lambda standing: estimate(standing.score))] if by == SCORE else []),
        ("PPL", lambda standing: estimate(standing.ppl)),
        ("PPL against original, 95 %", _gap),
        ("KLD", lambda standing: estimate(standing.kld)),
    ]
    return table_of(title, columns, [*original, *standings], notes)


def _gap(standing: RankedCandidate) -> str:
    """The difference of negative log likelihoods as percent of perplexity, which is how people think of it."""
    gap = standing.gap
    if gap is None:
        return "" if not standing.edits else UNKNOWN
    low, middle, high = (100 * math.expm1(value) for value in (gap.low, gap.difference, gap.high))
    return f"{middle:+.2f} % ({interval(low, high, '+.2f')})"


def _notes(board: Leaderboard, shown: int) -> list[str]:
    notes = []
    if len(board.standings) > shown:
        notes.append(f"{len(board.standings) - shown} more are in the record.")
    lucky = round(_TAIL * len(board.standings))
    if lucky:
        count = len(board.standings)
        notes.append(
            f"Intervals are of single candidates: of {count} that gain nothing about {lucky} lie below 0 by chance."
        )
    if board.by == SCORE:
        notes.append("Scores of few items are directional, not definitive: see their standard errors.")
    if board.refused:
        words = ", ".join(f"{count} of {family}" for family, count in sorted(board.refused.items()))
        notes.append(f"Not possible with this model: {words}.")
    if board.left_out:
        notes.append(f"{board.left_out} known candidates were not evaluated: the budget was used up.")
    return notes


def in_short(standing: RankedCandidate, by: str) -> str:
    """The edits and the figure that ranks them."""
    figure = {PPL: standing.ppl, KLD: standing.kld, SCORE: standing.score}[by]
    return f"{standing.edits}: {_BY[by]} {estimate(figure)}"


def verdict(board: Leaderboard) -> str:
    """What the evaluation text says of the best candidate, in a sentence or two."""
    test = board.judgement
    if test is None or not test.standings:
        return "No candidate gives a usable model."
    chosen, tested = board.standings[0], test.standings[0]
    name, count = f"'{tested.edits}'", len(board.standings)
    if chosen.gap is None or tested.gap is None:
        return f"{name} cannot be compared: it produced NaN or infinite logits."
    how = (
        "is worse than"
        if _worse(tested)
        else "is better than"
        if tested.better
        else "is not significantly different from"
    )
    if board.by != PPL:
        return f"{name}, the first by {_BY[board.by]}, {how} the original in perplexity ({_gap(tested)}).{_other(test)}"
    if tested.better:
        return f"{name} holds what it promised: {_gap(tested)} PPL on a text that had no part in choosing it."
    if chosen.gap.difference < 0:
        gains = f"{_gap(chosen)} PPL where it was chosen, {_gap(tested)} here"
        because = f"the best of {_candidates(count)} owes part of its place to chance"
        return f"The gain of {name} vanishes: {gains}, where it {how} the original; {because}.{_other(test)}"
    return f"No candidate gains: the best, {name}, {how} the original ({_gap(tested)} PPL).{_other(test)}"


def _worse(standing: RankedCandidate) -> bool:
    return standing.gap is not None and standing.gap.decided and standing.gap.difference > 0


def _other(test: BestCandidateTest) -> str:
    """The other candidates on the evaluation text that are better than the original."""
    others = [standing.edits for standing in test.standings[1:] if standing.better]
    return f" Better than the original here: {', '.join(map(repr, others))}." if others else ""
