"""The results of a model card: what was measured of its files, and under which conditions."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from quantplan.budget import human_bytes
from quantplan.comparison import KLD, PPL, Comparison, Row
from quantplan.measurement import Conditions, Estimate, Measurement
from quantplan.report.card_data import CardData
from quantplan.report.cells import UNKNOWN, estimate, interval
from quantplan.report.comparison_tables import ALIKE
from quantplan.report.further_tables import cache_table, suite_tables, tables_by_text
from quantplan.report.markdown import code, escaped, table
from quantplan.report.measurement_table import FIGURES, chunks_of
from quantplan.report.spikes import spike_lines
from quantplan.report.table import Table, as_card_section
from quantplan.task_score import TaskScore
from quantplan.throughput import SpeedConditions, Throughput


def results(data: CardData) -> list[str]:
    """Parts of Markdown; at least one, which then says that nothing was measured."""
    groups: dict[Conditions, list[tuple[str, Measurement]]] = {}
    for name, measurements in data.measured.items():
        for measurement in measurements:
            groups.setdefault(measurement.conditions, []).append((name, measurement))
    parts = [_measurements(conditions, rows) for conditions, rows in groups.items()]
    parts += map(_comparison, data.compared)
    parts += _tasks_and_speeds(data)
    parts += map(as_card_section, _tables(data, groups.values()))
    return parts or ["Nothing was measured: how much these files lose is not known."]


def _measurements(conditions: Conditions, rows: Sequence[tuple[str, Measurement]]) -> str:
    ordered = sorted(rows, key=lambda row: (row[1].file_bytes, row[0]))
    cells = [
        [code(name), human_bytes(measurement.file_bytes), *(cell(measurement) for _, cell in FIGURES)]
        for name, measurement in ordered
    ]
    base = ordered[0][1].base_ppl
    lines = [
        f"{chunks_of(conditions)}; {escaped(conditions.engine)}, {escaped(conditions.backend)}, llama.cpp "
        f"{escaped(conditions.llama_cpp)}; text {code(conditions.text_digest[:12])}."
        + (f" PPL of the unquantized model: {estimate(base)}." if base else ""),
        table(["File", "Size", *(heading for heading, _ in FIGURES)], cells),
        *(f"{code(name)}: {escaped(note)}" for name, measurement in ordered for note in measurement.notes),
        *(escaped(line) for name, measurement in ordered for line in spike_lines(name, measurement)),
    ]
    return "\n\n".join(lines)


def _tables(data: CardData, groups: Iterable[Sequence[tuple[str, Measurement]]]) -> list[Table]:
    """By text, of cache types, of suites."""
    by_text = tables_by_text([row for rows in groups for row in rows])
    scores = [replace(score, file=name) for name, several in data.suite_scores.items() for score in several]
    return [*by_text, *map(cache_table, data.caches), *suite_tables(scores, data.original_scores)]


# --- comparisons


def _comparison(comparison: Comparison) -> str:
    first, *others = comparison.rows
    conditions = chunks_of(first.measurement.conditions)
    parts = [f"{code(first.name)} against others on {conditions}; KLD ratio: its KLD over theirs."]
    rows = [[*_figures(first), "", "", ""], *([*_figures(row), *_against(row)] for row in others)]
    parts.append(table(["File", "Size", "PPL", "KLD", "KLD ratio", "95 % interval", "Remark"], rows, texts=(0, -1)))
    parts += _further(comparison.rows, "Solved, %", lambda row: {score.task: score.score for score in row.tasks})
    parts += _further(comparison.rows, "Tokens/s", _speeds)
    if any(row.alike(name) for row in others for name in row.gaps):
        parts.append(f"{ALIKE.strip()}: not significantly different from {code(first.name)} (p > 0.05).")
    return "\n\n".join([*parts, f"> {escaped(comparison.verdict)}"])


def _figures(row: Row) -> list[str]:
    measurement = row.measurement
    figures = [_marked(row, PPL, measurement.ppl), _marked(row, KLD, measurement.kld)]
    return [code(row.name), human_bytes(measurement.file_bytes), *figures]


def _against(row: Row) -> list[str]:
    remarks = ["larger"] if row.larger else []
    if KLD not in row.gaps:
        remarks.append("not comparable")
    elif not row.significant:
        remarks.append("not significant")
    return [_ratio(row.kld_ratio), interval(row.low, row.high, ".3f"), ", ".join(remarks)]


def _ratio(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.3f}"


def _marked(row: Row, figure: str, value: Estimate | None) -> str:
    return (ALIKE if value is not None and row.alike(figure) else "") + estimate(value)


def _speeds(row: Row) -> dict[str, Estimate]:
    return {test.name: test.speed for test in row.throughput.tests} if row.throughput else {}


def _further(rows: Iterable[Row], heading: str, figures: Callable[[Row], Mapping[str, Estimate]]) -> list[str]:
    """A table of further figures by name, where any row has them."""
    by_row = [(row, figures(row)) for row in rows]
    names = list(dict.fromkeys(name for _, values in by_row for name in values))
    cells = [[code(row.name), *(_marked(row, name, values.get(name)) for name in names)] for row, values in by_row]
    return [table([heading, *map(escaped, names)], cells)] if names else []


# --- tasks and speeds in records of their own


def _tasks_and_speeds(data: CardData) -> list[str]:
    scores = {
        name: {(score.task, score.conditions.tasks): score for score in several}
        for name, several in data.scores.items()
    }
    machines: dict[SpeedConditions, dict[str, Throughput]] = {}
    for name, several in data.speeds.items():
        for speeds in several:
            machines.setdefault(speeds.conditions, {})[name] = speeds
    tables = [_throughput(conditions, measured) for conditions, measured in machines.items()]
    return [*([_scores(scores)] if scores else []), *tables]


def _scores(scores: Mapping[str, Mapping[tuple[str, int], TaskScore]]) -> str:
    columns = list(dict.fromkeys(column for by_column in scores.values() for column in by_column))
    cells = [
        [code(name), *(estimate(by_column[key].score) if key in by_column else UNKNOWN for key in columns)]
        for name, by_column in scores.items()
    ]
    return table(["Solved, %", *(f"{escaped(task)} ({count} tasks)" for task, count in columns)], cells)


def _throughput(conditions: SpeedConditions, measured: Mapping[str, Throughput]) -> str:
    names = list(dict.fromkeys(test.name for speeds in measured.values() for test in speeds.tests))
    by_file = {name: {test.name: test.speed for test in speeds.tests} for name, speeds in measured.items()}
    cells = [[code(name), *(estimate(speeds.get(test)) for test in names)] for name, speeds in by_file.items()]
    machine = f"{conditions.processor}, {conditions.devices}, {conditions.threads} threads"
    return f"{escaped(machine)}:\n\n{table(['Tokens/s', *map(escaped, names)], cells)}"
