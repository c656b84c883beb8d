"""Scores at a suite as tables."""

import math
from collections.abc import Mapping, Sequence

from quantplan.comparison import Gap
from quantplan.evaluate.suites.suite_gap import TOO_FEW, SuiteGap
from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.report.cells import UNKNOWN
from quantplan.report.table import Table


def suite_table(scores: Sequence[SuiteScore]) -> Table:
    """One column a model: the parts in percent with their standard errors, the overall score in the last row."""
    first = scores[0]
    return Table(
        title=f"Suite {first.conditions.suite}: percent ± standard error",
        headings=("Part", "Weight, %", *(score.file for score in scores)),
        rows=(
            *((part.name, _share(scores, index), *_column(scores, index)) for index, part in enumerate(first.parts)),
            ("Score, of 100", "", *(_overall(score) for score in scores)),
        ),
        notes=_missing(scores),
    )


def gaps_table(gaps: Mapping[str, SuiteGap], other: str, parts: Sequence[str]) -> Table:
    """One column a model: its difference from another one, part by part, paired item by item."""
    rows = (
        *((name, *(_gap(gap, name) for gap in gaps.values())) for name in parts),
        ("Score", *(_reach(gap.overall, 1, 1) for gap in gaps.values())),
    )
    return Table(f"Difference from {other}: points ± half of the 95 % interval", ("Part", *gaps), rows)


def answer_lines(score: SuiteScore) -> list[str]:
    """Every item with its credit, what is missing, and its answer."""
    return [
        f"{part.name}: {item.name}  {item.credit:.2f}{f' ({item.remark})' if item.remark else ''}  {item.text.strip()!r}"
        for part in score.applicable
        for item in part.items
    ]


def _share(scores: Sequence[SuiteScore], index: int) -> str:
    """The part's weight in the score: of each model where it does not apply to all."""
    shares = dict.fromkeys(f"{score.share(score.parts[index]):.3g}" for score in scores)
    return " / ".join(shares)


def _column(scores: Sequence[SuiteScore], index: int) -> list[str]:
    """A part's figure of each model."""
    parts = [score.parts[index] for score in scores]
    return [
        f"{100 * part.credit.value:.0f} ± {100 * (part.credit.stderr or 0):.0f}" if part.applies else UNKNOWN
        for part in parts
    ]


def _overall(score: SuiteScore) -> str:
    return f"{score.overall.value:.1f} ± {score.overall.stderr or 0:.1f}"


def _gap(gap: SuiteGap, name: str) -> str:
    part = gap.parts.get(name)
    return UNKNOWN if part is None else _reach(part, 100, 0)


def _reach(gap: Gap, points: float, decimals: int) -> str:
    """``points``: that a difference of 1 stands for. An end at the largest difference was cut off."""
    reach = points * max(gap.high - gap.difference, gap.difference - gap.low)
    return f"{points * gap.difference:+.{decimals}f} " + (TOO_FEW if math.isinf(reach) else f"± {reach:.{decimals}f}")


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
