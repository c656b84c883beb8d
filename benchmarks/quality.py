"""Plans against stock quants of the same size: evaluation KLD, ratio, and how well it was predicted.

    python benchmarks/quality.py MODEL.gguf --calibration calibration.txt --evaluation evaluation.txt [--ctx 256] [--chunks 0]

The imatrix and the probe see the calibration text only; everything is measured in float32 on the evaluation text, all of it
unless --eval-chunks says otherwise. Each plan may have the size of the stock quant of that name, made with the same imatrix.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from quantplan.build.build import build, build_stock_quant
from quantplan.build.compensated_rounding import compensation_for
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.significance import ratio_interval
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp import imatrix as imatrix_tool
from quantplan.planning.request import PlanRequest, quantizable
from quantplan.planning.solving import plan_for
from quantplan.project import read_text
from quantplan.quant_type import parse_types
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.probe import ProbeOptions

STOCK_QUANTS = ("IQ3_XXS", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--imatrix", type=Path, help="made from the calibration text where it is not given")
    parser.add_argument("--ctx", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=0, help="of the probe; 0: the default")
    parser.add_argument("--eval-chunks", type=int, default=None)
    parser.add_argument("--types", default="all")
    parser.add_argument(
        "--rounding", choices=("auto", "stock"), default="auto", help="stock: llama-quantize's rounding"
    )
    parser.add_argument("--stock-quants", default=",".join(STOCK_QUANTS))
    parser.add_argument("--work", type=Path, help="folder to keep cache and files in; temporary where it is not given")
    return parser.parse_args()


def main() -> None:
    asked = options()
    if asked.work:
        asked.work.mkdir(parents=True, exist_ok=True)
        run(asked, asked.work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(asked, Path(folder))


def run(asked: argparse.Namespace, work: Path) -> None:
    model = read_model(asked.model)
    path = asked.imatrix or work / "imatrix.gguf"
    if not path.exists():
        imatrix_tool.make(model, asked.calibration, path, imatrix_tool.ImatrixOptions(n_ctx=asked.ctx))
    imatrix = read_imatrix(path)
    probe = ProbeOptions(asked.ctx, asked.chunks, asked.chunks == 0)
    wanted = SensitivityOptions(parse_types(asked.types), probe, compensate=asked.rounding == "auto")
    calibration = read_text(asked.calibration)
    priced = price(model, quantizable(model), imatrix, calibration, wanted, work / "cache")
    if priced.probe and priced.probe.overhead is not None:
        print(
            f"probe: {priced.probe.seconds:.1f} s, overhead over the forward passes {100 * priced.probe.overhead:.1f} %"
        )
    evaluation = read_text(asked.evaluation)
    measuring = MeasureOptions(n_ctx=asked.ctx, chunks=asked.eval_chunks)
    print(
        "size of    stock bytes  plan bytes  stock KLD   plan KLD (± s.e.)    ratio (95 % interval)   predicted  pred/meas"
    )
    logs = []
    for stock_quant in asked.stock_quants.split(","):
        plan, _ = plan_for(PlanRequest(model, imatrix, wanted.types, stock_quant), priced.table)
        files = [work / f"stock-{stock_quant}.gguf", work / f"plan-{stock_quant}.gguf"]
        files[1].unlink(missing_ok=True)
        built = [read_model(files[0]) if files[0].exists() else build_stock_quant(model, stock_quant, files[0], path)]
        compensation = compensation_for(plan, model, calibration, Execution(), work / "cache")
        built.append(build(plan, model, files[1], imatrix_path=path, compensation=compensation))
        stock, own = measure(model.path, files, evaluation, measuring, cache=work / "measured")
        ratio = own.kld.value / stock.kld.value
        interval = ratio_interval(own.per_chunk_kld, stock.per_chunk_kld)
        logs.append(math.log(ratio))
        print(
            f"{stock_quant:10s} {built[0].file_bytes:11,} {built[1].file_bytes:11,}  "
            f"{stock.kld.value:.5f}   {own.kld.value:.5f} ± "
            f"{own.kld.stderr:.5f}    {ratio:.3f} ({interval.low:.3f} to {interval.high:.3f})   {plan.predicted_kld:.5f}   "
            f"{plan.predicted_kld / own.kld.value:.3f}",
            flush=True,
        )
        assert built[1].file_bytes == plan.file_bytes <= built[0].file_bytes
    print(f"geometric mean of the ratios: {math.exp(sum(logs) / len(logs)):.3f}")


if __name__ == "__main__":
    main()
