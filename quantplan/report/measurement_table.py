"""Measurements and comparisons as tables. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantplan.comparison import Comparison, Row
from quantplan.measurement import Estimate, Measurement

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN = "-"


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    """One row a file, each figure with its standard error."""
    conditions = measurements[0].conditions
    where = f"{conditions.engine}, {conditions.backend}"
    table = _table(f"{conditions.windows} windows of {conditions.n_ctx} tokens, {where}")
    table.add_column("File", overflow="fold", min_width=16)
    for heading in (
        "Bytes",
        "bpw",
        "PPL",
        "ln(PPL/base)",
        "KLD",
        "KLD median",
        "KLD 99 %",
        "RMS Δp %",
        "Same top %",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in measurements:
        table.add_row(
            each.file, f"{each.file_bytes:,}", f"{each.bpw:.3f}", estimate(each.ppl),
            estimate(each.ln_ppl_ratio), estimate(each.kld),
            number(each.kld_median), number(each.kld_percentiles[99.0]), estimate(each.rms_dp),
            estimate(each.same_top),
        )  # fmt: skip
    return table


def comparison_table(comparison: Comparison) -> Table:
    """The plan and the others, with the ratio of their KLDs and its interval."""
    table = _table("KLD ratio: the plan's KLD over this file's, below 1 where the plan is better")
    table.add_column("File", overflow="fold", min_width=16)
    headings = ("Bytes", "bpw", "PPL", "KLD", "KLD ratio", "95 % interval", "RMS Δp %", "Same top %")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for index, row in enumerate(comparison.rows):
        each = row.measurement
        table.add_row(
            row.name, f"{each.file_bytes:,}", f"{each.bpw:.3f}", estimate(each.ppl), estimate(each.kld),
            f"{row.kld_ratio:.3f}", f"{row.low:.3f} .. {row.high:.3f}" if index else "",
            estimate(each.rms_dp), estimate(each.same_top), _remark(row) if index else "the plan",
        )  # fmt: skip
    return table


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left")


def _remark(row: Row) -> str:
    remarks = ["larger"] if row.larger else []
    if not row.told_apart:
        remarks.append("inside the noise")
    return ", ".join(remarks)


def estimate(figure: Estimate | None) -> str:
    """``0.00849 ± 0.00025``: as many decimals as give the error two digits."""
    if figure is None:
        return UNKNOWN
    if figure.stderr is None:
        return number(figure.value)
    if figure.stderr == 0:
        return f"{number(figure.value)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(figure.stderr)))
    return f"{figure.value:.{decimals}f} ± {figure.stderr:.{decimals}f}"


def number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"
