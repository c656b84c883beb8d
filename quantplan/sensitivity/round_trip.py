"""What rounding does to weights: the error of every (tensor, type) by a real trip through ggml and back.

    e(t, q) = sum_ij w_j (W - Q)_ij^2 / sum_ij w_j W_ij^2        w_j = E[x_j^2] from the imatrix, per expert

the relative energy of the output error when inputs are uncorrelated (the diagonal of E[xx'] is all that a stock
imatrix knows). The encoder is ggml's own, with the weights and importance that llama-quantize would use.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from quantplan.errors import BadFile
from quantplan.execution import cores
from quantplan.gguf.imatrix_need import needs_imatrix
from quantplan.gguf.reader import tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType, fitted
from quantplan.tensor import Model, Tensor

_ABSURD = 1e20  # of a mean squared weight: bfloat16 may hold more, no model does
VERSION = 3  # 3: sums of zero are no data; 2: experts with few hits are weighted mostly by the mean of all; 1: first
_CHUNK_ELEMENTS = (
    256 * 1024
)  # rows of 1 MiB in float32 per job: memory is a few of them per thread, whatever the tensor


@dataclass(frozen=True)
class RoundTrip:
    """Relative squared error of one tensor by type, and the standard error that sampling rows leaves in it."""

    tensor: str
    errors: dict[str, float]
    sampling_errors: dict[str, float]
    rows: int  # rows that were measured


def stored_candidates(tensor: Tensor, types: Iterable[QuantType], has_importance: bool) -> tuple[QuantType, ...]:
    """The types in which llama-quantize can store the tensor, given the types wanted; largest first.

    Shapes that do not fit take their fallback; types that need an imatrix drop out where the tensor has no data in it; types
    larger than the source's own would add bytes and nothing else. The type of a quantized tensor is always among them, and so
    is a float type where one of its size is wanted: a lossless copy. Source: ``tensor_requires_imatrix`` and
    ``tensor_type_fallback`` in llama-quant.cpp; ggml itself refuses IQ1_S, IQ2_XXS and IQ2_XS without importance even for
    the embeddings, which the former exempts.
    """
    found: dict[str, QuantType] = {}
    for wanted in types:
        kind = fitted(wanted, tensor.columns)
        if not has_importance and needs_imatrix(tensor.name, kind):
            continue
        if tensor.bytes_as(kind) <= tensor.bytes:
            found[kind.name] = kind
    own = tensor.type
    if own.for_weights and (own.family != "float" or any(kind.bits == own.bits for kind in found.values())):
        found[own.name] = own
    return tuple(sorted(found.values(), key=lambda kind: (-kind.bits, kind.name)))


def round_trips(
    model: Model,
    wanted: Iterable[tuple[Tensor, tuple[QuantType, ...]]],
    imatrix: Imatrix | None,
    sample_elements: int | None = None,
    threads: int = 0,
) -> Iterator[RoundTrip]:
    """Measures each tensor in the types given with it, in that order, on all cores.

    ``sample_elements``: about how many weights of a tensor to measure, rows being drawn at even steps from a seeded start;
    None measures all. A type that cannot hold the weights (F16 ends at 65504) is left out of the errors. Raises BadFile
    naming a tensor with NaN or infinite weights.
    """
    workers = threads or cores()
    with _cancelling(ThreadPoolExecutor(workers, thread_name_prefix="round-trip")) as pool:
        pending: deque[tuple[Tensor, list[Future[_Sums]]]] = deque()
        in_flight = 0
        for tensor, types in wanted:
            jobs = [pool.submit(job) for job in _jobs(model, tensor, types, imatrix, sample_elements)]
            pending.append((tensor, jobs))
            in_flight += len(jobs)
            while pending and (in_flight > 8 * workers or pending[0][1][-1].done()):
                in_flight -= len(pending[0][1])
                yield _joined(*pending.popleft())
        while pending:
            yield _joined(*pending.popleft())


@contextmanager
def _cancelling(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """The pool; what has not begun when an error or Ctrl-C comes is dropped, a large tensor's jobs take minutes."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Sums:
    """Per measured row: weighted energy of the weights, and of the error for each type."""

    energy: np.ndarray
    errors: dict[str, np.ndarray]
    population: int


def _jobs(
    model: Model, tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None, sample: int | None
) -> Iterator[Callable[[], _Sums]]:
    importance = imatrix.quantize_weights(tensor) if imatrix else None
    weighting = imatrix.error_weights(tensor) if importance is not None and imatrix else None
    per_expert = tensor.rows // tensor.experts
    step = max(1, _CHUNK_ELEMENTS // tensor.columns)
    for expert in range(tensor.experts):
        rows = sampled_rows(per_expert, tensor, sample) + expert * per_expert
        own = None if importance is None else importance[expert : expert + 1]
        weights = np.ones(tensor.columns, np.float32) if weighting is None else weighting[expert]
        for start in range(0, len(rows), step):
            yield _job(model, tensor, types, rows[start : start + step], own, weights)


def sampled_rows(per_expert: int, tensor: Tensor, sample: int | None) -> np.ndarray:
    share = 1.0 if sample is None else sample / tensor.elements
    return spread(per_expert, max(min(per_expert, 16), math.ceil(per_expert * share)), tensor.name)


def spread(size: int, count: int, name: str) -> np.ndarray:
    """intp [count]: that many of ``range(size)``, or all, at even steps from a start that is seeded by the name's length."""
    if count >= size:
        return np.arange(size)
    start = np.random.default_rng(len(name)).random() * size / count
    return np.minimum((start + np.arange(count) * size / count).astype(int), size - 1)


def _job(
    model: Model,
    tensor: Tensor,
    types: tuple[QuantType, ...],
    rows: np.ndarray,
    importance: np.ndarray | None,
    weighting: np.ndarray,
) -> Callable[[], _Sums]:
    def work() -> _Sums:
        whole = rows[-1] - rows[0] + 1 == len(rows)
        weights = tensor_rows(model, tensor, slice(rows[0], rows[-1] + 1) if whole else rows)
        energy = np.einsum("ij,ij,j->i", weights, weights, weighting, dtype=np.float64, casting="same_kind")
        if not (
            energy <= _ABSURD * float(weighting.sum(dtype=np.float64))
        ).all():  # ggml ends the process for such weights
            raise BadFile(
                f"{model.path}: {tensor.name} has NaN or infinite weights, or absurdly large ones; convert the model again"
            )
        errors = {}
        for kind in types:
            if kind is tensor.type:  # llama-quantize copies it as it stands
                errors[kind.name] = np.zeros(len(rows))
                continue
            back = ggml.dequantize(ggml.quantize(weights, kind, importance), kind, tensor.columns)
            back -= weights
            np.multiply(back, back, out=back)
            errors[kind.name] = (back @ weighting).astype(np.float64)
        return _Sums(energy, errors, tensor.rows)

    return work


def _joined(tensor: Tensor, jobs: list[Future[_Sums]]) -> RoundTrip:
    parts = [job.result() for job in jobs]
    energy = np.concatenate([part.energy for part in parts])
    errors, sampling = {}, {}
    for name in parts[0].errors:
        error = np.concatenate([part.errors[name] for part in parts])
        if not np.isfinite(error).all():
            continue
        errors[name], sampling[name] = ratio_of_sums(error, energy, tensor.rows)
    return RoundTrip(tensor.name, errors, sampling, len(energy))


def ratio_of_sums(error: np.ndarray, energy: np.ndarray, population: int) -> tuple[float, float]:
    """sum(error)/sum(energy) and its standard error when the rows are a sample of ``population`` (ratio estimator)."""
    total = float(energy.sum())
    if total <= 0:  # a tensor of zeros loses nothing
        return 0.0, 0.0
    ratio = float(error.sum()) / total
    count = len(energy)
    if count >= population or count < 2:
        return ratio, 0.0
    residual = error - ratio * energy
    return ratio, math.sqrt((1 - count / population) * count / (count - 1) * float((residual**2).sum())) / total
