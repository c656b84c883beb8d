"""Scores at a suite as tables: a row a file, a column a part."""

import math
from collections.abc import Mapping, Sequence

from quantplan.comparison import Gap
from quantplan.evaluate.suites.answer_lengths import AnswerLengths, LengthGap, answer_lengths
from quantplan.evaluate.suites.suite_gap import DIRECTIONAL, FEW, TOO_FEW, SuiteGap
from quantplan.evaluate.suites.suite_score import PartScore, SuiteScore
from quantplan.report.cells import UNKNOWN, interval
from quantplan.report.table import Table

_ALIKE = "≈"  # after a difference that is no more than a direction
_LEGEND = f"{_ALIKE}: {DIRECTIONAL}: the 95 % interval contains 0, or there are fewer than {FEW} items."


def suite_table(scores: Sequence[SuiteScore]) -> Table:
    """The parts in percent with their standard errors, and the overall score out of 100."""
    first = scores[0]
    names = [part.name for part in first.parts]
    return Table(
        title=f"Suite {first.conditions.suite}: percent ± standard error",
        headings=("File", *names, "Score"),
        rows=tuple((score.file, *map(_credit, score.parts), _overall(score)) for score in scores),
        notes=(_weights(first), *_missing(scores)),
    )


def gaps_table(gaps: Mapping[str, SuiteGap], other: str, parts: Sequence[str]) -> Table:
    """Differences of files from another one, paired item by item."""
    rows = tuple((file, *(_part_gap(gap, name) for name in parts), _score_gap(gap)) for file, gap in gaps.items())
    title = f"Difference from {other}: points (95 % interval)"
    return Table(title, ("File", *parts, "Score"), rows, (_LEGEND,))


def lengths_table(scores: Sequence[SuiteScore], gaps: Mapping[str, LengthGap], other: str | None) -> Table | None:
    """How long answers are and how they end, by file, and against another file; None where the suite asks no questions."""
    lengths = {score.file: answer_lengths(score) for score in scores}
    compared = [_length_gap(gaps.get(file)) if gaps else () for file in lengths]
    rows = [(file, *_length(of), *gap) for (file, of), gap in zip(lengths.items(), compared, strict=True) if of]
    headings = ("File", "Tokens an answer", "Cut off", "Loops")
    further = (f"Tokens / those of {other}", "Cut off: points", "Loops: points") if gaps else ()
    note = "Cut off: the answer took all tokens allowed. Loops: cut off saying one passage again and again."
    return Table("Length of answers", (*headings, *further), tuple(rows), (note,)) if rows else None


def answer_lines(score: SuiteScore) -> list[str]:
    """Every item with its credit, what is missing, and its answer."""
    return [
        f"{part.name}: {item.name}  {item.credit:.2f}{f' ({item.remark})' if item.remark else ''}  {item.text.strip()!r}"
        for part in score.applicable
        for item in part.items
    ]


# --- cells


def _credit(part: PartScore) -> str:
    return f"{100 * part.credit.value:.0f} ± {100 * (part.credit.stderr or 0):.0f}" if part.applies else UNKNOWN


def _overall(score: SuiteScore) -> str:
    return f"{score.overall.value:.1f} ± {score.overall.stderr or 0:.1f}"


def _part_gap(gap: SuiteGap, name: str) -> str:
    part = gap.parts.get(name)
    return UNKNOWN if part is None else _difference(part, 100, 0, gap.directional(name))


def _score_gap(gap: SuiteGap) -> str:
    return _difference(gap.overall, 1, 1, not gap.overall.decided or gap.items < FEW)


def _difference(gap: Gap, points: float, decimals: int, directional: bool) -> str:
    """``points``: that a difference of 1 stands for."""
    value = f"{points * gap.difference:+.{decimals}f}"
    if math.isinf(gap.high):
        return f"{value} ({TOO_FEW})"
    ends = interval(points * gap.low, points * gap.high, f"+.{decimals}f")
    return f"{value} ({ends}){f' {_ALIKE}' if directional else ''}"


def _length(lengths: AnswerLengths) -> tuple[str, str, str]:
    return f"{lengths.tokens:.1f}", f"{100 * lengths.cut_off:.1f} %", f"{100 * lengths.loops:.1f} %"


def _length_gap(gap: LengthGap | None) -> tuple[str, ...]:
    if gap is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    tokens = f"{gap.tokens.ratio:.2f} ({interval(gap.tokens.low, gap.tokens.high, '.2f')})"
    alike = f" {_ALIKE}" if gap.tokens.low <= 1 <= gap.tokens.high else ""
    shares = (_difference(part, 100, 1, not part.decided) for part in (gap.cut_off, gap.loops))
    return (f"{tokens}{alike}", *shares)


# --- notes


def _weights(score: SuiteScore) -> str:
    total = sum(part.weight for part in score.parts)
    return f"Weights, %: {', '.join(f'{part.name} {100 * part.weight / total:.3g}' for part in score.parts)}."


def _missing(scores: Sequence[SuiteScore]) -> tuple[str, ...]:
    """Parts that do not apply, each reason once, and what became of their weight."""
    missing: dict[str, set[str]] = {}
    for score in scores:
        for part in score.parts:
            if not part.applies:
                missing.setdefault(part.reason, set()).add(part.name)
    order = [part.name for part in scores[0].parts]
    notes = [f"Without {', '.join(sorted(names, key=order.index))}: {reason}." for reason, names in missing.items()]
    return (*notes, "The weight of parts that do not apply is spread over the others.") if notes else ()
