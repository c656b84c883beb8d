"""Imatrix collapse: where an input column is extreme, encoders that weight by importance spoil all other columns.

With columns ten orders of magnitude apart, the importance-weighted fits of Q4_K and Q5_K have 2 to 15 times the plain error of
the unweighted ones, Q2_K and Q3_K the same error (measured; 0.8 to 1.6 times for every type where columns differ as they usually
do): one swap does not price all types then. Such tensors are found on sampled rows and swapped in both encodings; where the
encoding without importance loses less, the tensor's imatrix data are left out from then on.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.gguf.reader import tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import text_digest
from quantplan.sensitivity.tensor_swap import ProbeOptions, Swap, TensorSwapper
from quantplan.tensor import Model, Tensor
from quantplan.text import Text

VERSION = 1
# plain error of the weighted encoding over that of the unweighted: 1.6 at most where columns are not extreme
SUSPECT = 2.0
_TYPES = ("Q4_K", "Q5_K", "Q6_K")
_ABSURD = 1e30  # squares of all weights that are looked at
_ROWS = 64


def suspects(
    model: Model, tensors: Iterable[Tensor], imatrix: Imatrix, cache: Path | None = None
) -> dict[str, tuple[QuantType, float]]:
    """By tensor the type whose weighted encoding has the worst plain error against the unweighted, and their ratio; only those
    above SUSPECT.
    """
    results: Cache[Any] = Cache(Plain(), cache, "collapse", VERSION, model.digest, imatrix.digest)
    found = {}
    for tensor in tensors:
        importance = imatrix.quantize_weights(tensor)
        if importance is None or tensor.type.family != "float":
            continue
        if tensor.name not in results:
            kind, ratio = _worst(model, tensor, importance.mean(axis=0, keepdims=True))
            results.put(tensor.name, [kind.name, ratio])
        name, ratio = results[tensor.name]
        if ratio > SUSPECT:
            found[tensor.name] = BY_NAME[name], ratio
    return found


def _worst(model: Model, tensor: Tensor, importance: np.ndarray) -> tuple[QuantType, float]:
    rows = np.linspace(0, tensor.rows - 1, min(tensor.rows, _ROWS)).astype(int)
    weights = tensor_rows(model, tensor, rows)
    kinds = dict.fromkeys(fitted(BY_NAME[name], tensor.columns) for name in _TYPES)
    if not float(np.vdot(weights, weights)) < _ABSURD:  # NaN too: refused by name where the errors are measured
        return next(iter(kinds)), 0.0
    ratios = {kind: _error(weights, kind, importance) / max(_error(weights, kind, None), 1e-9) for kind in kinds}
    worst = max(ratios, key=lambda kind: ratios[kind])
    return worst, ratios[worst]


def _error(weights: np.ndarray, kind: QuantType, importance: np.ndarray | None) -> float:
    """Relative squared error, all columns alike."""
    difference = ggml.dequantize(ggml.quantize(weights, kind, importance), kind, weights.shape[1]) - weights
    return float(np.vdot(difference, difference)) / max(float(np.vdot(weights, weights)), 1e-30)


def without_importance(
    model: Model,
    tensors: Iterable[Tensor],
    imatrix: Imatrix,
    text: Text | None,
    options: ProbeOptions,
    cache: Path,
    report: Reporter = SILENT,
) -> Imatrix:
    """The imatrix without the data of tensors that it spoils: of all suspects where nothing can be swapped, else of those whose
    swap without importance has the lower KLD. ``report`` is told of each.
    """
    found = suspects(model, tensors, imatrix, cache)
    if not found:
        return imatrix
    if text is None or options.execution.rpc:  # a server that goes away would end this process
        left_out = {name: f"{ratio:.1f} times the error" for name, (_, ratio) in found.items()}
    else:
        klds = _both(model, {name: kind for name, (kind, _) in found.items()}, imatrix, text, options, cache)
        left_out = {name: f"KLD {kld:.3g}, {plain:.3g} without" for name, (kld, plain) in klds.items() if plain < kld}
    if left_out:
        shown = "; ".join(f"{name} ({why})" for name, why in list(left_out.items())[:3])
        report.warn(
            f"{imatrix.path.name}: extreme columns spoil the encoding of {len(left_out)} tensors, which are encoded without "
            f"importance: {shown}{' and more' if len(left_out) > 3 else ''}"
        )
    return imatrix.without(left_out)


def _both(
    model: Model, kinds: dict[str, QuantType], imatrix: Imatrix, text: Text, options: ProbeOptions, cache: Path
) -> dict[str, tuple[float, float]]:
    """By tensor the KLD of its swap with and without importance; 0 for one that takes no part in a forward pass."""
    made_from = (VERSION, model.digest, imatrix.digest, text_digest(text), options.n_ctx)
    results: Cache[Any] = Cache(Plain(), cache, "importance", *made_from)
    missing = [name for name in kinds if name not in results]
    if missing:
        klds: dict[str, list[float]] = {name: [] for name in missing}
        for given in (imatrix, imatrix.without(missing)):
            with TensorSwapper(model, given, text, replace(options, moments=None)) as swapper:
                survey = swapper.survey(missing)
                for name in missing:
                    swap = Swap(name, (name,), kinds[name].name, 0, options.base_chunks(survey.chunks))
                    kld = np.mean(swapper.run(swap).klds) if name in survey.reachable else 0.0
                    klds[name].append(float(kld))
        for name in missing:
            results.put(name, klds[name])
    return {name: tuple(results[name]) for name in kinds}
