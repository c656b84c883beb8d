"""Scores at multiple-choice tasks (HellaSwag, WinoGrande, ARC, MMLU, TruthfulQA ...), as llama-perplexity counts them.

A task counts as solved where the right ending is the likeliest per token. What is kept is the outcome of every single
task: two files that answered the same tasks are compared task by task, which tells more than their two percentages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quantplan.measurement import Estimate, check_conditions

HELLASWAG, WINOGRANDE, MULTIPLE_CHOICE = "hellaswag", "winogrande", "multiple-choice"
TASKS_VERSION = 1  # 1: first; raised when outcomes are taken in another way
SEED = 1  # llama-perplexity draws its tasks with std::mt19937 seeded with 1, and has no option for it


@dataclass(frozen=True)
class TaskConditions:
    """Everything but the measured file that the outcomes depend on. ``tasks``: how many of the data file's were run."""

    mode: str  # HELLASWAG, WINOGRANDE or MULTIPLE_CHOICE
    data_digest: str
    tasks: int
    n_ctx: int
    backend: str
    llama_cpp: str
    seed: int = SEED
    version: int = TASKS_VERSION


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One file's outcomes at one kind of task, in the order in which the tool ran them."""

    task: str  # the name it was asked for with: arc, mmlu ...
    file: str
    model_digest: str
    file_bytes: int
    outcomes: tuple[bool, ...]
    conditions: TaskConditions
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> Estimate:
        """Percent solved, and its standard error sqrt(p (1 - p) / (n - 1)) as the tool prints it; None for one task."""
        count = len(self.outcomes)
        share = sum(self.outcomes) / count
        error = 100 * math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None
        return Estimate(100 * share, error)


def average(scores: Sequence[TaskScore]) -> Estimate:
    """Mean of the percentages, each kind of task counting alike; its error from theirs, which are independent."""
    found = [score.score for score in scores]
    errors = [each.stderr for each in found]
    error = math.hypot(*errors) / len(found) if None not in errors else None  # type: ignore[arg-type]
    return Estimate(sum(each.value for each in found) / len(found), error)


def check_same_tasks(scores: Sequence[TaskScore]) -> None:
    """ConditionsDiffer unless all scores are of the same tasks, run alike."""
    check_conditions([(f"{each.task} of {each.file}", each.conditions) for each in scores], "measure --task")
