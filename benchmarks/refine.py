"""What refinement gains: evaluation KLD of plans before and after, next to stock quants of the same size.

    python benchmarks/refine.py MODEL.gguf --calibration calibration.txt --evaluation evaluation.txt
        [--ctx 256] [--budgets Q3_K_M,5bpw]

Rounding is error-compensated, which `quantplan run` refines on request only. The calibration text is split as `quantplan
run` splits it; imatrix and probe see the one part, refinement the other. The evaluation text decides only whether the stock
quant is kept instead.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from quantplan.cli.console import LINES
from quantplan.evaluate.baselines import BuildContext
from quantplan.evaluate.measure import MeasureOptions
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.llamacpp.imatrix import ImatrixOptions
from quantplan.planning.request import PlanRequest
from quantplan.project import read_text
from quantplan.run.run import run
from quantplan.run.targets import RunOptions, RunResult, RunTarget, Texts, make_imatrix
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity.probe import ProbeOptions
from quantplan.text_parts import probing_and_refinement


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--ctx", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=0, help="of the probe; 0: the default")
    parser.add_argument("--validation-chunks", type=int, default=0)
    parser.add_argument("--eval-chunks", type=int, default=None)
    parser.add_argument("--types", default="all")
    parser.add_argument("--budgets", default="IQ3_XXS,Q3_K_M,IQ4_XS,Q4_K_M,Q5_K_M,Q6_K")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder to keep cache and files in; temporary where it is not given")
    return parser.parse_args()


def main() -> None:
    asked = options()
    if asked.work:
        asked.work.mkdir(parents=True, exist_ok=True)
        trial(asked, asked.work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            trial(asked, Path(folder))


def trial(asked: argparse.Namespace, work: Path) -> None:
    model = read_model(asked.model)
    calibration, validation = probing_and_refinement(read_text(asked.calibration))
    path, execution = work / "imatrix.gguf", Execution(asked.threads)
    if not path.exists():
        made = ImatrixOptions(n_ctx=asked.ctx, execution=execution)
        make_imatrix(model, calibration, "calibration.txt", path, made, LINES)
    probe = ProbeOptions(asked.ctx, asked.chunks, asked.chunks == 0, execution)
    pricing = SensitivityOptions(parse_writable(asked.types), probe)
    measuring = MeasureOptions(asked.ctx, asked.eval_chunks, execution)
    request = PlanRequest(model, read_imatrix(path), pricing.types, None)
    targets = [
        RunTarget(PlanRequest(model, request.imatrix, pricing.types, budget), f"size-{budget}", work / f"{budget}.gguf")
        for budget in asked.budgets.split(",")
    ]
    texts = Texts(calibration, validation, read_text(asked.evaluation))
    context = BuildContext(model, work / "builds", path, asked.threads, calibration=calibration, cache=work / "cache")
    results = run(
        targets,
        texts,
        RunOptions(pricing, measuring, asked.validation_chunks),
        context,
        work / "cache",
        report=LINES,
    )
    print("size of    best KLD   stock KLD  best / stock (95 % interval)   refined / plan (95 % interval)   kept")
    for result in results:
        print(line(result))


def line(result: RunResult) -> str:
    """Of a table, on the evaluation text."""
    best, *others = result.comparison.rows
    stock_quant = next(row for row in others if not row.name.startswith(result.target.name))
    gain = (
        f"{result.gain.ratio:.4f} ({result.gain.low:.4f} to {result.gain.high:.4f})"
        if result.gain
        else "does not count"
    )
    return (
        f"{result.target.request.budget:10s} {best.measurement.kld.value:.6f}  {stock_quant.measurement.kld.value:.6f}   "
        f"{stock_quant.kld_ratio:.3f} ({stock_quant.low:.3f} to {stock_quant.high:.3f})     {gain:30s}   "
        f"{result.kept}: {result.reason}"
    )


if __name__ == "__main__":
    main()
