"""What files lose on each text of several, the worst marked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantplan.comparison import Row, of_domain
from quantplan.measurement import DomainFigures, Measurement
from quantplan.report.cells import estimate, interval, number
from quantplan.report.table import Table, table_of

WORST = "worst text"


@dataclass(frozen=True)
class _Line:
    """A file on a text. ``row``: of a comparison."""

    file: str
    figures: DomainFigures
    worst: bool
    row: Row | None

    @property
    def key(self) -> str:
        return of_domain(self.figures.name)


def domain_table(names: Sequence[str], measurements: Sequence[Measurement], rows: Sequence[Row] = ()) -> Table:
    """A line for each text and file. ``rows``: of a comparison, whose differences from the first file are shown, too."""
    lines = [
        _Line(name, figures, figures.name == measurement.worst_domain, rows[at] if rows else None)
        for figures_of_text in zip(*(measurement.domains for measurement in measurements), strict=True)
        for at, (name, measurement, figures) in enumerate(zip(names, measurements, figures_of_text, strict=True))
    ]
    columns: list[tuple[str, Callable[[_Line], str]]] = [
        ("Text", lambda line: line.figures.name),
        ("File", lambda line: line.file),
        ("Chunks", lambda line: str(line.figures.chunks)),
        ("PPL", lambda line: estimate(line.figures.ppl)),
        ("KLD", lambda line: ("≈ " if line.row and line.row.alike(line.key) else "") + estimate(line.figures.kld)),
        ("KLD 99 %", lambda line: number(line.figures.kld_percentiles[99.0])),
        ("Same top %", lambda line: estimate(line.figures.same_top)),
    ]
    if rows:
        columns += [("Difference", _difference), ("95 % interval", _interval)]
    columns.append(("Remark", lambda line: WORST if line.worst else ""))
    notes = [f"{WORST}: where the file's KLD is largest."]
    if rows:
        notes.append(
            f"Difference: KLD of this file less that of {names[0]}; ≈: not significant (p > 0.05, paired by chunk)."
        )
    return table_of("By text", columns, lines, notes, texts=(0, 1))


def _difference(line: _Line) -> str:
    gap = line.row.gaps.get(line.key) if line.row else None
    return "" if gap is None else f"{gap.difference:+.2g}"


def _interval(line: _Line) -> str:
    gap = line.row.gaps.get(line.key) if line.row else None
    return "" if gap is None else interval(gap.low, gap.high, "+.2g")
