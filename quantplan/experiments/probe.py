"""The probe: how many nats of KL divergence one unit of a tensor's relative error costs, measured in the loaded model.

For each tensor: quantize it (with the imatrix), put the rounded weights in its place in memory, run the calibration
windows, take the KLD against the untouched logits, put the original back. The ratio of KLD to error is constant
over four orders of magnitude, so one probe prices every type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from quantplan.analyze.scoring import BaseRows, base_rows, divergence
from quantplan.errors import BadUsage, QuantplanError
from quantplan.experiments.cache import Journal
from quantplan.formats.gguf import tensor_bytes, tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.llamacpp.engine import Engine, EngineOptions, windows_per_batch
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.tensor import Model, Tensor

VERSION = 3  # 3: errors of experts with few hits; 2: uniform swaps by window, on more text; 1: first
# 2048 tokens price a model: plans from 2 and from 64 windows of 256 tokens differ by 1 to 4 % in held-out KLD
DEFAULT_TOKENS = 2048
_EXTEND_ABOVE = 0.05  # a relative standard error that is worth more windows, where the tensor matters
_EXTEND_FACTOR = 4
_UNIFORM = ("Q2_K", "Q3_K", "Q4_K")
# Scales need few windows because they only rank; the level of a prediction is that of the text, so the few
# swaps of everything at once run on more of it: 18 % standard error at 2k tokens, 4 % at 16k on the reference model
_LEVEL_TOKENS = 16384
_LOGIT_BYTES = 2 << 30  # of untouched logits kept in memory: 13 windows of 512 tokens with a vocabulary of 150,000
_BOOTSTRAPS = 500

Tell = Callable[[str, float, float], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True)
class ProbeOptions:
    """``windows`` 0: as many as make ``DEFAULT_TOKENS`` tokens; ``extend``: more windows where the error decides."""

    n_ctx: int
    windows: int = 0
    extend: bool = True
    threads: int = 0
    gpu_layers: int = 0

    def base_windows(self, available: int) -> int:
        """Windows per tensor: whole batches, as many as asked for, no more than the text has."""
        batch = windows_per_batch(self.n_ctx)
        wanted = self.windows or max(4, DEFAULT_TOKENS // self.n_ctx)
        return min(-(-wanted // batch) * batch, available)


@dataclass(frozen=True)
class Scale:
    """Nats per token per unit of relative squared error; ``error``: that of the swap, as it stood in memory."""

    tensor: str
    kld: float
    error: float
    value: float
    stderr: float
    windows: int


@dataclass
class Probe:
    """What a probe found. ``overhead``: time beside the forward passes over the time of the passes themselves."""

    scales: dict[str, Scale] = field(default_factory=dict)
    uniform: dict[str, dict] = field(
        default_factory=dict
    )  # type -> {"klds" by window, "errors" by tensor}, all swapped at once
    floor: float = 0.0  # KLD that a change of the last bit makes: rounding noise of the forward pass
    not_found: tuple[str, ...] = ()
    overhead: float | None = None
    forward_passes: int = 0
    seconds: float = 0.0


def window_order(count: int) -> np.ndarray:
    """Indices of ``count`` windows so that every beginning of the order is spread over the whole text.

    Van der Corput sequence: more windows only add to those that were used before.
    """
    bits = max(1, (count - 1).bit_length())
    reversed_bits = np.array([int(f"{index:0{bits}b}"[::-1], 2) for index in range(1 << bits)])
    return reversed_bits[reversed_bits < count]


def bootstrap_error(values: np.ndarray, seed: int = 0) -> float:
    """Standard error of the mean of window values by resampling windows, widened by n/(n-1) for few windows."""
    count = len(values)
    if count < 2:
        return float("nan")
    draws = np.random.default_rng(seed).integers(0, count, (_BOOTSTRAPS, count))
    return float(values[draws].mean(axis=1).std() * np.sqrt(count / (count - 1)))


def probe_type(stored: QuantType, columns: int) -> QuantType:
    """The type to probe with: clearly below the stored one, so that its error stands out from re-encoding."""
    wanted = "Q4_K" if stored.bits > 5 else "Q3_K" if stored.bits > 4 else "Q2_K"
    return fitted(BY_NAME[wanted], columns)


class Prober:
    """The loaded model, its untouched logits, and one swap at a time. Use as a context manager."""

    def __init__(self, model: Model, imatrix: Imatrix | None, text: str, options: ProbeOptions) -> None:
        if model.header_only:
            raise BadUsage(
                f"{model.path} holds a header without weights: nothing to probe; use --damage FILE or --damage prior"
            )
        self.model, self.imatrix, self.options = model, imatrix, options
        self.engine = Engine(
            model.path, EngineOptions(options.n_ctx, options.threads, options.gpu_layers, swappable=True)
        )
        try:
            windows = self.engine.windows(text)
        except QuantplanError:
            self.engine.close()
            raise
        self.windows = windows[window_order(len(windows))]
        self._base: list[BaseRows] = []
        self.forward_seconds, self.forward_passes = 0.0, 0

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def find(self, tensors: Iterable[Tensor]) -> set[str]:
        return self.engine.find_weights({tensor.name for tensor in tensors})

    def window_klds(self, start: int, stop: int) -> np.ndarray:
        """float64 [windows]: mean KLD per token of windows start..stop of the model as it is now in memory.

        ``start`` is a multiple of the engine's batch; the untouched logits must have been taken before any swap.
        """
        size, out = self.engine.windows_per_batch, []
        batches = self.engine.logits(self.windows[start:stop])
        for index in range(start // size, -(-stop // size)):
            began = time.perf_counter()
            logits = next(batches)
            self.forward_seconds += time.perf_counter() - began
            self.forward_passes += 1
            out.append(divergence(self._base[index], logits).reshape(len(logits), -1).mean(axis=1))
        klds = np.concatenate(out)
        if not np.isfinite(klds).all():
            raise QuantplanError("the model gives NaN logits with rounded weights; is the model file damaged?")
        return klds

    def take_base(self, windows: int) -> None:
        """Keeps the untouched logits of the first ``windows`` windows."""
        done = len(self._base) * self.engine.windows_per_batch
        for logits in self.engine.logits(self.windows[done:windows]):
            self._base.append(base_rows(logits))
            if not np.isfinite(self._base[-1].log_sum).all():
                raise QuantplanError(f"{self.model.path}: the model gives NaN or infinite logits; is the file damaged?")

    def affordable(self, windows: int) -> int:
        """So many windows in whole batches, or fewer where the text or the memory for their logits ends."""
        engine = self.engine
        scored = self.options.n_ctx - engine.first_scored
        room = _LOGIT_BYTES // (4 * scored * engine.vocabulary)
        batch = engine.windows_per_batch
        return min(max(1, min(windows, room) // batch) * batch, len(self.windows))

    def swap(self, tensor: Tensor, kind: QuantType) -> float:
        """Puts the tensor rounded to ``kind`` in memory; returns the relative squared error that it now has."""
        original = tensor_rows(self.model, tensor)
        importance = self.imatrix.quantize_weights(tensor) if self.imatrix else None
        if importance is None and ggml.aborts_without_imatrix(kind):
            raise ValueError(f"{kind} cannot be probed without an imatrix")
        rounded = ggml.dequantize(ggml.quantize(original, kind, importance), kind, tensor.columns)
        return self._place(tensor, original, rounded)

    def nudge(self, tensor: Tensor) -> float:
        """Moves every weight by about the last bit of half precision; returns the relative squared error."""
        original = tensor_rows(self.model, tensor)
        random = np.random.default_rng(0).choice(np.float32([-1, 1]), original.shape)
        return self._place(tensor, original, original * (1 + random * np.float32(2**-11)))

    def _place(self, tensor: Tensor, original: np.ndarray, changed: np.ndarray) -> float:
        stored = self.engine.stored_type(tensor.name)
        importance = self.imatrix.quantize_weights(tensor) if self.imatrix else None
        encoded = ggml.quantize(changed, stored, importance)
        self.engine.put(tensor.name, encoded)
        landed = ggml.dequantize(encoded, stored, tensor.columns)
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


def probe(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    text: str,
    options: ProbeOptions,
    journal: Journal,
    tell: Tell = lambda *_: None,
) -> Probe:
    """Scales of all tensors, from the journal where they are in it; each finished tensor is journalled at once.

    ``tell`` is called with (stage, done, total), and not at all where the journal holds everything. Raises TextTooShort,
    BadFile, BadUsage.
    """
    began = time.perf_counter()
    found = Probe()
    if _complete(journal, tensors, options):
        return _from_journal(journal, tensors, found)
    with Prober(model, imatrix, text, options) as prober:
        reachable = prober.find(tensors)
        journal.put("#available", len(prober.windows))
        first = options.base_windows(len(prober.windows))
        prober.take_base(first)
        swaps_began, forward_before = time.perf_counter(), prober.forward_seconds
        for done, tensor in enumerate(tensors, 1):
            if tensor.name in reachable:
                _probe_tensor(prober, tensor, first, journal)
            else:
                journal.put(tensor.name, None)
            tell("probe", done, len(tensors))
        if options.extend and not options.windows:
            _extend(prober, [t for t in tensors if t.name in reachable], first, journal, tell)
        spent = time.perf_counter() - swaps_began
        forward = prober.forward_seconds - forward_before
        probed = [tensor for tensor in tensors if tensor.name in reachable]
        _floor(prober, probed, first, journal)
        _uniform(prober, probed, max(first, prober.affordable(_LEVEL_TOKENS // options.n_ctx)), journal, tell)
        found.overhead = (spent - forward) / forward if forward > 0 else None
        found.forward_passes = prober.forward_passes
    found.seconds = time.perf_counter() - began
    return _from_journal(journal, tensors, found)


def _complete(journal: Journal, tensors: tuple[Tensor, ...], options: ProbeOptions) -> bool:
    results = journal.results
    wanted = {tensor.name for tensor in tensors} | {"#available", "#floor"} | {f"#uniform {name}" for name in _UNIFORM}
    if not wanted <= results.keys() or (options.extend and not options.windows and "#extended" not in results):
        return False
    windows = options.base_windows(results["#available"])
    return all(results[t.name] is None or len(results[t.name]["klds"]) >= windows for t in tensors)


def _probe_tensor(prober: Prober, tensor: Tensor, windows: int, journal: Journal) -> None:
    """Runs the windows that the journal does not hold yet."""
    earlier = journal.results.get(tensor.name) or {"error": None, "klds": []}
    done = len(earlier["klds"])
    if done >= windows:
        return
    try:
        error = prober.swap(tensor, probe_type(prober.engine.stored_type(tensor.name), tensor.columns))
        klds = prober.window_klds(done, windows)
    finally:
        prober.restore(tensor)
    journal.put(tensor.name, {"error": error, "klds": earlier["klds"] + klds.tolist()})


def _extend(prober: Prober, tensors: list[Tensor], first: int, journal: Journal, tell: Tell) -> None:
    """More windows for the tensors whose error decides: unsure themselves, and a large part of the sum's uncertainty."""
    limit = prober.affordable(first * _EXTEND_FACTOR)
    if limit > first:
        # the first windows alone: what an interrupted run has added since must not change who is chosen
        values = {t: np.array(journal.results[t.name]["klds"][:first]) for t in tensors}
        errors = {t: bootstrap_error(klds) for t, klds in values.items()}
        share = sum(error**2 for error in errors.values()) / max(len(tensors), 1)
        deciding = [t for t in tensors if errors[t] > _EXTEND_ABOVE * values[t].mean() and errors[t] ** 2 > share]
        if deciding:
            prober.take_base(limit)
        for done, tensor in enumerate(deciding, 1):
            _probe_tensor(prober, tensor, limit, journal)
            tell("probe, more text where the error decides", done, len(deciding))
    journal.put("#extended", limit)


def _floor(prober: Prober, tensors: list[Tensor], windows: int, journal: Journal) -> None:
    """KLD of a nudge by the last bit, less what its error explains: what rounding in the forward pass adds."""
    if "#floor" in journal.results:
        return
    left = []
    for tensor in tensors[:: max(1, len(tensors) // 4)][:4]:
        known = journal.results[tensor.name]
        slope = float(np.mean(known["klds"])) / known["error"]
        try:
            error = prober.nudge(tensor)
            left.append(float(prober.window_klds(0, windows).mean()) - slope * error)
        finally:
            prober.restore(tensor)
    journal.put("#floor", max(0.0, float(np.median(left))) if left else 0.0)


def _uniform(prober: Prober, tensors: list[Tensor], windows: int, journal: Journal, tell: Tell) -> None:
    """All tensors swapped at once, for a few types: how single damages add up."""
    for done, name in enumerate(_UNIFORM):
        tell("probe, all tensors at once", done, len(_UNIFORM))
        key = f"#uniform {name}"
        if key in journal.results:
            continue
        prober.take_base(windows)
        errors = {}
        try:
            for tensor in tensors:
                errors[tensor.name] = prober.swap(tensor, fitted(BY_NAME[name], tensor.columns))
            klds = prober.window_klds(0, windows)
        finally:
            for tensor in tensors:
                prober.restore(tensor)
        journal.put(key, {"klds": klds.tolist(), "errors": errors})


def _from_journal(journal: Journal, tensors: tuple[Tensor, ...], found: Probe) -> Probe:
    found.floor = journal.results["#floor"]
    for tensor in tensors:
        entry = journal.results[tensor.name]
        if entry is not None:
            found.scales[tensor.name] = _scale(tensor.name, entry, found.floor)
    found.not_found = tuple(t.name for t in tensors if t.name not in found.scales)
    found.uniform = {name: journal.results[f"#uniform {name}"] for name in _UNIFORM}
    return found


def _scale(name: str, entry: dict, floor: float) -> Scale:
    klds, error = np.array(entry["klds"]), entry["error"]
    kld = float(klds.mean())
    if error <= 0:  # a tensor of zeros, or one that its probe type holds exactly: no rounding hurts it
        return Scale(name, kld, error, 0.0, 0.0, len(klds))
    # below twice the noise floor nothing was seen: the floor itself is what the damage may be, and its own error
    signal = kld - floor
    seen = signal > floor
    value = (signal if seen else floor) / error
    stderr = bootstrap_error(klds) / error
    return Scale(name, kld, error, value, stderr if seen else max(stderr, value), len(klds))
