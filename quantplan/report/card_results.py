"""The results of a model card: what was measured of its files, and under which conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from quantplan.budget import human_bytes
from quantplan.measurement import Conditions, Estimate, Measurement
from quantplan.report.card_data import CardData, ComparedFiles, ComparedRow
from quantplan.report.cells import UNKNOWN, estimate, number
from quantplan.report.markdown import code, escaped, table
from quantplan.task_score import TaskScore
from quantplan.throughput import SpeedConditions, Throughput

ALIKE = "≈ "  # before a figure whose difference from the first file's is inside the noise


def results(found: CardData) -> list[str]:
    """Parts of Markdown; at least one, which then says that nothing was measured."""
    groups: dict[Conditions, list[tuple[str, Measurement]]] = {}
    for name, each in ((name, each) for name, several in found.measured.items() for each in several):
        groups.setdefault(each.conditions, []).append((name, each))
    parts = [_measurements(conditions, rows) for conditions, rows in groups.items()]
    parts += [_comparison(each) for each in found.compared]
    parts += _alone(found)
    return parts or ["Nothing was measured: how much these files lose is not known."]


def chunks_of(conditions: Conditions) -> str:
    return f"{conditions.chunks} windows of {conditions.n_ctx} tokens"


def _measurements(conditions: Conditions, rows: Sequence[tuple[str, Measurement]]) -> str:
    headings = ["File", "Size", "bpw", "PPL", "ln(PPL/base)", "KLD", "KLD 99 %", "RMS Δp, %", "Same top, %"]
    ordered = sorted(rows, key=lambda row: (row[1].file_bytes, row[0]))
    cells = [
        [
            code(name),
            human_bytes(each.file_bytes),
            f"{each.bpw:.3f}",
            estimate(each.ppl),
            estimate(each.ln_ppl_ratio),
            estimate(each.kld),
            number(each.kld_percentiles[99.0]),
            estimate(each.rms_dp),
            estimate(each.same_top),
        ]
        for name, each in ordered
    ]
    base = ordered[0][1].base_ppl
    lines = [
        f"{chunks_of(conditions).capitalize()}; {escaped(conditions.engine)}, {escaped(conditions.backend)}, llama.cpp "
        f"{escaped(conditions.llama_cpp)}; text {code(conditions.text_digest[:12])}."
        + (f" PPL of the unquantized model: {estimate(base)}." if base else ""),
        table(headings, cells),
        *(f"{code(name)}: {escaped(note)}" for name, each in ordered for note in each.notes),
    ]
    return "\n\n".join(lines)


# --- comparisons


def _comparison(found: ComparedFiles) -> str:
    first = found.rows[0]
    conditions = chunks_of(first.measurement.conditions)
    parts = [f"{code(first.name)} against others on {conditions}; KLD ratio: its KLD over theirs."]
    rows = [_compared(row, row is first) for row in found.rows]
    parts.append(table(["File", "Size", "PPL", "KLD", "KLD ratio", "95 % interval", "Remark"], rows, texts=(0, -1)))
    parts += _figures(found.rows, "Solved, %", lambda row: {each.task: each.score for each in row.tasks})
    parts += _figures(found.rows, "Tokens/s", _speeds)
    if any(row.alike for row in found.rows):
        parts.append(f"{ALIKE.strip()}: the difference from {code(first.name)} is inside the noise.")
    return "\n\n".join([*parts, f"> {escaped(found.verdict)}"])


def _compared(row: ComparedRow, first: bool) -> list[str]:
    each = row.measurement
    figures = [_marked(row, "ppl", each.ppl), _marked(row, "kld", each.kld)]
    if first:
        return [code(row.name), human_bytes(each.file_bytes), *figures, "", "", ""]
    remarks = (["larger"] if row.larger else []) + ([] if row.significant else ["inside the noise"])
    ratio = [_ratio(row.kld_ratio), f"{_ratio(row.low)} to {_ratio(row.high)}"]
    return [code(row.name), human_bytes(each.file_bytes), *figures, *ratio, ", ".join(remarks)]


def _ratio(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3f}"


def _marked(row: ComparedRow, figure: str, value: Estimate | None) -> str:
    return (ALIKE if value is not None and figure in row.alike else "") + estimate(value)


def _speeds(row: ComparedRow) -> dict[str, Estimate]:
    return {each.name: each.speed for each in row.throughput.tests} if row.throughput else {}


def _figures(
    rows: Iterable[ComparedRow], heading: str, figures: Callable[[ComparedRow], Mapping[str, Estimate]]
) -> list[str]:
    """A table of further figures by name, where any row has them."""
    found = [(row, figures(row)) for row in rows]
    names = list(dict.fromkeys(name for _, values in found for name in values))
    cells = [[code(row.name), *(_marked(row, name, values.get(name)) for name in names)] for row, values in found]
    return [table([heading, *map(escaped, names)], cells)] if names else []


# --- tasks and speeds that stand in records of their own


def _alone(found: CardData) -> list[str]:
    scores = {name: {(each.task, each.conditions.tasks): each for each in of} for name, of in found.scores.items()}
    parts = [_scores(scores)] if scores else []
    machines: dict[SpeedConditions, dict[str, Throughput]] = {}
    for name, each in ((name, each) for name, several in found.speeds.items() for each in several):
        machines.setdefault(each.conditions, {})[name] = each
    return parts + [_throughput(conditions, measured) for conditions, measured in machines.items()]


def _scores(scores: Mapping[str, Mapping[tuple[str, int], TaskScore]]) -> str:
    columns = list(dict.fromkeys(column for of in scores.values() for column in of))
    cells = [
        [code(name), *(estimate(of[column].score) if column in of else UNKNOWN for column in columns)]
        for name, of in scores.items()
    ]
    return table(["Solved, %", *(f"{escaped(task)} ({count} tasks)" for task, count in columns)], cells)


def _throughput(conditions: SpeedConditions, measured: Mapping[str, Throughput]) -> str:
    names = list(dict.fromkeys(test.name for each in measured.values() for test in each.tests))
    speeds = {name: {test.name: test.speed for test in each.tests} for name, each in measured.items()}
    cells = [[code(name), *(estimate(of.get(test)) for test in names)] for name, of in speeds.items()]
    machine = f"{conditions.processor}, {conditions.devices}, {conditions.threads} threads"
    return f"{escaped(machine)}:\n\n{table(['Tokens/s', *map(escaped, names)], cells)}"
