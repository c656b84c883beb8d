"""The format of suite scores: every item with its credit and answer, and the figures that follow. See docs/suites.md."""

import math

from quantplan.evaluate.significance import Ratio
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteScore
from quantplan.records.codec import Fields, RecordFormat, encode, register, shape

_LARGEST_WEIGHT = 1e9  # shares of larger ones have no digits left


def _figures(score: SuiteScore) -> Fields:
    if not score.applicable:
        return {"score": None, "score_err": None, "score_low": None, "score_high": None}
    low, high = score.interval
    return {"score": score.overall.value, "score_err": score.overall.stderr, "score_low": low, "score_high": high}


def _credit(part: PartScore) -> Fields:
    credit = part.credit if part.applies else None
    return {"credit": credit.value if credit else None, "credit_err": credit.stderr if credit else None}


shape(Ratio, absent={"ratio": math.inf, "high": math.inf})
shape(ItemScore, derived={"loops": lambda item: item.loops})
shape(
    PartScore,
    pairs=("given",),
    derived={key: lambda part, key=key: _credit(part)[key] for key in ("credit", "credit_err")},
)
shape(
    SuiteScore,
    derived={
        key: lambda score, key=key: _figures(score)[key] for key in ("score", "score_err", "score_low", "score_high")
    }
    | {
        "items": lambda score: score.items,
        "parts": lambda score: [encode(part) | {"share": score.share(part)} for part in score.parts],
    },
)


def _check(score: SuiteScore) -> None:
    for part in score.parts:
        if not 0 < part.weight < _LARGEST_WEIGHT or not all(0 <= item.credit <= 1 for item in part.items):
            raise ValueError(f"the part {part.name} has a weight or a credit that cannot be")
        if part.applies and part.given is None and not part.counted:
            raise ValueError(f"the part {part.name} applies, and none of its items counts")


SUITE_SCORES = register(
    # 1: first; 2: items longer than the context do not count, answers that go round in circles are marked
    RecordFormat("quantplan-suite-score", 2, SuiteScore, "score", "score again", _check)
)
