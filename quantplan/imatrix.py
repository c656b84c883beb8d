"""The importance matrix: mean squared input of each column of each matrix, over a calibration text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantplan.errors import ModelMismatch
from quantplan.tensor import Model, Tensor


@dataclass(frozen=True)
class ImatrixEntry:
    """Raw sums for one tensor.

    ``sum2``: float32 [matrices, columns], sum of x_j^2; ``counts``: int64 [matrices or 1], tokens seen by each
    expert (dense tensors: one); ``sum1``: float32 like sum2, sum of x_j, where the file carries it.
    In the legacy format sums are scaled to ``counts`` = number of chunks; the ratio is what means something.
    """

    name: str
    sum2: np.ndarray
    counts: np.ndarray
    sum1: np.ndarray | None = None

    @property
    def unseen(self) -> np.ndarray:
        """bool [matrices]: experts that no token was routed to. Invisible in legacy files."""
        return np.broadcast_to(self.counts == 0, (self.sum2.shape[0],))

    def mean_square(self) -> np.ndarray:
        """float32 [matrices, columns]: E[x_j^2]; NaN for experts never hit, never a made-up value."""
        counts = self.counts.astype(np.float32).reshape(-1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, self.sum2 / counts, np.float32("nan")).astype(np.float32)


@dataclass(frozen=True)
class Imatrix:
    """All entries of an imatrix file by tensor name. A tensor that is not in it has no data."""

    path: Path
    entries: dict[str, ImatrixEntry]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int  # tokens per chunk; 0 where the legacy format does not tell
    legacy: bool
    digest: str

    def quantize_weights(self, tensor: Tensor) -> np.ndarray | None:
        """float32 [experts, columns] as llama-quantize would use them, or None where it would use none.

        Source: ``load_imatrix`` in tools/quantize/quantize.cpp: experts without hits get weights of one.
        """
        entry = self.entries.get(tensor.name)
        if entry is None or entry.sum2.size != tensor.columns * tensor.experts:
            return None
        means = entry.mean_square().reshape(tensor.experts, tensor.columns)
        return np.nan_to_num(means, nan=1.0)

    def error_weights(self, tensor: Tensor) -> np.ndarray | None:
        """float32 [experts, columns] for judging errors: experts without hits take the mean of those with."""
        entry = self.entries.get(tensor.name)
        if entry is None:
            return None
        means = entry.mean_square().reshape(tensor.experts, tensor.columns)
        unseen = np.isnan(means).any(axis=1)
        if unseen.all():
            return None
        means[unseen] = means[~unseen].mean(axis=0)
        return means

    def check_belongs_to(self, model: Model) -> None:
        """ModelMismatch naming the first tensor that differs, unless the imatrix was made from such a model."""
        for name, entry in self.entries.items():
            tensor = model.by_name.get(name)
            if tensor is None:
                raise ModelMismatch(
                    f"{self.path}: the imatrix has an entry for {name}, the model {model.path.name} has no such tensor: "
                    "it was made from another model; make one with `quantplan imatrix`"
                )
            if entry.sum2.size != tensor.columns * tensor.experts:
                raise ModelMismatch(
                    f"{self.path}: the imatrix has {entry.sum2.size} values for {name}, the model {model.path.name} has "
                    f"{tensor.experts} x {tensor.columns}: it was made from another model; make one with `quantplan imatrix`"
                )
        if not any(tensor.name in self.entries for tensor in model.tensors):
            raise ModelMismatch(f"{self.path}: none of its entries is a tensor of {model.path.name}")
