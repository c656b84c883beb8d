"""Models and imatrices that exist in memory only: for what looks at headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from quantplan.gguf.writer import metadata_bytes
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.quant_type import BY_NAME
from quantplan.tensor import Model, Tensor, padded


def model_of(
    shapes: Mapping[str, tuple[int, ...]], kind: str = "F16", blocks: int = 2, file_bytes: int | None = None
) -> Model:
    """A model of tensors by name and shape (row length first), all stored as ``kind``; there is no file."""
    tensors = tuple(Tensor(name, shape, BY_NAME[kind]) for name, shape in shapes.items())
    size = sum(tensor.bytes for tensor in tensors) if file_bytes is None else file_bytes
    return Model((Path("model.gguf"),), "qwen3", "model", blocks, tensors, size, "digest-of-model")


def imatrix_of(sums: Mapping[str, np.ndarray], counts: Mapping[str, list[int]] | None = None) -> Imatrix:
    """An imatrix of sums of squares [matrices, columns]; counts are 10 where not given."""
    entries = {}
    for name, values in sums.items():
        seen = (counts or {}).get(name, [10] * len(values))
        entries[name] = ImatrixEntry(name, np.asarray(values, np.float32), np.array(seen, np.int64))
    return Imatrix(Path("model.imatrix"), entries, ("text.txt",), 10, 512, False, "digest-of-imatrix")


def quantized_bytes(model, types, note):
    """Size of the file that llama-quantize builds, ``types``: of the tensors that change."""
    data = sum(padded(tensor.bytes_as(types.get(tensor.name, tensor.type))) for tensor in model.tensors)
    return data + metadata_bytes(model, note)
