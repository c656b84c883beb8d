"""What collecting second moments costs, each a ratio within one run.

    python benchmarks/second_moments.py [--model MODEL.gguf] --text TEXT.txt [--chunks 64] [--columns 2048 4096 8192]

forward   collecting over --chunks chunks of --ctx tokens against bare forward passes over the same chunks (logits of all
          positions, as llama-imatrix asks for them, and of the second half, as measuring does), in turn, the median of --runs.
          Bound for width <= 1024: 1.5.
syrk      operations per second of adding --tokens inputs to H, columns^2 for each as the symmetric half takes them, and what a
          product (sgemm) of the same matrices reaches with its 2 columns^2. Bound for --columns >= 2048: 60 % of sgemm.
widths    extrapolation: hours of ssyrk for 8B and 70B shapes over 131,072 tokens at the rate of the last --columns, on this
          machine's cores and, at the same rate per core, on 16. The forward passes come on top.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.ggml import cores
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.quantize import quantizable
from quantplan.sensitivity.moment_pass import MomentSums
from quantplan.sensitivity.probe_text import chunk_order
from quantplan.sensitivity.second_moments import MomentOptions, chunks_per_batch, collect
from quantplan.tensor import Model

DATA = Path(__file__).parents[1] / "quantplan" / "data"
FORWARD_BOUND, SYRK_BOUND = 1.5, 0.6
TOKENS = 131_072
# distinct inputs of a block by width: attention, its output, feed-forward, its output
SHAPES = {
    "8B (36 blocks, 4096/12288)": (36, (4096, 4096, 4096, 12288)),
    "70B (80 blocks, 8192/28672)": (80, (8192, 8192, 8192, 28672)),
}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare(model: Model, text: str, options: MomentOptions, second_half: bool) -> None:
    """The forward passes of ``collect`` without a watcher, model loading included as there."""
    with Engine(model.path, EngineOptions(options.n_ctx, options.execution)) as engine:
        chunks = engine.chunks(text)
        chunks = chunks[np.sort(chunk_order(len(chunks))[: options.chunks])]
        at_once = chunks_per_batch(options.n_ctx, engine.vocabulary)
        context = engine.new_context(options.n_ctx, at_once, n_ubatch=at_once * options.n_ctx)
        first = engine.first_scored if second_half else 0
        for start in range(0, len(chunks), at_once):
            engine.forward(context, chunks[start : start + at_once], first)
        engine.free_context(context)


def forward(arguments: argparse.Namespace) -> bool:
    model, text = read_model(arguments.model), arguments.text.read_text(encoding="utf-8")
    options = MomentOptions(arguments.ctx, arguments.chunks, execution=Execution(arguments.threads))
    tensors = quantizable(model)

    def collecting() -> None:
        with tempfile.TemporaryDirectory() as folder:
            collect(model, tensors, text, options, Path(folder))

    works = {
        "collecting": collecting,
        "all positions": lambda: bare(model, text, options, second_half=False),
        "second half": lambda: bare(model, text, options, second_half=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(arguments.runs):
        for name, work in works.items():
            taken[name].append(seconds(work))
    median = {name: statistics.median(values) for name, values in taken.items()}
    print(f"forward: {model.path.name}, {arguments.chunks} chunks of {arguments.ctx}, {cores()} cores")
    for name, value in median.items():
        print(f"  {name:14} {value:7.2f} s   collecting/it {median['collecting'] / value:.2f}")
    return median["collecting"] / median["second half"] <= FORWARD_BOUND


def syrk(columns: int, tokens: int, runs: int) -> tuple[float, float]:
    """(operations per second of the sums, of sgemm), best of ``runs``, in turn."""
    rows = np.random.default_rng(0).standard_normal((tokens, columns), np.float32)
    sums, product, other = MomentSums(columns), np.empty((columns, columns), np.float32), rows.T.copy()
    best = [float("inf")] * 2
    for _ in range(runs):
        sums.add(rows)
        best = [min(best[0], seconds(sums.flush)), min(best[1], seconds(lambda: np.matmul(other, rows, out=product)))]
    operations = tokens * columns**2
    return operations / best[0], 2 * operations / best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DATA / "prose-10m-f16.gguf")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--ctx", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--columns", type=int, nargs="*", default=[2048, 4096, 8192])
    parser.add_argument("--tokens", type=int, default=1024, help="inputs that are added at once")
    arguments = parser.parse_args()
    reached = [forward(arguments)]
    rate = 0.0
    for columns in arguments.columns:
        rate, gemm = syrk(columns, arguments.tokens, arguments.runs)
        reached.append(columns < 2048 or rate / gemm >= SYRK_BOUND)
        print(f"syrk: {columns} columns {rate / 1e9:6.0f} GFLOP/s, sgemm {gemm / 1e9:6.0f}, {rate / gemm:.0%}")
    for name, (blocks, widths) in SHAPES.items() if rate else ():
        hours = TOKENS * blocks * sum(width**2 for width in widths) / rate / 3600
        print(
            f"{name}: {hours:.1f} h of ssyrk for {TOKENS:,} tokens on {cores()} cores, {hours * cores() / 16:.1f} h on 16"
        )
    sys.exit(0 if all(reached) else "a bound is missed")


if __name__ == "__main__":
    main()
