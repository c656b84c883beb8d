"""The frontier, alternatives and stability as tables, CSV and JSON."""

from collections.abc import Sequence

from quantplan.budget import human_bytes
from quantplan.planning.frontier import Alternative, Frontier, FrontierEntry
from quantplan.planning.stock_quants import StockQuant
from quantplan.report.cells import READ, per_token
from quantplan.report.table import Columns, Table, as_csv, table_of
from quantplan.solver.planner import Formulation
from quantplan.solver.stability import Stability

_PER = 100_000_000  # bytes that a price is given for
SHOWN = 20  # tensors named below the figures of stability


def frontier_table(frontier: Frontier) -> Table:
    """One row a budget; the knee is marked."""
    knee = None if frontier.knee is None else frontier.entries[frontier.knee]
    columns: Columns[FrontierEntry] = (
        ("budget", lambda entry: f"{entry.budget_bytes:,}"),
        ("file", lambda entry: f"{entry.file_bytes:,}"),
        ("bpw", lambda entry: f"{entry.bpw:.3f}"),
        (READ.lower(), lambda entry: per_token(entry.bytes_per_token)),
        ("expected KLD", _kld),
        (f"next {human_bytes(frontier.step_bytes)} saves", lambda entry: f"{entry.saved:.3g}"),
        ("changed", lambda entry: str(entry.changed)),
        ("", lambda entry: _remark(entry, entry is knee)),
    )
    return table_of("", columns, frontier.entries, texts=(7,))


def _remark(entry: FrontierEntry, knee: bool) -> str:
    words = ["knee"] if knee else []
    return ", ".join([*words, f"gap {entry.point.gap:.1e}"] if entry.point.gap > 1e-6 else words)


def stock_quants_table(stock_quants: Sequence[StockQuant]) -> Table:
    columns: Columns[StockQuant] = (
        ("stock quant", lambda stock: stock.name),
        ("file", lambda stock: f"{stock.file_bytes:,}"),
        ("bpw", lambda stock: f"{stock.bpw:.3f}"),
        (READ.lower(), lambda stock: per_token(stock.bytes_per_token)),
        ("expected KLD", _kld),
        ("plan of that size", lambda stock: "none so small" if stock.plan_kld is None else f"{stock.plan_kld:.5g}"),
        ("plan / stock", lambda stock: "" if stock.ratio is None else f"{stock.ratio:.3f}"),
    )
    return table_of("", columns, stock_quants)


def alternatives_table(alternatives: Sequence[Alternative]) -> Table:
    best = alternatives[0]
    least = best.solution.objective
    numbers = {id(plan): str(number) for number, plan in enumerate(alternatives, 1)}
    columns: Columns[Alternative] = (
        ("plan", lambda plan: numbers[id(plan)]),
        ("file", lambda plan: f"{plan.file_bytes:,}"),
        (READ.lower(), lambda plan: per_token(plan.bytes_per_token)),
        ("expected KLD", _kld),
        (
            "damage over best",
            lambda plan: f"{plan.solution.objective / least - 1 if least else 0.0:+.2e}",
        ),
        ("gap", lambda plan: f"{plan.solution.outcome.gap:.1e}"),
        ("differs in", lambda plan: "" if plan is best else str(len(plan.changed))),
    )
    return table_of("", columns, alternatives)


def stability_table(formulation: Formulation, choices: Sequence[int], stability: Stability) -> Table:
    """The tensors that change most often, and to what."""
    order = sorted(range(len(choices)), key=lambda at: -stability.frequency(at))
    groups = formulation.problem.groups
    columns: Columns[int] = (
        ("tensor", lambda at: groups[at].name),
        ("type", lambda at: groups[at].choices[choices[at]].label),
        ("changes in", lambda at: f"{stability.frequency(at):.0%}"),
        ("instead", lambda at: _instead(stability, at)),
    )
    return table_of("", columns, [at for at in order if stability.instead[at]][:SHOWN], texts=(0, 1, 3))


def _instead(stability: Stability, at: int) -> str:
    others = sorted(stability.instead[at].items(), key=lambda item: -item[1])
    return ", ".join(f"{label} {count / stability.draws:.0%}" for label, count in others)


def frontier_fields(frontier: Frontier) -> dict[str, object]:
    return {
        "step_bytes": frontier.step_bytes,
        "calibrated": frontier.calibrated,
        "points": [entry_fields(entry, at == frontier.knee) for at, entry in enumerate(frontier.entries)],
        "mixes": [
            {
                "name": stock.name,
                "file_bytes": stock.file_bytes,
                "bpw": stock.bpw,
                "bytes_per_token": stock.bytes_per_token,
                "predicted_kld": stock.kld,
                "predicted_kld_err": stock.kld_err,
                "plan_kld": stock.plan_kld,
                "ratio": stock.ratio,
            }
            for stock in frontier.stock_quants
        ],
    }


def entry_fields(entry: FrontierEntry, knee: bool) -> dict[str, object]:
    point = entry.point
    return {
        "budget_bytes": entry.budget_bytes,
        "file_bytes": entry.file_bytes,
        "bpw": entry.bpw,
        "bytes_per_token": entry.bytes_per_token,
        "predicted_kld": entry.kld,
        "predicted_kld_err": entry.kld_err,
        "damage": point.damage,
        "bound": point.bound,
        "gap": point.gap,
        "price_per_100_mb": point.price * _PER,
        "saved_by_next": entry.saved,
        "changed": entry.changed,
        "knee": knee,
    }


def frontier_csv(frontier: Frontier) -> str:
    """The points, a line each."""
    rows = [
        entry_fields(entry, at == frontier.knee) | {"knee": int(at == frontier.knee)}
        for at, entry in enumerate(frontier.entries)
    ]
    return as_csv(rows, list(rows[0]))


def _kld(file: FrontierEntry | StockQuant | Alternative) -> str:
    return f"{file.kld:.5g} ± {file.kld_err:.2g}"
