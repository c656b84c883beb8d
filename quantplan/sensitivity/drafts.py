"""Blocks that only predict further tokens (MTP, ``nextn``): what their types are chosen by.

A forward pass does not run them, so they have no part in the KLD of a file: what their rounding costs is drafts that are not
accepted, that is speed. The tools that llama-cpp-python installs draft nothing, so that is not measured. The rule instead: such
a tensor is decided as if it cost what the tensor of the same role costs in the last block that runs; what only these blocks have
is taken for what it is in the model: a table of embeddings, an output matrix, else the most expensive matrix of that block. These
costs guide the solver and are in no expected KLD.
"""

from collections.abc import Iterator
from dataclasses import replace

from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor

_ALSO_OUTSIDE = {"nextn.shared_head_head": "output.weight", "nextn.embed_tokens": "token_embd.weight"}


def stands_for(model: Model, table: SensitivityTable) -> dict[str, str]:
    """Tensor that only predicts further tokens -> the tensor whose costs its type is chosen by."""
    found = {}
    for tensor in model.tensors:
        if tensor.name in table.rows and model.drafts(tensor):
            known = next((name for name in _counterparts(model, tensor, table) if name in table.rows), None)
            if known is not None:
                found[tensor.name] = known
    return found


def _counterparts(model: Model, tensor: Tensor, table: SensitivityTable) -> Iterator[str]:
    """The best first."""
    suffix = tensor.name.rpartition(f".{tensor.role}")[2]
    for block in reversed(range(model.main_blocks)):
        yield f"blk.{block}.{tensor.role}{suffix}"
    outside = _ALSO_OUTSIDE.get(tensor.role)
    if outside is not None:
        yield outside
        yield "token_embd.weight"  # tied
    rows = [table.rows[each.name] for each in model.tensors if each.name in table.rows and model.runs(each)]
    in_blocks = [row for row in rows if model.by_name[row.tensor].block is not None]
    last = max((model.by_name[row.tensor].block or 0 for row in in_blocks), default=None)
    yield from sorted(
        (row.tensor for row in in_blocks if model.by_name[row.tensor].block == last),
        key=lambda name: -max(table.rows[name].weights.values(), default=0.0),
    )


def with_draft_costs(table: SensitivityTable, model: Model) -> SensitivityTable:
    """The table as the solver takes it: tensors that only predict further tokens have the costs of others, with stock rounding.
    For prediction the table itself counts.
    """
    others = stands_for(model, table)
    if not others:
        return table
    rows = {name: _priced_as(table.rows[name], table.rows[other]) for name, other in others.items()}
    return replace(table, rows=table.rows | rows)


def _priced_as(row: SensitivityRow, other: SensitivityRow) -> SensitivityRow:
    costs = {name: other.stock.get(name, cost) for name, cost in other.weights.items()}
    weights = {name: costs.get(name, cost) for name, cost in row.weights.items()}
    kernel = {name: value for name, value in other.kernel.items() if name in weights}
    source = f"not run; as {other.tensor}"
    error, domains = other.relative_error, other.domains
    return replace(row, weights=weights, kernel=kernel, source=source, relative_error=error, domains=domains)
