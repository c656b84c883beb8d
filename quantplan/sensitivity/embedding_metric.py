"""The metric of token embeddings that are looked up: nothing is multiplied with them, so they have no second moments.

An embedding x goes into the first block as G x / rms(x), G the gains of its norm. An error D of the row moves the outputs of
each matrix W_j that reads it by W_j G D / rms(x). Weighted by what a relative error of each output costs (s_j, prior.py),

    M = sum_j s_j G W_j^T W_j G / tr(W_j H_j W_j^T)

takes the place of H: D M D^T is proportional to the KLD that the error costs in the first matrices. Those of the same block
that read it after something was added to it are left out: they see an embedding diluted by an unknown amount.
"""

from pathlib import Path

import numpy as np

from quantplan.gguf.reader import tensor_rows
from quantplan.rounding.feedback import row_energies
from quantplan.sensitivity import moment_files, prior
from quantplan.sensitivity.matrix_inputs import MatrixInput
from quantplan.tensor import Model, Tensor

EMBEDDINGS = "token_embd.weight"
_NORM = "blk.0.attn_norm.weight"


def with_embeddings(model: Model, inputs: tuple[MatrixInput, ...]) -> tuple[MatrixInput, ...]:
    """The inputs of a graph, and a last one for the embeddings where they are looked up, normalized and then multiplied."""
    embeddings, norm = model.by_name.get(EMBEDDINGS), model.by_name.get(_NORM)
    first = inputs[0]
    if (
        embeddings is None
        or norm is None
        or any(EMBEDDINGS in each.tensors for each in inputs)
        or "token_embd_norm.weight" in model.by_name
        or first.stack > 1
        or first.columns != embeddings.columns
        or not all(name.startswith("blk.0.") for name in first.tensors)
    ):
        return inputs
    return (*inputs, MatrixInput((EMBEDDINGS,), embeddings.columns, 1, False, 0.0))


def readers(inputs: tuple[MatrixInput, ...], wanted: frozenset[str]) -> frozenset[str]:
    """The matrices whose second moments the metric of the embeddings needs, if it is ``wanted``."""
    return frozenset(inputs[0].tensors if inputs[-1].looked_up and EMBEDDINGS in wanted else ())


def write_embedding_metric(model: Model, folder: Path, inputs: tuple[MatrixInput, ...], wanted: frozenset[str]) -> None:
    """Writes M beside the second moments, unless it is there, or nobody needs it. BadFile, NoSpace."""
    path = moment_files.sums_path(folder, len(inputs) - 1, 0, True)
    if not readers(inputs, wanted) or path.exists():
        return
    stored = moment_files.read_sums(moment_files.sums_path(folder, 0, 0, True))
    assert stored.matrix is not None  # the file of a full sum
    gains = tensor_rows(model, model.by_name[_NORM]).reshape(-1)
    metric = np.zeros_like(stored.matrix)
    for name in inputs[0].tensors:
        _add_reader(metric, model, model.by_name[name], gains, stored.matrix)
    moment_files.write_sums(path, 1, metric.diagonal(), metric)


def _add_reader(metric: np.ndarray, model: Model, reader: Tensor, gains: np.ndarray, sums: np.ndarray) -> None:
    """``metric``, ``sums``: float32 [columns, columns], the second moments up to a factor; ``gains``: float32 [columns]."""
    weights = tensor_rows(model, reader)
    energy = float(row_energies(np.ascontiguousarray(weights.T), sums).sum())
    if energy > 0:
        weights *= gains
        metric += np.float32(prior.scale(model, reader) / energy) * (weights.T @ weights)
