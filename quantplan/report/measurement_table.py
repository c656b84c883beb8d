"""Measurements as a table. Nothing is computed here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantplan.measurement import Estimate, Measurement

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN = "-"


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    """One row a file, each figure with its standard error."""
    conditions = measurements[0].conditions
    where = f"{conditions.engine}, {conditions.backend}"
    table = _table(f"{conditions.chunks} windows of {conditions.n_ctx} tokens, {where}")
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
            each.file,
            f"{each.file_bytes:,}",
            f"{each.bpw:.3f}",
            estimate(each.ppl),
            estimate(each.ln_ppl_ratio),
            estimate(each.kld),
            number(each.kld_median),
            number(each.kld_percentiles[99.0]),
            estimate(each.rms_dp),
            estimate(each.same_top),
        )
    return table


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left")


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
