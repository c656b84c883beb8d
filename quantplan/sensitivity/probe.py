"""The probe: how many nats of KL divergence one unit of a tensor's relative error costs, measured in the loaded model.

For each tensor: quantize it (with the imatrix), put the rounded weights in its place in memory, run the calibration
chunks, take the KLD against the untouched logits, put the original back. The ratio of KLD to error is constant
over four orders of magnitude, so one probe gives every type. The swaps are made here or by other processes; this
one chooses them and alone writes the cache.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from quantplan.errors import WorkersLost
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import chunks_per_batch
from quantplan.parallel.worker_pool import Lost, shortened
from quantplan.progress import SILENT, Reporter
from quantplan.records.cache import Cache
from quantplan.sensitivity.probe_workers import ProbeWorkers
from quantplan.sensitivity.swap_scale import Scale, bootstrap_error, clear, scale_of
from quantplan.sensitivity.tensor_swap import (
    LOUD,
    NUDGE,
    PROBE,
    ProbeOptions,
    Survey,
    Swap,
    Swapped,
    TensorSwapper,
    affordable,
)
from quantplan.tensor import Model, Tensor
from quantplan.text import Text

# 4: types chosen by their measured error; 3: errors of experts with few hits; 2: uniform swaps by chunk, on more text; 1: first
VERSION = 4
_EXTEND_ABOVE = 0.05  # a relative standard error that is worth more chunks, where the tensor matters
_EXTEND_FACTOR = 4
_UNIFORM = ("Q2_K", "Q3_K", "Q4_K")
# Scales need few chunks because they only rank; the level of a prediction is that of the text, so the few
# swaps of everything at once run on more of it: 18 % standard error at 2k tokens, 4 % at 16k on the reference model
_LEVEL_TOKENS = 16384


@dataclass
class Probe:
    """What a probe measured. ``overhead``: time next to the forward passes over the time of the passes themselves."""

    scales: dict[str, Scale] = field(default_factory=dict)
    uniform: dict[str, dict] = field(
        default_factory=dict
    )  # type -> {"klds" by chunk, "errors" by tensor}, all swapped at once
    domains: tuple[str, ...] = ()  # of each chunk the text it is of, where there are several
    klds: dict[str, list[float]] = field(default_factory=dict)  # of each tensor by chunk, where there are several texts
    floor: float = 0.0  # KLD that a change of the last bit makes: rounding noise of the forward pass
    not_found: tuple[str, ...] = ()
    overhead: float | None = None
    forward_passes: int = 0
    seconds: float = 0.0


class SwapRunner(Protocol):
    """Who makes the swaps. Results come in any order; ``Lost`` names those that could not be had, after all others."""

    def survey(self, names: list[str]) -> Survey: ...

    def run(self, swaps: list[Swap]) -> Iterator[tuple[Swap, Swapped]]: ...


class _InProcess:
    """This process."""

    def __init__(self, swapper: TensorSwapper) -> None:
        self._swapper = swapper

    def survey(self, names: list[str]) -> Survey:
        return self._swapper.survey(names)

    def run(self, swaps: list[Swap]) -> Iterator[tuple[Swap, Swapped]]:
        for swap in swaps:
            yield swap, self._swapper.run(swap)


@contextmanager
def _in_process(model: Model, imatrix: Imatrix | None, text: Text, options: ProbeOptions) -> Iterator[_InProcess]:
    with TensorSwapper(model, imatrix, text, options) as swapper:
        yield _InProcess(swapper)


def probe(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    text: Text,
    options: ProbeOptions,
    results: Cache[Any],
    report: Reporter = SILENT,
) -> Probe:
    """Scales of all tensors, from the cache where they are in it; each finished tensor is kept at once.

    ``report`` hears nothing where the cache has everything. Raises TextTooShort, BadFile, BadUsage, WorkersLost.
    """
    began = time.perf_counter()
    found = Probe()
    if complete(results, tensors, options):
        return _from_cache(results, tensors, found)
    opened: AbstractContextManager[SwapRunner] = (ProbeWorkers if options.execution.many else _in_process)(
        model, imatrix, text, options
    )
    try:
        with opened as runner:
            ProbeStages(runner, tensors, options, results, report, found).run()
    except Lost as lost:
        raise WorkersLost(missing(lost, results, tensors)) from None
    found.seconds = time.perf_counter() - began
    return _from_cache(results, tensors, found)


def missing(lost: Lost, results: Cache[Any], tensors: tuple[Tensor, ...]) -> str:
    """What is not there, in words, and that the rest is."""
    left = [tensor.name for tensor in tensors if tensor.name not in results]
    swaps = [swap.key.lstrip("#") for swap in lost.items] or left
    what = f"Not probed: {shortened(swaps)}; " if swaps else ""
    return (
        f"{lost.reason}. {what}{len(tensors) - len(left)} of {len(tensors)} tensors are done and kept: "
        "run the same command again for the rest"
    )


def complete(results: Cache[Any], tensors: tuple[Tensor, ...], options: ProbeOptions) -> bool:
    """Whether the cache has all that the probe would measure."""
    wanted = {tensor.name for tensor in tensors} | {"#available", "#floor", "#louder"}
    wanted |= {"#domains"} if options.domains > 1 else set()
    wanted |= {f"#uniform {name}" for name in _UNIFORM} if options.level else set()
    if not wanted <= set(results) or (options.extend and not options.chunks and "#extended" not in results):
        return False
    chunks = options.base_chunks(results["#available"])
    return all(results[t.name] is None or len(results[t.name]["klds"]) >= chunks for t in tensors)


class ProbeStages:
    """The stages of a probe: each asks for the swaps that the cache does not have, and writes down what comes back."""

    def __init__(
        self,
        runner: SwapRunner,
        tensors: tuple[Tensor, ...],
        options: ProbeOptions,
        results: Cache[Any],
        report: Reporter,
        found: Probe,
    ) -> None:
        self.runner, self.options, self.results, self.report, self.found = runner, options, results, report, found
        self.tensors = tensors
        self._seconds, self._forward_seconds = 0.0, 0.0

    def run(self) -> None:
        self.survey = self.runner.survey([tensor.name for tensor in self.tensors])
        self.results.put("#available", self.survey.chunks)
        if self.survey.domains:
            self.results.put("#domains", list(self.survey.domains))
        self.first = self.options.base_chunks(self.survey.chunks)
        self.names = [tensor.name for tensor in self.tensors if tensor.name in self.survey.reachable]
        for tensor in self.tensors:
            if tensor.name not in self.survey.reachable:
                self.results.put(tensor.name, None)
        self._probe(self.names, self.first, "probe", len(self.tensors))
        if self.options.extend and not self.options.chunks:
            self.extend()
        self._overhead()
        self._floor()
        self._louder()
        if self.options.level:
            self._uniform()

    def _run(self, swaps: list[Swap]) -> Iterator[tuple[Swap, Swapped]]:
        for swap, result in self.runner.run(swaps):
            self.found.forward_passes += result.forward_passes
            self._seconds += result.seconds
            self._forward_seconds += result.forward_seconds
            yield swap, result

    def _probe(self, names: list[str], chunks: int, stage: str, total: int) -> None:
        """Runs the chunks that the cache does not have yet."""
        swaps, batch = [], chunks_per_batch(self.options.n_ctx)
        for name in names:
            known = self.results.get(name) or {"klds": []}
            if len(known["klds"]) < chunks:
                swaps.append(Swap(name, (name,), known.get("kind", PROBE), len(known["klds"]) // batch * batch, chunks))
        with self.report.stage(stage, total) if swaps else SILENT.stage(stage) as advance:
            advance(total - len(swaps))
            for swap, result in self._run(swaps):
                earlier = self.results.get(swap.key) or {"klds": []}
                klds = earlier["klds"][: swap.start] + result.klds
                entry = earlier | {"error": result.errors[swap.key], "klds": klds}
                self.results.put(swap.key, entry)
                advance(1)

    def extend(self) -> None:
        """More chunks for the tensors whose error decides: unsure themselves, and a large part of the sum's uncertainty."""
        first, limit = self.first, affordable(self.first * _EXTEND_FACTOR, self.options, self.survey)
        if limit > first:
            # the first chunks alone: what an interrupted run has added since must not change who is chosen
            values = {name: np.array(self.results[name]["klds"][:first]) for name in self.names}
            errors = {name: bootstrap_error(klds) for name, klds in values.items()}
            share = sum(error**2 for error in errors.values()) / max(len(self.names), 1)
            deciding = [
                name
                for name in self.names
                if errors[name] > _EXTEND_ABOVE * values[name].mean() and errors[name] ** 2 > share
            ]
            self._probe(deciding, limit, "probe, more text where the error decides", len(deciding))
        self.results.put("#extended", limit)

    def _overhead(self) -> None:
        forward = self._forward_seconds
        self.found.overhead = (self._seconds - forward) / forward if forward > 0 else None

    def _floor(self) -> None:
        """KLD of a nudge by the last bit, less what its error explains: what rounding in the forward pass adds."""
        if "#floor" in self.results:
            return
        moved = [name for name in self.names if self.results[name]["error"] > 0]
        names = moved[:: max(1, len(moved) // 4)][:4]
        swaps = [Swap(f"#floor {name}", (name,), NUDGE, 0, self.first) for name in names]
        left = []
        for swap, result in self._run(swaps):
            (name,) = swap.tensors
            known = self.results[name]
            slope = float(np.mean(known["klds"])) / known["error"]
            left.append(float(np.mean(result.klds)) - slope * result.errors[name])
        self.results.put("#floor", max(0.0, float(np.median(left))) if left else 0.0)

    def _louder(self) -> None:
        """Swaps with the largest error that still prices, for tensors whose KLD is lost in the noise floor."""
        if "#louder" in self.results:
            return
        floor, lost = self.results["#floor"], []
        for name in self.names:
            entry = self.results[name]
            if entry["error"] > 0 and "kind" not in entry and not clear(np.mean(entry["klds"]), floor):
                lost.append(Swap(name, (name,), LOUD, 0, self.first))
        for swap, result in self._run(lost):
            error = result.errors[swap.key]
            if error > self.results[swap.key]["error"]:
                self.results.put(swap.key, {"kind": LOUD, "error": error, "klds": result.klds})
        self.results.put("#louder", len(lost))

    def _uniform(self) -> None:
        """All tensors swapped at once, for a few types: how single KLDs add up."""
        chunks = max(self.first, affordable(_LEVEL_TOKENS // self.options.n_ctx, self.options, self.survey))
        keys = {name: f"#uniform {name}" for name in _UNIFORM}
        swaps = [Swap(key, tuple(self.names), name, 0, chunks) for name, key in keys.items() if key not in self.results]
        with self.report.stage("probe, all tensors at once", len(_UNIFORM)) as advance:
            advance(len(_UNIFORM) - len(swaps))
            for swap, result in self._run(swaps):
                self.results.put(swap.key, {"klds": result.klds, "errors": result.errors})
                advance(1)


def _from_cache(results: Cache[Any], tensors: tuple[Tensor, ...], found: Probe) -> Probe:
    found.floor, found.domains = results["#floor"], tuple(results.get("#domains") or ())
    for tensor in tensors:
        entry = results[tensor.name]
        if entry is not None:
            found.scales[tensor.name] = scale_of(tensor.name, entry, found.floor)
            if found.domains:
                found.klds[tensor.name] = entry["klds"]
    found.not_found = tuple(t.name for t in tensors if t.name not in found.scales)
    found.uniform = {name: results[f"#uniform {name}"] for name in _UNIFORM if f"#uniform {name}" in results}
    return found
