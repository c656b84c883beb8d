"""The data of an edited model's tensors: bytes of the original for copies, encoded sums for blended and scaled ones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from quantplan.errors import BadUsage
from quantplan.gguf.reader import tensor_bytes, tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.surgery.edited_tensors import EditedTensor
from quantplan.surgery.follow import followed_entry
from quantplan.tensor import Model, Tensor

PIECE_WEIGHTS = 1 << 26  # 256 MB of float32: experts of large models do not fit into memory at once


def check_encodable(tensors: Sequence[EditedTensor], imatrix: Imatrix | None = None) -> None:
    """BadUsage naming the tensor, unless every tensor that must be encoded can be: some types need imatrix data."""
    for tensor in tensors:
        if tensor.copied:
            continue
        if not tensor.type.for_weights:
            raise BadUsage(f"{tensor.name}: {tensor.type} cannot be encoded; blend the unquantized model instead")
        if ggml.aborts_without_imatrix(tensor.type) and _importance(tensor, imatrix) is None:
            raise BadUsage(
                f"{tensor.name}: {tensor.type} cannot be encoded without imatrix data: give an --imatrix that has the tensor, "
                "or blend the unquantized model"
            )


def tensor_pieces(model: Model, tensor: EditedTensor, imatrix: Imatrix | None = None) -> Iterator[np.ndarray]:
    """uint8 [rows, row bytes], piece by piece: the source's bytes for a copy (mapped, read only), else the weighted sum of the
    sources' weights encoded as ``tensor.type``. ``imatrix``: the original's.
    """
    if tensor.copied:
        yield tensor_bytes(model, tensor.first)
        return
    importance = _importance(tensor, imatrix)
    for rows in _row_ranges(tensor.first):
        total = np.zeros((1, 1), np.float32)
        for source, factor in tensor.sources:
            total = total + tensor_rows(model, source, rows) * np.float32(factor)
        yield ggml.quantize(total, tensor.type, _importance_of_rows(importance, tensor.first, rows))


def tensor_data(model: Model, tensor: EditedTensor, imatrix: Imatrix | None = None) -> np.ndarray:
    """uint8 [rows, row bytes]: the whole tensor as it is stored."""
    pieces = list(tensor_pieces(model, tensor, imatrix))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _importance(tensor: EditedTensor, imatrix: Imatrix | None) -> np.ndarray | None:
    """float32 [experts, columns]: weights of the new tensor's inputs, from the original's imatrix (``followed_entry``)."""
    if imatrix is None or tensor.type.family == "float":
        return None
    entry = followed_entry(tensor, imatrix)
    return replace(imatrix, entries={tensor.first.name: entry}).quantize_weights(tensor.first) if entry else None


def _importance_of_rows(importance: np.ndarray | None, tensor: Tensor, rows: slice) -> np.ndarray | None:
    """float32 [1, columns]: of the expert that the rows belong to."""
    if importance is None:
        return None
    expert = rows.start // (tensor.rows // len(importance))
    return importance[expert : expert + 1]


def _row_ranges(tensor: Tensor) -> Iterator[slice]:
    """Rows that are computed together, never of two experts: each expert has importance of its own."""
    step = max(1, PIECE_WEIGHTS // tensor.columns)
    per_expert = tensor.rows // tensor.experts
    for first in range(0, tensor.rows, per_expert):
        for start in range(first, first + per_expert, step):
            yield slice(start, min(start + step, first + per_expert))
