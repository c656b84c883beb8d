"""Imatrix collapse: where an input column is extreme, encoders that weight by importance spoil all other columns.

With columns ten orders of magnitude apart, the importance-weighted fits of Q4_K and Q5_K have 2 to 15 times the plain error of
the unweighted ones, Q2_K and Q3_K the same error (measured; 0.8 to 1.6 times for every type where columns differ as they usually
do). Types then spread their errors over the columns in different ways, and one swap cannot price all of them. Such tensors are
found here on sampled rows, without a forward pass.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.gguf.imatrix_need import needs_imatrix
from quantplan.gguf.reader import tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.progress import Reporter
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.records.cache import Cache, Plain
from quantplan.sensitivity.probe_types import LEAST_ERROR
from quantplan.tensor import Model, Tensor

VERSION = 2  # 2: how types spread their errors; 1: the plain error of weighted encodings
# plain error of the weighted encoding over that of the unweighted: 1.6 at most where columns are not extreme
SPOILT = 2.0
# how far the metrics disagree about two types: 1.03 in the median and 1.14 at most on the reference model; 1.3 and 4.7 on
# SmolLM2-135M with its legacy types, but for blocks with massive activations (16, 137); 5 to 11 with columns 1e4 times the others
SPREAD = 4.0
_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_ABSURD = 1e30  # squares of all weights that are looked at
_ROWS = 64


@dataclass(frozen=True)
class SampledErrors:
    """Relative squared errors of one type on sampled rows: of the weighted encoding, weighted by importance and plain, and of
    the unweighted encoding, plain; infinite where ggml has none.
    """

    weighted: float
    plain: float
    unweighted: float

    @property
    def share(self) -> float:
        """Weighted over plain error: below 1 where the columns that count are spared."""
        return max(self.weighted, 1e-12) / max(self.plain, 1e-12)


@dataclass(frozen=True)
class Suspect:
    """``kinds``: the two types whose weighted encodings spread their errors most unlike, of those whose errors cost anything.

    ``spoilt``: the worst ratio of plain errors, weighted encoding over unweighted; ``spread``: by what factor the two metrics
    disagree about how ``kinds`` compare.
    """

    kinds: tuple[QuantType, QuantType]
    spoilt: float
    spread: float

    @classmethod
    def of(cls, errors: Mapping[QuantType, SampledErrors]) -> "Suspect":
        costly = [kind for kind, each in errors.items() if each.weighted >= LEAST_ERROR] or list(errors)
        first, *_, last = sorted(costly, key=lambda kind: errors[kind].share) * 2
        spoilt = max(each.plain / max(each.unweighted, 1e-9) for each in errors.values())
        return cls((first, last), spoilt, errors[last].share / errors[first].share)

    def __bool__(self) -> bool:
        return self.spoilt > SPOILT or self.spread > SPREAD


def suspects(
    model: Model, tensors: Iterable[Tensor], imatrix: Imatrix, cache: Path | None = None
) -> dict[str, Suspect]:
    """By name the tensors for which one encoding and one swap may not do."""
    results: Cache[Any] = Cache(Plain(), cache, "collapse", VERSION, model.digest, imatrix.digest)
    found = {}
    for tensor in tensors:
        importance = imatrix.quantize_weights(tensor)
        if importance is None or tensor.type.family != "float":
            continue
        if tensor.name not in results:
            errors = sampled_errors(
                model, tensor, importance, {fitted(BY_NAME[name], tensor.columns) for name in _TYPES}
            )
            results.put(
                tensor.name, {kind.name: [each.weighted, each.plain, each.unweighted] for kind, each in errors.items()}
            )
        errors = {BY_NAME[name]: SampledErrors(*values) for name, values in results[tensor.name].items()}
        if errors and (suspect := Suspect.of(errors)):
            found[tensor.name] = suspect
    return found


def sampled_errors(
    model: Model, tensor: Tensor, importance: np.ndarray, kinds: Iterable[QuantType]
) -> dict[QuantType, SampledErrors]:
    """On rows from all over the tensor; nothing where its weights are absurd. ``importance``: float32 [experts, columns]."""
    rows = np.linspace(0, tensor.rows - 1, min(tensor.rows, _ROWS)).astype(int)
    weights, importance = tensor_rows(model, tensor, rows), importance.mean(axis=0, keepdims=True)
    if not float(np.vdot(weights, weights)) < _ABSURD:  # NaN too: refused by name where the errors are measured
        return {}
    return {kind: _errors(weights, kind, importance, needs_imatrix(tensor.name, kind)) for kind in kinds}


def _errors(weights: np.ndarray, kind: QuantType, importance: np.ndarray, needs_importance: bool) -> SampledErrors:
    weighted, unweighted = (
        ggml.dequantize(ggml.quantize(weights, kind, given), kind, weights.shape[1]) - weights
        for given in (importance, importance if needs_importance else None)
    )
    return SampledErrors(
        _relative(weighted, weights, importance),
        _relative(weighted, weights),
        math.inf if needs_importance else _relative(unweighted, weights),
    )


def _relative(difference: np.ndarray, weights: np.ndarray, importance: np.ndarray | None = None) -> float:
    factor = 1.0 if importance is None else np.sqrt(importance / importance.max())
    error, size = difference * factor, weights * factor
    return float(np.vdot(error, error)) / max(float(np.vdot(size, size)), 1e-30)


def untested(
    model: Model, tensors: Iterable[Tensor], imatrix: Imatrix, cache: Path | None, report: Reporter
) -> dict[str, Suspect]:
    """The suspects whose weighted encoding has the larger plain error, for estimates in which nothing can be swapped: they are
    encoded without importance. ``report`` is told of them.
    """
    found = {name: each for name, each in suspects(model, tensors, imatrix, cache).items() if each.spoilt > SPOILT}
    if found:
        shown = "; ".join(f"{name} ({each.spoilt:.1f} times the error)" for name, each in list(found.items())[:3])
        report.warn(
            f"{imatrix.path.name}: extreme columns spoil the encoding of {len(found)} tensors, which are encoded without "
            f"importance: {shown}{' and more' if len(found) > 3 else ''}"
        )
    return found
