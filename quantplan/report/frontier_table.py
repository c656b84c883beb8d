"""The frontier, alternatives and stability as tables and CSV. Nothing is computed here."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantplan.budget import human_bytes
from quantplan.planning.frontier import Alternative, Frontier, FrontierEntry, StockQuant
from quantplan.records.files import replacing
from quantplan.solve.planner import Formulation
from quantplan.solve.stability import Stability

if TYPE_CHECKING:
    from rich.table import Table

_PER = 100_000_000  # bytes that a price is given for
_CSV = (
    "budget_bytes",
    "file_bytes",
    "bpw",
    "predicted_kld",
    "predicted_kld_err",
    "damage",
    "bound",
    "gap",
    "price_per_100_mb",
    "saved_by_next",
    "changed",
    "knee",
)
SHOWN = 20  # tensors named below the figures of stability


def frontier_table(found: Frontier) -> Table:
    """One row a budget; the knee is marked."""
    table = _table(
        "budget", "file", "bpw", "expected KLD", f"next {human_bytes(found.step_bytes)} saves", "changed", ""
    )
    for at, each in enumerate(found.entries):
        table.add_row(
            f"{each.budget_bytes:,}",
            f"{each.file_bytes:,}",
            f"{each.bpw:.3f}",
            _kld(each.kld, each.kld_err),
            f"{each.saved:.3g}",
            str(each.changed),
            _remark(each, at == found.knee),
        )
    return table


def _remark(entry: FrontierEntry, knee: bool) -> str:
    words = ["knee"] if knee else []
    return ", ".join([*words, f"gap {entry.point.gap:.1e}"] if entry.point.gap > 1e-6 else words)


def stock_quants_table(stock_quants: Sequence[StockQuant]) -> Table:
    table = _table("stock mix", "file", "bpw", "expected KLD", "plan of that size", "plan / mix")
    for each in stock_quants:
        table.add_row(
            each.name,
            f"{each.file_bytes:,}",
            f"{each.bpw:.3f}",
            _kld(each.kld, each.kld_err),
            "none so small" if each.plan_kld is None else f"{each.plan_kld:.5g}",
            "" if each.ratio is None else f"{each.ratio:.3f}",
        )
    return table


def alternatives_table(found: Sequence[Alternative]) -> Table:
    table = _table("plan", "file", "expected KLD", "damage over best", "gap", "differs in")
    best = found[0].solution.outcome.objective
    for number, each in enumerate(found, 1):
        outcome = each.solution.outcome
        more = outcome.objective / best - 1 if best else 0.0
        table.add_row(
            str(number),
            f"{each.file_bytes:,}",
            _kld(each.kld, each.kld_err),
            f"{more:+.2e}",
            f"{outcome.gap:.1e}",
            str(len(each.changed)) if number > 1 else "",
        )
    return table


def stability_table(formulation: Formulation, choices: Sequence[int], found: Stability) -> Table:
    """The tensors that change most often, and to what."""
    table = _table("tensor", "type", "changes in", "instead")
    order = sorted(range(len(choices)), key=lambda at: -found.frequency(at))
    for at in [at for at in order if found.instead[at]][:SHOWN]:
        group = formulation.problem.groups[at]
        others = sorted(found.instead[at].items(), key=lambda each: -each[1])
        words = ", ".join(f"{label} {count / found.draws:.0%}" for label, count in others)
        table.add_row(group.name, group.choices[choices[at]].label, f"{found.frequency(at):.0%}", words)
    return table


def frontier_fields(found: Frontier) -> dict[str, object]:
    return {
        "step_bytes": found.step_bytes,
        "calibrated": found.calibrated,
        "points": [entry_fields(each, at == found.knee) for at, each in enumerate(found.entries)],
        "mixes": [
            {
                "name": each.name,
                "file_bytes": each.file_bytes,
                "bpw": each.bpw,
                "predicted_kld": each.kld,
                "predicted_kld_err": each.kld_err,
                "plan_kld": each.plan_kld,
                "ratio": each.ratio,
            }
            for each in found.stock_quants
        ],
    }


def entry_fields(entry: FrontierEntry, knee: bool) -> dict[str, object]:
    point = entry.point
    values = (
        entry.budget_bytes,
        entry.file_bytes,
        entry.bpw,
        entry.kld,
        entry.kld_err,
        point.damage,
        point.bound,
        point.gap,
        point.price * _PER,
        entry.saved,
        entry.changed,
        knee,
    )
    return dict(zip(_CSV, values, strict=True))


def write_csv(found: Frontier, path: Path) -> None:
    with replacing(path) as file:
        writer = csv.DictWriter(file, _CSV, lineterminator="\n")
        writer.writeheader()
        for at, each in enumerate(found.entries):
            writer.writerow(entry_fields(each, at == found.knee) | {"knee": int(at == found.knee)})


def _kld(value: float, error: float) -> str:
    return f"{value:.5g} ± {error:.2g}"


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for at, heading in enumerate(headings):
        left = heading in ("", "instead", "type") or (at == 0 and heading != "budget")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "instead")
    return table
