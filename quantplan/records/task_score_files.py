"""Scores at tasks as JSON: percent and error, and the outcome of every task as 0 or 1. See docs/formats.md."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.records.codec import read_record, write_record
from quantplan.task_score import TaskConditions, TaskScore

TASK_SCORE_FORMAT, TASK_SCORE_VERSION = "quantplan-task-score", 1  # 1: first
_PLAIN = ("task", "file", "file_bytes", "model_digest")


def as_fields(score: TaskScore) -> dict[str, Any]:
    """JSON values; ``score`` and ``score_err`` in percent follow from ``outcomes``, which are read back."""
    found = score.score
    return {name: getattr(score, name) for name in _PLAIN} | {
        "score": found.value,
        "score_err": found.stderr,
        "outcomes": "".join("01"[each] for each in score.outcomes),
        "conditions": asdict(score.conditions),
        "notes": list(score.notes),
    }


def from_fields(content: dict[str, Any]) -> TaskScore:
    """The score that ``as_fields`` wrote; KeyError, TypeError or ValueError for anything else."""
    outcomes = content["outcomes"]
    if not outcomes or set(outcomes) - {"0", "1"}:
        raise ValueError("outcomes are a row of 0 and 1")
    return TaskScore(
        **{name: content[name] for name in _PLAIN},
        outcomes=tuple(each == "1" for each in outcomes),
        conditions=TaskConditions(**content["conditions"]),
        notes=tuple(content["notes"]),
    )


def write_task_score(score: TaskScore, path: Path) -> None:
    write_record(path, TASK_SCORE_FORMAT, TASK_SCORE_VERSION, as_fields(score))


def read_task_score(path: Path | str) -> TaskScore:
    """A score as it was written; BadFile where fields are missing."""
    content = read_record(path, TASK_SCORE_FORMAT, TASK_SCORE_VERSION)
    try:
        return from_fields(content)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: damaged score ({type(error).__name__}: {error}); measure again") from None
