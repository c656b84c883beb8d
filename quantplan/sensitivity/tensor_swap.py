"""One swap at a time in a loaded model: rounded weights in the place of a tensor's own, KLD against the untouched model."""

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantplan.errors import BadUsage, QuantplanError
from quantplan.execution import Execution
from quantplan.gguf.reader import tensor_bytes, tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.llamacpp.engine import Engine, chunks_per_batch
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import BaseRows, base_rows, divergence
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.moment_metric import MomentMetric, of_estimate
from quantplan.sensitivity.probe_text import LEAST_CHUNKS, least_chunks, spread
from quantplan.sensitivity.probe_types import LEAST_ERROR, MOST_ERROR, probe_types
from quantplan.tensor import Model, Tensor
from quantplan.text import Domains, Text

# 2048 tokens suffice for a model: plans from 2 and from 64 chunks of 256 tokens differ by 1 to 4 % in evaluation KLD
DEFAULT_TOKENS = 2048
LOGIT_BYTES = 2 << 30  # of untouched logits kept in memory: 13 chunks of 512 tokens with a vocabulary of 150,000
PROBE, LOUD, NUDGE = "probe", "loud", "nudge"  # kinds of a swap besides the names of types
_NOISE = (5e-3, 2e-2, 8e-2)  # relative squared errors of a disturbance, where no type has an error between these
_SAMPLED_ROWS = 64  # that tell a type's error within a few percent


@dataclass(frozen=True)
class ProbeOptions:
    """``chunks`` 0: as many as make ``DEFAULT_TOKENS`` tokens; ``extend``: more chunks where the error decides.

    ``level``: also all tensors at once, which tells how single KLDs add up; without it some tensors may be probed alone.
    ``domains``: texts that are probed together, each with its share of the chunks.

    ``moments``: folder of the second moments in whose metric errors are taken and rounding is compensated; None: ggml's
    encoder, errors weighted by the imatrix.
    """

    n_ctx: int
    chunks: int = 0
    extend: bool = True
    execution: Execution = Execution()
    moments: Path | None = None
    level: bool = True
    domains: int = 1

    def on(self, text: Text) -> "ProbeOptions":
        """For this text."""
        return replace(self, domains=len(text.parts) if isinstance(text, Domains) else 1)

    def base_chunks(self, available: int) -> int:
        """Chunks per tensor: as many as asked for, else whole batches; of each domain the fewest, no more than the text has."""
        least = max(LEAST_CHUNKS, least_chunks(self.domains, self.n_ctx, self.chunks))
        if self.chunks:
            return min(max(self.chunks, least), available)
        wanted, batch = max(4, DEFAULT_TOKENS // self.n_ctx, least), chunks_per_batch(self.n_ctx)
        return min(-(-wanted // batch) * batch, available)


@dataclass(frozen=True)
class Swap:
    """The unit of a probe's work: weights of ``tensors`` changed at once, chunks start..stop run, weights put back.

    ``kind``: the name of a type, PROBE for the change that suits the tensor, LOUD for the largest such,
    NUDGE for its last bits. ``start`` is a multiple of the engine's batch. ``key``: its key in the cache.
    """

    key: str
    tensors: tuple[str, ...]
    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class Swapped:
    """Relative squared errors by tensor as they landed in memory, mean KLD per token by chunk, and the time it took."""

    errors: dict[str, float]
    klds: list[float]
    seconds: float
    forward_seconds: float
    forward_passes: int


@dataclass(frozen=True)
class Survey:
    """What has to be known before swaps can be chosen; ``reachable``: tensors that take part in a forward pass.

    ``domains``: of each chunk the text it is of, where there are several.
    """

    reachable: frozenset[str]
    chunks: int
    vocabulary: int
    domains: tuple[str, ...] = ()


class TensorSwapper:
    """The loaded model, its untouched logits, and one swap at a time. Use as a context manager."""

    def __init__(self, model: Model, imatrix: Imatrix | None, text: Text, options: ProbeOptions) -> None:
        if model.header_only:
            raise BadUsage(
                f"{model.path} holds a header without weights: nothing to probe; use --sensitivity FILE or --sensitivity prior"
            )
        self.model, self.imatrix, self.options = model, imatrix, options
        self._metric: MomentMetric | None = None
        if options.moments:
            rounding = of_estimate(options.execution.threads)
            self._metric = MomentMetric(model, CollectedMoments(options.moments), rounding)
        self.engine = Engine(model, EngineOptions(options.n_ctx, options.execution, swappable=True))
        try:
            self.chunks, self.domains = spread(self.engine.domain_chunks(text))
        except QuantplanError:
            self.engine.close()
            raise
        self._base: list[BaseRows] = []
        self._found: set[str] = set()
        self._errors: dict[str, dict[QuantType, float]] = {}  # of sampled rows, by tensor and type to probe with
        self.forward_seconds, self.forward_passes = 0.0, 0

    def __enter__(self) -> "TensorSwapper":
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def find(self, tensors: Iterable[Tensor]) -> set[str]:
        """Names of those that can be swapped."""
        found = self.engine.find_weights({tensor.name for tensor in tensors})
        self._found |= found
        return found

    def survey(self, names: Iterable[str]) -> Survey:
        found = self.find(self.model.tensors)
        return Survey(frozenset(found & set(names)), len(self.chunks), self.engine.vocabulary, self.domains)

    def run(self, swap: Swap) -> Swapped:
        """The weights are the original ones before and after."""
        if not self._found.issuperset(swap.tensors):  # another process may have made the survey
            self.find(self.model.tensors)
        self.take_base(swap.stop)
        began, forward, passes = time.perf_counter(), self.forward_seconds, self.forward_passes
        tensors = [self.model.by_name[name] for name in swap.tensors]
        try:
            errors = {tensor.name: self._change(tensor, swap.kind) for tensor in tensors}
            changed = any(errors.values())  # nothing changes a tensor of zeros
            klds = self.chunk_klds(swap.start, swap.stop).tolist() if changed else [0.0] * (swap.stop - swap.start)
        finally:
            for tensor in tensors:
                self.restore(tensor)
        taken = time.perf_counter() - began
        return Swapped(errors, klds, taken, self.forward_seconds - forward, self.forward_passes - passes)

    def _change(self, tensor: Tensor, kind: str) -> float:
        if kind == NUDGE:
            return self.nudge(tensor)
        if kind in (PROBE, LOUD):
            chosen = self.probe_type(tensor, loud=kind == LOUD)
            return self.swap(tensor, chosen) if chosen else self.disturb(tensor)
        return self.swap(tensor, fitted(BY_NAME[kind], tensor.columns))

    def chunk_klds(self, start: int, stop: int) -> np.ndarray:
        """float64 [chunks]: mean KLD per token of chunks start..stop of the model as it is now in memory.

        ``start`` is a multiple of the engine's batch; the untouched logits up to ``stop`` must have been taken before any swap.
        """
        size, out = self.engine.chunks_per_batch, []
        batches = self.engine.logits(self.chunks[start:stop])
        for index in range(start // size, -(-stop // size)):
            began = time.perf_counter()
            logits = next(batches)
            self.forward_seconds += time.perf_counter() - began
            self.forward_passes += 1
            out.append(divergence(self._base[index], logits).reshape(len(logits), -1).mean(axis=1))
        klds = np.concatenate(out)
        if not np.isfinite(klds).all():
            raise QuantplanError("the model gives NaN logits with rounded weights; is the model file corrupt?")
        return klds

    def take_base(self, chunks: int) -> None:
        """Keeps the untouched logits of the first ``chunks`` chunks, in the batches in which a swap's are computed."""
        size, scored = self.engine.chunks_per_batch, self.options.n_ctx - self.engine.first_scored - 1
        held = [len(rows.log_sum) // scored for rows in self._base]
        needed = [min(size, chunks - start) for start in range(0, chunks, size)]
        if held[: len(needed)] != needed[: len(held)]:  # the last batch was, or is to be, a part of one
            del self._base[len(os.path.commonprefix([held, needed])) :]
        done = len(self._base) * size
        for logits in self.engine.logits(self.chunks[done:chunks]):
            self._base.append(base_rows(logits))
            if not np.isfinite(self._base[-1].log_sum).all():
                raise QuantplanError(f"{self.model.path}: the model gives NaN or infinite logits; is the file corrupt?")

    def swap(self, tensor: Tensor, kind: QuantType) -> float:
        """Puts the tensor rounded to ``kind`` in memory; returns the relative squared error that it now has."""
        original = tensor_rows(self.model, tensor)
        if self._metric and tensor.name in self._metric:
            return self._place(tensor, original, self._metric.rounded(tensor, original, kind))
        importance = self.imatrix.quantize_weights(tensor) if self.imatrix else None
        if importance is None and ggml.aborts_without_imatrix(kind):
            raise ValueError(f"{kind} cannot be probed without an imatrix")
        rounded = ggml.dequantize(ggml.quantize(original, kind, importance), kind, tensor.columns)
        return self._place(tensor, original, rounded)

    def probe_type(self, tensor: Tensor, loud: bool = False) -> QuantType | None:
        """The first of ``probe_types`` whose error on the tensor's weights lies between LEAST_ERROR and MOST_ERROR, or the one
        with the largest error that does; None where no type's does.
        """
        if tensor.name not in self._errors:
            self._errors[tensor.name] = dict(self._sampled_errors(tensor))
        fit = {kind: error for kind, error in self._errors[tensor.name].items() if LEAST_ERROR <= error <= MOST_ERROR}
        return max(fit, key=lambda kind: fit[kind], default=None) if loud else next(iter(fit), None)

    def _sampled_errors(self, tensor: Tensor) -> Iterator[tuple[QuantType, float]]:
        """Relative squared errors of ggml's encoder, as they land in memory, on rows from all over the tensor."""
        stored = self.engine.stored_type(tensor.name)
        rows = np.linspace(0, tensor.rows - 1, min(tensor.rows, _SAMPLED_ROWS)).astype(int)
        weights, importance = tensor_rows(self.model, tensor, rows), self._mean_importance(tensor)
        for kind in probe_types(stored, tensor.columns):
            rounded = ggml.dequantize(ggml.quantize(weights, kind, importance), kind, tensor.columns)
            landed = ggml.dequantize(ggml.quantize(rounded, stored, importance), stored, tensor.columns)
            yield kind, relative_error(weights, landed, importance)

    def _mean_importance(self, tensor: Tensor) -> np.ndarray | None:
        """float32 [1, columns]: mean over the experts."""
        importance = self.imatrix.quantize_weights(tensor) if self.imatrix else None
        return None if importance is None else importance.mean(axis=0, keepdims=True)

    def disturb(self, tensor: Tensor) -> float:
        """Adds noise like a rounding error, normal in proportion to each block of 32; returns the relative squared error."""
        original = tensor_rows(self.model, tensor)
        error = 0.0
        for wanted in _NOISE:
            random = np.random.default_rng(0).standard_normal(original.shape, np.float32)
            error = self._place(tensor, original, original + math.sqrt(wanted) * _local_size(original) * random)
            if error >= LEAST_ERROR:  # the grid of a quantized model in memory may swallow little noise
                break
        return error

    def nudge(self, tensor: Tensor) -> float:
        """Moves every weight by about the last bit of half precision; returns the relative squared error."""
        original = tensor_rows(self.model, tensor)
        random = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), original.shape)
        return self._place(tensor, original, original * (1 + random * np.float32(2**-11)))

    def _place(self, tensor: Tensor, original: np.ndarray, changed: np.ndarray) -> float:
        stored = self.engine.stored_type(tensor.name)
        importance = self.imatrix.quantize_weights(tensor) if self.imatrix else None
        encoded = ggml.quantize(changed, stored, importance)
        self.engine.put(tensor.name, encoded)
        landed = ggml.dequantize(encoded, stored, tensor.columns)
        if self._metric and tensor.name in self._metric:
            return self._metric.relative_error(tensor, original, landed)
        return relative_error(original, landed, self.imatrix.error_weights(tensor) if self.imatrix else None)

    def restore(self, tensor: Tensor) -> None:
        self.engine.put(tensor.name, tensor_bytes(self.model, tensor))


def relative_error(weights: np.ndarray, changed: np.ndarray, importance: np.ndarray | None) -> float:
    """e of round_trip.py for whole tensors; ``importance``: float32 [experts, columns] or None for ones."""
    difference = changed - weights
    if importance is None:
        return float(np.vdot(difference, difference)) / max(float(np.vdot(weights, weights)), 1e-30)
    experts, columns = importance.shape
    per_column = np.einsum("erc,erc->ec", *(2 * [difference.reshape(experts, -1, columns)]))
    energy = np.einsum("erc,erc->ec", *(2 * [weights.reshape(experts, -1, columns)]))
    return float((per_column * importance).sum()) / max(float((energy * importance).sum()), 1e-30)


def _local_size(weights: np.ndarray) -> np.ndarray:
    """float32 [rows, columns]: root mean square of each weight's block of 32; of its row where rows do not divide into blocks."""
    rows, columns = weights.shape
    blocks = weights.reshape(rows, -1, 32 if columns % 32 == 0 else columns)
    size = np.sqrt((blocks**2).mean(axis=2, keepdims=True))
    return np.broadcast_to(size, blocks.shape).reshape(rows, columns)


def affordable(chunks: int, options: ProbeOptions, survey: Survey) -> int:
    """``chunks`` in whole batches, or fewer where the text or the memory for their logits ends."""
    scored = options.n_ctx - options.n_ctx // 2
    room, batch = LOGIT_BYTES // (4 * scored * survey.vocabulary), chunks_per_batch(options.n_ctx)
    return min(max(1, min(chunks, room) // batch) * batch, survey.chunks)
