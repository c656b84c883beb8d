"""Options of `quantplan surgery search`, and what they stand for."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.evaluate.suites.suite import Suite
    from quantplan.surgery.edits import Edit

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE)


class By(str, Enum):
    """What candidates are ranked by."""

    ppl = "ppl"
    kld = "kld"
    score = "score"


ModelArgument = Annotated[
    Path | None, typer.Argument(help="GGUF model, or hf://owner/repo/file (default: the project's).")
]
FamilyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--family",
        "-f",
        help="Candidates: delete, swap, repeat:8/4, triple, reverse, cycle, merge, move, bridge, blend:0.5, scale:0.9,1.1; "
        "several times (default: delete, swap and repeat; none beside --edits).",
    ),
]
EditsOption = Annotated[
    list[str] | None, typer.Option("--edits", "-e", help='A further candidate: "delete 10; swap 11 12"; several times.')
]
EditsFileOption = Annotated[
    Path | None, typer.Option("--edits-file", help="Further candidates, one a line, # before remarks.")
]
ByOption = Annotated[
    By, typer.Option("--by", help="Rank by perplexity, by KLD to the original, or by the score at a suite.")
]
SuiteOption = Annotated[
    list[str] | None, typer.Option("--suite", "-s", help="With --by score: suite file, or default (the default).")
]
PhasesOption = Annotated[
    int, typer.Option("--phases", min=1, help="Phases; each after the first adds single edits to the best maps.")
]
KeepOption = Annotated[int, typer.Option("--keep", min=1, help="Best maps that a phase builds on.")]
BreadthOption = Annotated[int, typer.Option("--breadth", min=1, help="Best single edits that a phase adds to each.")]
MaxCandidatesOption = Annotated[
    int | None, typer.Option("--max-candidates", min=1, help="Stop after so many candidates.")
]
MaxTimeOption = Annotated[
    str | None,
    typer.Option("--max-time", help="Begin no candidate after this time: 30m, 2h, 1h30m; the judgement comes on top."),
]
SearchTextOption = Annotated[
    Path | None,
    typer.Option("--calibration", help="Text to search on, file or folder (default: the project's calibration)."),
]
SearchChunksOption = Annotated[
    int | None, typer.Option("--windows", "-n", min=2, help="Windows of the search text (default: some 8192 tokens).")
]
JudgeChunksOption = Annotated[
    int | None, typer.Option("--judge-windows", min=2, help="Windows of the text that judges (default: as --windows).")
]
TopOption = Annotated[int, typer.Option("--top", min=1, help="How many of the best are judged on the held-out text.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Write the best candidate's model here.")]
RecordOption = Annotated[
    Path | None, typer.Option("--record", help="The leaderboard's file (default: reports/MODEL.surgery.json).")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Also where the rules of the architecture are unknown.")]


def seconds(text: str | None) -> float | None:
    """``30m``, ``1h30m``, ``90s`` in seconds; BadUsage for anything else."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise BadUsage(f"--max-time {text}: write a duration such as 30m, 2h, 1h30m or 90s")
    hours, minutes, rest = (float(each or 0) for each in match.groups())
    found = 3600 * hours + 60 * minutes + rest
    if found <= 0:
        raise BadUsage(f"--max-time {text}: longer than nothing")
    return found


def explicit(edits: list[str] | None, file: Path | None) -> tuple[tuple[Edit, ...], ...]:
    """The candidates of --edits and --edits-file; BadUsage naming the line that is none."""
    from quantplan.surgery.edit_sources import edits_file
    from quantplan.surgery.edits import parse_edits

    found = [parse_edits(text) for text in edits or ()]
    for number, line in enumerate(edits_file(file).splitlines() if file else (), 1):
        if line.split("#", 1)[0].strip():
            try:
                found.append(parse_edits(line))
            except BadUsage as error:
                raise BadUsage(f"{file}, line {number}: {error}") from None
    return tuple(found)


def suite(by: By, sources: list[str] | None) -> Suite | None:
    """The suite that ranks, None where none does."""
    if by is not By.score:
        if sources:
            raise BadUsage(f"--suite ranks with --by score, not with --by {by.value}")
        return None
    from quantplan.evaluate.suites.suite import joined
    from quantplan.evaluate.suites.suite_files import DEFAULT, read_suite

    found = [read_suite(source) for source in sources or [DEFAULT]]
    return found[0] if len(found) == 1 else joined(found)


def texts(search: Path | None, judge: Path | None) -> tuple[str, str | None]:
    """The text to search on and the one that judges, with a warning where there is none, or they are one."""
    from quantplan.evaluate.leakage import WORRYING, overlap
    from quantplan.project import read_text

    path, here = options.calibration(search), options.project()
    if path is None:
        raise BadUsage(
            "which text shall the search go by? give --calibration FILE, and --text FILE for one that judges"
        )
    searching = read_text(path)
    if judge is None and not (here and here.heldout and here.heldout.exists()):
        console.warn(
            "no text judges the best: of many candidates the first owes much to chance; give one with --text FILE"
        )
        return searching, None
    judging = read_text(options.heldout(judge))
    share = overlap(judging, searching)
    if share > WORRYING:
        console.warn(f"{share:.0%} of the long lines of the text that judges stand in the search's text too")
    return searching, judging


def record_path(option: Path | None, model: Path) -> Path:
    here = options.project()
    return option or (here.reports if here else Path("reports")) / f"{model.name.removesuffix('.gguf')}.surgery.json"
