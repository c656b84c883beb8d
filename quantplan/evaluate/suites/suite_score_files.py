"""Scores at suites as JSON: every item with its credit and answer, and the figures that follow. See docs/suites.md."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteConditions, SuiteScore
from quantplan.measurement import Estimate
from quantplan.records.codec import read_record, write_record

SUITE_SCORE_FORMAT, SUITE_SCORE_VERSION = "quantplan-suite-score", 1  # 1: first
_PLAIN = ("file", "model_digest", "template", "thinks")


def as_fields(score: SuiteScore) -> dict[str, Any]:
    """JSON values; what follows from the credits (``score``, ``credit``, ``share``) is written and not read back."""
    low, high = score.interval if score.applicable else (None, None)
    overall = score.overall if score.applicable else Estimate(0.0, None)
    return {name: getattr(score, name) for name in _PLAIN} | {
        "score": overall.value if score.applicable else None,
        "score_err": overall.stderr,
        "score_low": low,
        "score_high": high,
        "items": score.items,
        "parts": [_part_fields(part, score.share(part)) for part in score.parts],
        "conditions": asdict(score.conditions),
        "notes": list(score.notes),
    }


def _part_fields(part: PartScore, share: float) -> dict[str, Any]:
    credit = part.credit if part.applies else None
    return {
        "name": part.name,
        "kind": part.kind,
        "weight": part.weight,
        "share": share,
        "credit": credit.value if credit else None,
        "credit_err": credit.stderr if credit else None,
        "given": [part.given.value, part.given.stderr] if part.given else None,
        "reason": part.reason,
        "items": [asdict(item) for item in part.items],
    }


def from_fields(content: dict[str, Any]) -> SuiteScore:
    """The score that ``as_fields`` wrote; KeyError, TypeError or ValueError for anything else."""
    return SuiteScore(
        **{name: content[name] for name in _PLAIN},
        parts=tuple(_part(each) for each in content["parts"]),
        conditions=SuiteConditions(**content["conditions"]),
        notes=tuple(content["notes"]),
    )


def _part(content: dict[str, Any]) -> PartScore:
    return PartScore(
        **{name: content[name] for name in ("name", "kind", "weight", "reason")},
        items=tuple(ItemScore(**each) for each in content["items"]),
        given=Estimate(*content["given"]) if content["given"] else None,
    )


def write_suite_score(score: SuiteScore, path: Path) -> None:
    write_record(path, SUITE_SCORE_FORMAT, SUITE_SCORE_VERSION, as_fields(score))


def read_suite_score(path: Path | str) -> SuiteScore:
    """A score as it was written; BadFile where fields are missing."""
    content = read_record(path, SUITE_SCORE_FORMAT, SUITE_SCORE_VERSION)
    try:
        return from_fields(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: damaged score ({type(error).__name__}: {error}); score again") from None
