"""A comparison as the tables of model cards: sizes, what is lost, tasks, tokens per second."""

from collections.abc import Sequence
from dataclasses import replace

from quantplan.comparison import AVERAGE, KLD, PPL, Comparison, Row
from quantplan.measurement import Estimate
from quantplan.report.cells import READ, UNKNOWN, estimate, interval, per_token, percent, weights
from quantplan.report.domain_table import domain_table
from quantplan.report.measurement_table import chunks_of
from quantplan.report.spikes import spike_lines
from quantplan.report.table import Columns, Table, table_of
from quantplan.task_score import TaskScore, average
from quantplan.throughput import Throughput

ALIKE = "≈ "  # before a figure that does not differ significantly from the first row's
_SMALL = 10**8  # files below are shown in MB
_NAME = ("File", lambda row: row.name)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Those of the tables that there are figures for."""
    rows = comparison.rows
    names = [row.name for row in rows]
    tables = [_sizes(comparison), _losses(rows)] + ([_against_first(rows)] if len(rows) > 1 else [])
    if rows[0].tasks:
        tables.append(tasks_table(names, [row.tasks for row in rows], rows))
    measured = [row.throughput for row in rows if row.throughput]
    if measured:
        tables.append(speed_table(names, measured, rows))
    tables = [_ranked(table, len(rows)) for table in tables] if comparison.sorted_by else tables
    measurements = [row.measurement for row in rows]
    return [*tables, domain_table(names, measurements, rows)] if measurements[0].domains else tables


def _ranked(table: Table, files: int) -> Table:
    """With a column of ranks; a table that leaves out the first file begins with 2."""
    first = 1 + files - len(table.rows)
    rows = tuple((row[0], str(rank), *row[1:]) for rank, row in enumerate(table.rows, first))
    return replace(table, headings=(table.headings[0], "Rank", *table.headings[1:]), rows=rows)


def _sizes(comparison: Comparison) -> Table:
    rows = comparison.rows
    large = max(row.measurement.file_bytes for row in rows) >= _SMALL
    unit, scale = ("GB", 1e9) if large else ("MB", 1e6)
    columns = [_NAME, (f"Size ({unit})", lambda row: f"{row.measurement.file_bytes / scale:.2f}")]
    if comparison.reference:
        columns.append(("Shrinkage", lambda row: percent(row.shrinkage, 1)))
    columns += [
        ("Bytes", lambda row: f"{row.measurement.file_bytes:,}"),
        ("bpw", lambda row: f"{row.measurement.bpw:.3f}"),
        (READ, lambda row: per_token(row.measurement.bytes_per_token)),
    ]
    if len({row.blocks for row in rows}) > 1:
        columns.append(("Layers", lambda row: str(row.blocks or UNKNOWN)))
    if len({row.elements for row in rows}) > 1:
        columns.append(("Weights", lambda row: weights(row.elements)))
    columns.append(("Remark", _remark))
    return table_of(
        "Sizes", columns, rows, [f"Shrinkage: against {comparison.reference}."] if comparison.reference else []
    )


def _remark(row: Row) -> str:
    if not row.gaps:
        return "all others against this"
    return "larger" if row.larger else ""


def _losses(rows: Sequence[Row]) -> Table:
    conditions, first = rows[0].measurement.conditions, rows[0].name
    columns: Columns[Row] = [
        _NAME,
        ("PPL", lambda row: marked(row, PPL, row.measurement.ppl)),
        ("Correlation", lambda row: percent(row.measurement.ppl_correlation)),
        ("KLD", lambda row: marked(row, KLD, row.measurement.kld)),
        ("RMS Δp %", lambda row: estimate(row.measurement.rms_dp)),
        ("Same top %", lambda row: estimate(row.measurement.same_top)),
    ]
    notes = [f"{chunks_of(conditions)}, {conditions.engine}, {conditions.backend}; KLD in nats per token."]
    if any(row.alike(KLD) or row.alike(PPL) for row in rows):
        notes.append(
            f"≈: not significantly different from {first} (p > 0.05, paired by chunk; RMS Δp and same top are not tested)."
        )
    notes += [line for row in rows for line in spike_lines(row.name, row.measurement)]
    return table_of("Perplexity and KL divergence", columns, rows, notes)


def _against_first(rows: Sequence[Row]) -> Table:
    """Differences and ratios of KLD with their intervals, and how much text would make them significant."""
    first, n_ctx = rows[0].name, rows[0].measurement.conditions.n_ctx
    columns: Columns[Row] = [
        _NAME,
        ("Difference", lambda row: f"{row.gaps[KLD].difference:+.2g}"),
        ("95 % interval", lambda row: interval(row.gaps[KLD].low, row.gaps[KLD].high, "+.2g")),
        ("KLD ratio", lambda row: f"{row.kld_ratio:.3f}"),
        ("95 % interval", lambda row: interval(row.low, row.high, ".3f")),
        (f"KLD against {first}", lambda row: _finding(row, n_ctx)),
    ]
    notes = [
        f"Difference: KLD of this file less that of {first}. KLD ratio: that of {first} over this file's, below 1 where "
        f"{first} is better. Paired by chunk."
    ]
    return table_of(f"KLD against {first}", columns, rows[1:], notes)


def _finding(row: Row, n_ctx: int) -> str:
    gap = row.gaps[KLD]
    if gap.decided:
        return "higher" if gap.difference > 0 else "lower"
    if gap.needed is None:
        return "the same"
    return f"not significant; {gap.needed:,} chunks ({gap.needed * n_ctx:,} tokens) would decide"


def tasks_table(names: Sequence[str], scores: Sequence[Sequence[TaskScore]], rows: Sequence[Row] = ()) -> Table:
    """Percent solved by kind of task, and the average. ``rows``: marks what does not differ significantly from the first."""
    kinds = [score.task for score in scores[0]]
    cells = []
    for index, (name, solved) in enumerate(zip(names, scores, strict=True)):
        row = rows[index] if rows else None
        figures = [marked(row, score.task, score.score) for score in solved]
        against = [f"{row.gaps[AVERAGE].difference:+.2f}" if row.gaps else ""] if row else []
        cells.append((name, *figures, marked(row, AVERAGE, average(solved)), *against))
    counts = ", ".join(f"{score.task} {score.conditions.tasks}" for score in scores[0])
    notes = [f"Percent solved, llama-perplexity, --ctx {scores[0][0].conditions.n_ctx}; tasks: {counts}."]
    if any(row.alike(name) for row in rows for name in (*kinds, AVERAGE)):
        notes.append(
            f"≈: not significantly different from {names[0]} (p > 0.05): McNemar's exact test on the same tasks; for the "
            "average, the paired errors of its tasks."
        )
        notes += filter(None, (_tasks_needed(row, kinds) for row in rows))
    headings = ("File", *kinds, "Average", *([f"against {names[0]}"] if rows else []))
    return Table("Tasks", headings, tuple(cells), tuple(notes))


def _tasks_needed(row: Row, kinds: Sequence[str]) -> str:
    needed = [(kind, row.gaps[kind].needed) for kind in kinds if row.alike(kind)]
    words = ", ".join(f"{count:,} of {kind}" for kind, count in needed if count)
    return f"{row.name}: about as many tasks would make differences of this size significant: {words}." if words else ""


def speed_table(names: Sequence[str], measured: Sequence[Throughput], rows: Sequence[Row] = ()) -> Table:
    """Tokens per second by test, with standard errors over repetitions."""
    tests, where = [test.name for test in measured[0].tests], measured[0].conditions
    cells = [
        (name, *(marked(rows[index] if rows else None, test.name, test.speed) for test in speeds.tests))
        for index, (name, speeds) in enumerate(zip(names, measured, strict=True))
    ]
    layers = f", {where.gpu_layers} layers on the GPU" if where.gpu_layers else ""
    notes = [
        f"llama-bench, {where.processor}, {where.devices}, {where.threads} threads{layers}, llama.cpp {where.llama_cpp}, "
        f"{where.repetitions} repetitions."
    ]
    if any(row.alike(test) for row in rows for test in tests):
        notes.append(
            f"≈: not significantly different from {names[0]} (p > 0.05; Welch's interval, with 1 % for what differs from "
            "run to run)."
        )
    return Table("Tokens per second", ("File", *tests), tuple(cells), tuple(notes))


def marked(row: Row | None, name: str, figure: Estimate) -> str:
    """The figure with its error, after the mark where it does not differ significantly from the first row's."""
    return (ALIKE if row and row.alike(name) else "") + estimate(figure)
