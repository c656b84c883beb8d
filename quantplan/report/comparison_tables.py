"""A comparison as the tables of model cards: sizes, what is lost, tasks, tokens per second. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantplan.comparison import AVERAGE, KLD, PPL, Comparison, Row
from quantplan.measurement import Estimate
from quantplan.report.grid import Grid
from quantplan.report.measurement_table import UNKNOWN, estimate
from quantplan.task_score import TaskScore
from quantplan.throughput import Throughput

ALIKE = "≈ "  # before a figure whose difference from the first row's is inside the noise
_SMALL = 10**8  # files below are shown in MB


def comparison_grids(comparison: Comparison) -> list[Grid]:
    """Those of the tables that there are figures for."""
    rows = comparison.rows
    grids = [_sizes(comparison), _losses(rows)] + ([_against_first(rows)] if len(rows) > 1 else [])
    if rows[0].tasks:
        grids.append(tasks_grid([row.name for row in rows], [row.tasks for row in rows], rows))
    measured = [row.throughput for row in rows if row.throughput]
    if measured:
        grids.append(speed_grid([row.name for row in rows], measured, rows))
    if comparison.sorted_by:
        grids = [_ranked(grid, len(rows)) for grid in grids]
    return grids


def _ranked(grid: Grid, of: int) -> Grid:
    """With a column of ranks; a table that leaves out the first file begins with 2."""
    first = 1 + of - len(grid.rows)
    rows = tuple((row[0], str(rank), *row[1:]) for rank, row in enumerate(grid.rows, first))
    return Grid(grid.title, (grid.headings[0], "Rank", *grid.headings[1:]), rows, grid.notes)


def _sizes(comparison: Comparison) -> Grid:
    rows = comparison.rows
    large = max(row.measurement.file_bytes for row in rows) >= _SMALL
    unit, scale = ("GB", 1e9) if large else ("MB", 1e6)
    columns: list[tuple[str, Callable[[Row], str]]] = [(f"Size ({unit})", lambda row: _size(row, scale))]
    if comparison.reference:
        columns.append(("Shrinkage", lambda row: UNKNOWN if row.shrinkage is None else f"{100 * row.shrinkage:.1f} %"))
    columns += [
        ("Bytes", lambda row: f"{row.measurement.file_bytes:,}"),
        ("bpw", lambda row: f"{row.measurement.bpw:.3f}"),
    ]
    if len({row.blocks for row in rows}) > 1:
        columns.append(("Layers", lambda row: str(row.blocks or UNKNOWN)))
    if len({row.elements for row in rows}) > 1:
        columns.append(("Weights", lambda row: _weights(row.elements)))
    columns.append(("Remark", _remark))
    notes = (f"Shrinkage: against {comparison.reference}.",) if comparison.reference else ()
    return _grid("Sizes", rows, columns, notes)


def _size(row: Row, scale: float) -> str:
    return f"{row.measurement.file_bytes / scale:.2f}"


def _weights(count: int | None) -> str:
    if count is None:
        return UNKNOWN
    return f"{count / 1e9:.2f} B" if count >= _SMALL else f"{count / 1e6:.2f} M"


def _remark(row: Row) -> str:
    if not row.gaps:
        return "all others against this"
    return "larger" if row.larger else ""


def _losses(rows: Sequence[Row]) -> Grid:
    conditions, first = rows[0].measurement.conditions, rows[0].name
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("PPL", lambda row: marked(row, PPL, row.measurement.ppl)),
        ("Correlation", lambda row: _percent(row.measurement.ppl_correlation)),
        ("KLD", lambda row: marked(row, KLD, row.measurement.kld)),
        ("RMS Δp %", lambda row: estimate(row.measurement.rms_dp)),
        ("Same top %", lambda row: estimate(row.measurement.same_top)),
    ]
    notes = [
        f"{conditions.chunks} windows of {conditions.n_ctx} tokens, {conditions.engine}, {conditions.backend}; KLD in nats "
        "per token."
    ]
    if any(row.alike(KLD) or row.alike(PPL) for row in rows):
        notes.append(
            f"≈: inside the noise, not told apart from {first} at 95 % (paired bootstrap over windows; RMS Δp and same top "
            "are not tested)."
        )
    return _grid("Perplexity and KL divergence", rows, columns, notes)


def _against_first(rows: Sequence[Row]) -> Grid:
    """Differences and ratios of KLD with their intervals, and how much text would decide what is open."""
    first, n_ctx = rows[0].name, rows[0].measurement.conditions.n_ctx
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("Difference", lambda row: f"{row.gaps[KLD].difference:+.2g}"),
        ("95 % interval", lambda row: f"{row.gaps[KLD].low:+.2g} to {row.gaps[KLD].high:+.2g}"),
        ("KLD ratio", lambda row: f"{row.kld_ratio:.3f}"),
        ("95 % interval", lambda row: f"{row.low:.3f} to {row.high:.3f}"),
        (f"loses, beside {first}", lambda row: _check(row, n_ctx)),
    ]
    notes = [
        f"Difference: KLD of this file less that of {first}. KLD ratio: that of {first} over this file's, below 1 where "
        f"{first} is better. Paired bootstrap over windows."
    ]
    return _grid(f"KLD against {first}", rows[1:], columns, notes)


def _check(row: Row, n_ctx: int) -> str:
    gap = row.gaps[KLD]
    if gap.decided:
        return "more" if gap.difference > 0 else "less"
    if row.chunks_needed is None:
        return "the same, inside the noise"
    needed = row.chunks_needed
    return f"inside the noise; {needed:,} windows ({needed * n_ctx:,} tokens) would decide"


def tasks_grid(names: Sequence[str], scores: Sequence[Sequence[TaskScore]], rows: Sequence[Row] = ()) -> Grid:
    """Percent solved by kind of task, and the average. ``rows``: marks what is not told apart from the first of them."""
    from quantplan.task_score import average

    kinds = [score.task for score in scores[0]]
    cells = []
    for index, (name, own) in enumerate(zip(names, scores, strict=True)):
        row = rows[index] if rows else None
        figures = [marked(row, score.task, score.score) for score in own]
        against = [_points(row)] if row else []
        cells.append((name, *figures, marked(row, AVERAGE, average(own)), *against))
    counts = ", ".join(f"{score.task} {score.conditions.tasks}" for score in scores[0])
    notes = [f"Percent solved, llama-perplexity, --ctx {scores[0][0].conditions.n_ctx}; tasks: {counts}."]
    if any(row.alike(name) for row in rows for name in (*kinds, AVERAGE)):
        notes.append(
            f"≈: not told apart from {names[0]} at 95 %: McNemar's exact test on the same tasks; for the average, the paired "
            "errors of its tasks."
        )
        notes += filter(None, (_tasks_needed(row, kinds) for row in rows))
    headings = ("File", *kinds, "Average", *([f"against {names[0]}"] if rows else []))
    return Grid("Tasks", headings, tuple(cells), tuple(notes))


def _points(row: Row) -> str:
    """Percentage points that the average is above the first row's."""
    return f"{row.gaps[AVERAGE].difference:+.2f}" if row.gaps else ""


def _tasks_needed(row: Row, kinds: Sequence[str]) -> str:
    known = [(kind, row.gaps[kind].needed) for kind in kinds if row.alike(kind)]
    wanted = ", ".join(f"{count:,} of {kind}" for kind, count in known if count)
    return f"{row.name}: about so many tasks would decide differences of this size: {wanted}." if wanted else ""


def speed_grid(names: Sequence[str], measured: Sequence[Throughput], rows: Sequence[Row] = ()) -> Grid:
    """Tokens per second by test, with standard errors over repetitions."""
    first, cells = measured[0], []
    for index, (name, own) in enumerate(zip(names, measured, strict=True)):
        row = rows[index] if rows else None
        cells.append((name, *(marked(row, test.name, test.speed) for test in own.tests)))
    kinds, where = [test.name for test in first.tests], first.conditions
    layers = f", {where.gpu_layers} layers on the GPU" if where.gpu_layers else ""
    notes = [
        f"llama-bench, {where.processor}, {where.devices}, {where.threads} threads{layers}, llama.cpp {where.llama_cpp}, "
        f"{where.repetitions} repetitions."
    ]
    if any(row.alike(kind) for row in rows for kind in kinds):
        notes.append(
            f"≈: not told apart from {names[0]} at 95 % (Welch's interval, with 1 % for what differs from run to run)."
        )
    return Grid("Tokens per second", ("File", *kinds), tuple(cells), tuple(notes))


def marked(row: Row | None, name: str, figure: Estimate) -> str:
    """The figure with its error, and the mark where it is not told apart from the first row's."""
    return (ALIKE if row and row.alike(name) else "") + estimate(figure)


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.2f} %"


def _grid(
    title: str, rows: Sequence[Row], columns: Sequence[tuple[str, Callable[[Row], str]]], notes: Sequence[str]
) -> Grid:
    cells = tuple((row.name, *(show(row) for _, show in columns)) for row in rows)
    return Grid(title, ("File", *(heading for heading, _ in columns)), cells, tuple(notes))
