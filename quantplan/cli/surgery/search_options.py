"""Options of `quantplan surgery search`, and what they mean."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from quantplan.cli import console, options
from quantplan.cli.framework import option, whole
from quantplan.cli.option_groups import MEASURING, CalibrationOptions
from quantplan.cli.score import read_suites
from quantplan.errors import BadUsage
from quantplan.evaluate.suites.suite import Suite
from quantplan.evaluate.suites.suite_files import SHORT
from quantplan.surgery.edit_sources import edits_file
from quantplan.surgery.edits import Edit, parse_edits
from quantplan.tensor import Model
from quantplan.text import Text, undivided

_SEARCH = "Candidates"  # panel
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE)


class By(str, Enum):
    """What candidates are ranked by."""

    ppl = "ppl"
    kld = "kld"
    score = "score"


def split_families(text: str) -> list[str]:
    """``delete,scale:0.9,1.1`` -> ``delete`` and ``scale:0.9,1.1``."""
    return [part.strip() for part in re.split(r",(?=\s*[A-Za-z])", text) if part.strip()]


@dataclass(frozen=True)
class CandidateOptions:
    panel: ClassVar[str] = _SEARCH
    family: tuple[str, ...] = option(
        "Candidates: delete, swap, repeat:8/4, triple, reverse, cycle, merge, move, bridge, blend:0.5, scale:0.9,1.1; "
        "repeatable (default: delete, swap and repeat; none with --edits).",
        default=(),
        split=split_families,
    )
    edits: tuple[str, ...] = option(
        'A further candidate: "delete 10; swap 11 12"; repeatable.', "-e", default=(), split=whole
    )
    edits_file: Path | None = option("Further candidates, one a line; # starts a comment.")
    phases: int = option("Phases; each after the first adds single edits to the best maps.", default=1, min=1)
    keep: int = option("Best maps that a phase builds on.", default=3, min=1)
    breadth: int = option("Best single edits that a phase adds to each.", default=8, min=1)
    max_candidates: int | None = option("Stop after N candidates.", min=1)
    max_time: str | None = option(
        "Start no candidate after this time: 30m, 2h, 1h30m; the final evaluation comes on top."
    )

    def explicit(self) -> tuple[tuple[Edit, ...], ...]:
        """The candidates of --edits and --edits-file; BadUsage naming the line that is not one."""
        candidates = [parse_edits(text) for text in self.edits]
        lines = edits_file(self.edits_file).splitlines() if self.edits_file else ()
        for number, line in enumerate(lines, 1):
            if line.split("#", 1)[0].strip():
                try:
                    candidates.append(parse_edits(line))
                except BadUsage as error:
                    raise BadUsage(f"{self.edits_file}, line {number}: {error}") from None
        return tuple(candidates)

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_time is None else seconds(self.max_time)


@dataclass(frozen=True)
class RankingOptions:
    panel: ClassVar[str] = MEASURING
    by: By = option("Rank by perplexity, by KLD to the original, or by the score at a suite.", default=By.ppl)
    suite: tuple[str, ...] = option(
        "With --by score: suite: short (default), assistant, or a file; repeatable.", default=()
    )
    chunks: int | None = option("Chunks of the calibration text (default: some 8192 tokens).", min=2)
    eval_chunks: int | None = option("Chunks of the evaluation text (default: as --chunks).", min=2)
    top: int = option("How many of the best are measured on the evaluation text.", default=5, min=1)

    def suites(self) -> Suite | None:
        """The suite that ranks, None where none does."""
        if self.by is By.score:
            return read_suites(self.suite, SHORT)
        if self.suite:
            raise BadUsage(f"--suite ranks with --by score, not with --by {self.by.value}")
        return None


def seconds(text: str) -> float:
    """``30m``, ``1h30m``, ``90s`` in seconds; BadUsage for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise BadUsage(f"--max-time {text}: write a duration such as 30m, 2h, 1h30m or 90s")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + rest
    if total <= 0:
        raise BadUsage(f"--max-time {text}: must be longer than zero")
    return total


def texts(calibration: CalibrationOptions, source: Model, evaluation: Sequence[Path]) -> tuple[Text, Text | None]:
    """The text to search on and the evaluation text, with a warning where there is none, or they overlap."""
    files, here = options.calibration_files(calibration.calibration), options.project()
    searching = calibration.text(source)
    if searching is None:
        raise BadUsage(
            "no calibration text to search on: give --calibration FILE, and --text FILE to evaluate the best"
        )
    if not evaluation and not (here and here.text and here.text.exists()):
        console.warn(
            "no evaluation text: the first of many candidates is partly there by chance; give another text with --text FILE"
        )
        return undivided(searching), None
    return undivided(searching), undivided(options.evaluation_text(evaluation, calibration.reader(source), files))


def record_path(option: Path | None, model: Path) -> Path:
    return option or options.folder(None, "reports") / f"{model.name.removesuffix('.gguf')}.surgery.json"
