"""The statistics of an imatrix as tables, JSON and CSV. Nothing is computed here."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from quantplan.analyze.statistics import FIELDS, LayerStatistics, Statistics, TensorStatistics
from quantplan.imatrix import FEW_HITS
from quantplan.records.codec import finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

NOTE = """\
Reading these numbers: compare only tensors of the same role. Sums grow with the gain of the norm before a
tensor, and CosSim is taken on raw sums. They describe the inputs alone, not the weights, nor what a
quantization would break: entropy, ZD and CosSim by themselves choose types poorly; `quantplan probe` measures
what counts.
token_embd never has data, output.weight only where the imatrix was made with --process-output."""

_LAYER_DECIMALS = {"sum": 2, "zd": 4, "cossim": 4}


def tensor_table(tensors: Sequence[TensorStatistics]) -> Table:
    """One row a tensor, in the order given, with the tool's decimals."""
    from rich.table import Table

    table = Table(title=f"Inputs of {len(tensors)} tensors", title_justify="left")
    table.add_column("Layer", justify="right")
    table.add_column("Tensor", no_wrap=True)
    for field in FIELDS.values():
        table.add_column(f"{field.title} {field.unit}".strip(), justify="right", no_wrap=True)
    with_mean = any(each.mean_input is not None for each in tensors)
    for heading in ("mean x", "mean² %") if with_mean else ():
        table.add_column(heading, justify="right", no_wrap=True)
    for each in tensors:
        cells = [number(getattr(each, name), field.decimals) for name, field in FIELDS.items()]
        means = [number(each.mean_input, 4), number(each.mean_share, 2)] if with_mean else []
        table.add_row("-" if each.layer is None else str(each.layer), each.role, *cells, *means)
    return table


def layer_table(layers: Sequence[LayerStatistics]) -> Table:
    """One row a block: averages over its tensors, weighted with their columns."""
    from rich.table import Table

    table = Table(title=f"Weighted averages of {len(layers)} layers", title_justify="left")
    for heading in ("Layer", "μΣ(Act²)", "μZD %", "μCosSim"):
        table.add_column(heading, justify="right")
    for each in layers:
        table.add_row(
            str(each.layer),
            *(number(getattr(each, name), digits) for name, digits in _LAYER_DECIMALS.items()),
        )
    return table


def expert_table(tensors: Sequence[TensorStatistics]) -> Table:
    """The tensors with experts that no token of the calibration text was routed to, or few."""
    from rich.table import Table

    table = Table(title=f"Experts never hit, and hit fewer than {FEW_HITS} times", title_justify="left")
    for heading, justify in (
        ("Tensor", "left"),
        ("Of", "right"),
        ("Never", "right"),
        ("Experts", "left"),
        ("Few", "right"),
        ("Experts", "left"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for each in tensors:
        if each.unseen_experts or each.rare_experts:
            lists = (each.unseen_experts, each.rare_experts)
            cells = [cell for numbers in lists for cell in (str(len(numbers)), ranges(numbers))]
            table.add_row(each.name, str(each.experts), *cells)
    return table


def number(value: float | None, decimals: int) -> str:
    """A dash for what is not defined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers with runs drawn together: ``0-3 7 9-10``."""
    runs: list[list[int]] = []
    for each in numbers:
        if runs and each == runs[-1][1] + 1:
            runs[-1][1] = each
        else:
            runs.append([each, each])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def document(statistics: Statistics, tensors: Sequence[TensorStatistics]) -> dict[str, Any]:
    """What ``--json`` prints; null is what is not defined or not in the file, percent fields are 0 to 100."""
    return {
        "file": str(statistics.path),
        "legacy": statistics.legacy,
        "tensors": [_plain(each) for each in tensors],
        "layers": [_plain(each) for each in statistics.layers],
        "without_data": list(statistics.without_data),
    }


def _plain(row: TensorStatistics | LayerStatistics) -> dict[str, Any]:
    return {name: finite(value) if isinstance(value, float) else value for name, value in asdict(row).items()}


def csv_text(tensors: Sequence[TensorStatistics]) -> str:
    """One line a tensor under a heading; empty cells are what is not defined or not in the file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [field.name for field in fields(TensorStatistics)], lineterminator="\n")
    writer.writeheader()
    for each in tensors:
        lists = {name: ranges(getattr(each, name)) for name in ("unseen_experts", "rare_experts")}
        writer.writerow(_plain(each) | lists)
    return out.getvalue()
