"""How fast error-compensated rounding is, as ratios to this machine's own sgemm rate, and how much memory it takes.

    python benchmarks/rounding.py [--type Q4_K] [--shapes 4096x12288 12288x4096] [--cpu-time]

Counted are the 2 rows cols^2 (1 + sweeps) operations of one feedback and all sweeps; the time is that of everything:
factorization, ggml's own encoder, refits, errors of both encodings. ``without ggml`` leaves ggml's encoder out, which a
stock quantization runs as well. ``--cpu-time`` counts seconds of the processor instead of the clock's, for machines
that others use meanwhile; waiting of threads for each other is left out then. Memory is what the process takes beyond
weights and second moments, over the matrix in float32. The time for whole models follows from the rates measured here:
operations of all their matrices over the rate, cores being taken as equally fast.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil

from quantplan.llamacpp import ggml
from quantplan.quant_type import weight_type
from quantplan.rounding.compensate import RoundingOptions, compensate
from quantplan.rounding.metric import prepare

clock = time.perf_counter
# blocks x [(rows, columns, matrices)]: attention, feed-forward; Qwen3-8B and Llama 3 70B
_MODELS = {
    "8B": (36, [(4096, 4096, 2), (1024, 4096, 2), (12288, 4096, 2), (4096, 12288, 1)]),
    "70B": (80, [(8192, 8192, 2), (1024, 8192, 2), (28672, 8192, 2), (8192, 28672, 1)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", default="Q4_K", help="type to encode as")
    parser.add_argument("--shapes", nargs="+", default=["4096x12288", "12288x4096"], help="rows x columns")
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of the processor")
    options = parser.parse_args()
    if options.cpu_time:
        global clock
        clock = time.process_time
    kind, efficiencies = weight_type(options.type), []
    rate = sgemm_rate() / (1 if options.cpu_time else ggml.cores())
    print(f"sgemm of this machine: {rate / 1e9:.0f} GFLOP/s on each of {ggml.cores()} cores")
    for shape in options.shapes:
        rows, columns = map(int, shape.split("x"))
        weights, hessian = random_weights(rows, columns), second_moments(columns)
        stock_seconds = timed(lambda: ggml.quantize(weights, kind, np.diagonal(hessian).copy()))[0]  # noqa: B023
        factor_seconds, metric = timed(lambda: prepare(hessian))  # noqa: B023
        memory = ExtraMemory()
        seconds, rounded = timed(lambda: compensate(weights, metric, kind))  # noqa: B023
        extra = memory.stop() + metric.feedback.nbytes
        ideal = 2 * rows * columns**2 * (1 + RoundingOptions().sweeps) / sgemm_rate()
        total = factor_seconds + seconds
        efficiencies.append(ideal / total)
        print(
            f"{shape} {kind}: {ideal / total:.2f} of the sgemm rate, {ideal / (total - stock_seconds):.2f} without ggml; "
            f"ggml {stock_seconds / total:.2f} and factorization {factor_seconds / total:.2f} of the time; "
            f"memory {(extra - hessian.nbytes) / weights.nbytes:.2f} matrices + H; "
            f"error {rounded.error_ratio:.3f} of ggml's"
        )
    for name, model in _MODELS.items():
        for cores in (2, 16):
            hours = operations(model) / (np.mean(efficiencies) * rate * cores) / 3600
            print(f"{name} dense, {cores} cores: {hours:.1f} h")


def operations(model: tuple[int, list[tuple[int, int, int]]]) -> float:
    """Multiplications and additions of the feedback and the sweeps of all matrices of the blocks."""
    blocks, shapes = model
    return 2 * (1 + RoundingOptions().sweeps) * blocks * sum(r * c**2 * count for r, c, count in shapes)


def sgemm_rate() -> float:
    """Operations per second of a large product of float32 matrices on all cores, the best of five."""
    left, right = np.ones((2048, 4096), np.float32), np.ones((4096, 2048), np.float32)
    seconds = min(timed(lambda: left @ right)[0] for _ in range(5))
    return 2 * 2048 * 4096 * 2048 / seconds


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = clock()
    answer = work()
    return clock() - start, answer


def random_weights(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32) / 50


def second_moments(columns: int) -> np.ndarray:
    """float32 [columns, columns] of 4096 correlated inputs of uneven size."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((4096, columns), np.float32)
    inputs[:, 1:] += 0.7 * inputs[:, :-1]
    inputs *= np.exp(random.standard_normal(columns, np.float32) / 2)
    return inputs.T @ inputs / np.float32(len(inputs))


class ExtraMemory:
    """Most resident memory since it was made, beyond what was resident then; sampled every 10 ms."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        self._start = self._most = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self._most = max(self._most, self._process.memory_info().rss)

    def stop(self) -> int:
        """Bytes."""
        self._done.set()
        self._thread.join()
        return self._most - self._start


if __name__ == "__main__":
    main()
