"""How long a model's answers at a suite are, how many were cut off, and how many of them went round in circles."""

import math
from dataclasses import dataclass

from quantplan.comparison import Gap
from quantplan.evaluate.significance import Ratio, outcomes_gap, ratio_interval
from quantplan.evaluate.suites.suite import COHERENCE
from quantplan.evaluate.suites.suite_score import ItemScore, SuiteScore


@dataclass(frozen=True)
class AnswerLengths:
    """``tokens``: mean of an answer. ``cut_off``: share of answers that took all tokens allowed; ``loops``: of those that also
    ended in one passage again and again.
    """

    answers: int
    tokens: float
    cut_off: float
    loops: float


@dataclass(frozen=True)
class LengthGap:
    """Of one model against another, paired by answer: the ratio of tokens, and differences of the shares."""

    tokens: Ratio
    cut_off: Gap
    loops: Gap


def answer_lengths(score: SuiteScore) -> AnswerLengths | None:
    """Of all questions; None where the suite asks none. Texts that are only continued (coherence) have no end of their own."""
    items = list(_answers(score).values())
    if not items:
        return None
    count = len(items)
    return AnswerLengths(
        answers=count,
        tokens=math.fsum(item.tokens for item in items) / count,
        cut_off=sum(item.cut_off for item in items) / count,
        loops=sum(item.loops for item in items) / count,
    )


def length_gap(first: SuiteScore, second: SuiteScore) -> LengthGap | None:
    """None where the models have fewer than two answers to the same questions."""
    of_first, of_second = _answers(first), _answers(second)
    pairs = [(item, of_second[key]) for key, item in of_first.items() if key in of_second]
    if len(pairs) < 2:
        return None
    one, other = zip(*pairs, strict=True)
    return LengthGap(
        ratio_interval([item.tokens for item in one], [item.tokens for item in other]),
        outcomes_gap([item.cut_off for item in one], [item.cut_off for item in other]),
        outcomes_gap([item.loops for item in one], [item.loops for item in other]),
    )


def _answers(score: SuiteScore) -> dict[tuple[str, str], ItemScore]:
    """By part and item."""
    parts = [part for part in score.applicable if part.kind != COHERENCE]
    return {(part.name, item.name): item for part in parts for item in part.counted}
