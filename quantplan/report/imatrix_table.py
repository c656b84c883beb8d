"""The statistics of an imatrix as tables, JSON and CSV."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from quantplan.analyze.statistics import FIELDS, Field, LayerStatistics, Statistics, TensorStatistics
from quantplan.block_ranges import runs_text
from quantplan.imatrix import FEW_HITS
from quantplan.records.codec import finite
from quantplan.report.cells import fixed
from quantplan.report.table import Columns, Table, as_csv, table_of

NOTE = """\
Reading these numbers: compare only tensors of the same role. Sums grow with the gain of the norm before a
tensor, and CosSim is taken on raw sums. They describe the inputs alone, not the weights, nor what a
quantization would break: entropy, ZD and CosSim by themselves choose types poorly; `quantplan probe` measures
what counts.
token_embd never has data, output.weight only where the imatrix was made with --process-output."""


def tensor_table(tensors: Sequence[TensorStatistics]) -> Table:
    """One row a tensor, in the order given, with the tool's decimals."""
    columns: list[tuple[str, Any]] = [
        ("Layer", lambda tensor: "-" if tensor.layer is None else str(tensor.layer)),
        ("Tensor", lambda tensor: tensor.role),
        *(_column(name, field) for name, field in FIELDS.items()),
    ]
    if any(tensor.mean_input is not None for tensor in tensors):
        columns.append(("mean x", lambda tensor: fixed(tensor.mean_input, 4)))
        columns.append(("mean² %", lambda tensor: fixed(tensor.mean_share, 2)))
    return table_of(f"Inputs of {len(tensors)} tensors", columns, tensors, texts=(1,))


def _column(name: str, field: Field) -> tuple[str, Any]:
    return f"{field.title} {field.unit}".strip(), lambda tensor: fixed(getattr(tensor, name), field.decimals)


def layer_table(layers: Sequence[LayerStatistics]) -> Table:
    """One row a block: averages over its tensors, weighted with their columns."""
    columns: Columns[LayerStatistics] = (
        ("Layer", lambda layer: str(layer.layer)),
        ("μΣ(Act²)", lambda layer: fixed(layer.sum, 2)),
        ("μZD %", lambda layer: fixed(layer.zd, 4)),
        ("μCosSim", lambda layer: fixed(layer.cossim, 4)),
    )
    return table_of(f"Weighted averages of {len(layers)} layers", columns, layers, texts=())


def expert_table(tensors: Sequence[TensorStatistics]) -> Table:
    """The tensors with experts that no token of the calibration text was routed to, or few."""
    columns: Columns[TensorStatistics] = (
        ("Tensor", lambda tensor: tensor.name),
        ("Of", lambda tensor: str(tensor.experts)),
        ("Never", lambda tensor: str(len(tensor.unseen_experts))),
        ("Experts", lambda tensor: runs_text(tensor.unseen_experts)),
        ("Few", lambda tensor: str(len(tensor.rare_experts))),
        ("Experts", lambda tensor: runs_text(tensor.rare_experts)),
    )
    rare = [tensor for tensor in tensors if tensor.unseen_experts or tensor.rare_experts]
    return table_of(f"Experts never hit, and hit fewer than {FEW_HITS} times", columns, rare, texts=(0, 3, 5))


def document(statistics: Statistics, tensors: Sequence[TensorStatistics]) -> dict[str, Any]:
    """What ``--json`` prints; null is what is not defined or not in the file, percent fields are 0 to 100."""
    return {
        "file": str(statistics.path),
        "legacy": statistics.legacy,
        "tensors": [_plain(tensor) for tensor in tensors],
        "layers": [_plain(layer) for layer in statistics.layers],
        "without_data": list(statistics.without_data),
    }


def _plain(row: TensorStatistics | LayerStatistics) -> dict[str, Any]:
    return {name: finite(value) if isinstance(value, float) else value for name, value in asdict(row).items()}


def csv_text(tensors: Sequence[TensorStatistics]) -> str:
    """One line a tensor under a heading; empty cells are what is not defined or not in the file."""
    rows = [
        _plain(tensor) | {name: runs_text(getattr(tensor, name)) for name in ("unseen_experts", "rare_experts")}
        for tensor in tensors
    ]
    return as_csv(rows, [field.name for field in fields(TensorStatistics)])
