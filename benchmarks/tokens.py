"""Predicted tokens per second against llama-bench: files of one type, and a plan of mixed types, all in one run.

    python benchmarks/tokens.py MODEL.gguf [--types Q4_0,Q4_K,Q6_K,Q8_0,IQ4_XS,IQ3_S] [--threads 0] [--repetitions 5]

Every file is built by llama-quantize. Let the machine be quiet: each other program changes both sides of the ratio.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from pathlib import Path

from quantplan.build.build import build
from quantplan.devices.speed.measure import SpeedOptions, check_against_bench, speed_table
from quantplan.devices.speed.table import SpeedTable
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import make_plan
from quantplan.llamacpp.quantize import quantizable
from quantplan.quant_type import QuantType, fitted, parse_types
from quantplan.tensor import Model


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--types", default="Q4_0,Q4_K,Q5_0,Q6_K,Q8_0,IQ4_XS,IQ3_S", help="none that needs an imatrix")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder to keep the cache in; temporary where it is not given")
    return parser.parse_args()


def assignments(model: Model, types: tuple[QuantType, ...]) -> dict[str, dict[str, QuantType]]:
    """Uniform files by the type's name, and one in which every tensor drew its type by lot (seeded)."""
    tensors, lot = quantizable(model), random.Random(0)
    uniform = {kind.name: {each.name: fitted(kind, each.columns) for each in tensors} for kind in types}
    return uniform | {"mixed": {each.name: fitted(lot.choice(types), each.columns) for each in tensors}}


def ratios(
    table: SpeedTable, model: Model, types: dict[str, QuantType], wanted: SpeedOptions, work: Path
) -> list[float]:
    """Builds the file, prints nothing but a line of figures, and returns predicted over measured for pp and tg."""
    built = build(make_plan(model, types), model, work / "built.gguf")
    found = check_against_bench(table, built, wanted)
    for each in found:
        measured = f"{each.measured.mean:9.1f} ± {each.measured.deviation:6.1f}"
        predicted = f"{each.predicted.value:9.1f} ± {each.predicted.stderr or 0:6.1f}"
        note = "   disturbed" if each.disturbed else ""
        print(
            f"  {each.test:6s} predicted {predicted}   measured {measured}   ratio {each.ratio:.3f}{note}", flush=True
        )
    built.path.unlink()
    return [each.ratio for each in found]


def main() -> None:
    asked = options()
    wanted = SpeedOptions(Execution(asked.threads), repetitions=asked.repetitions)
    model, types = read_model(asked.model), parse_types(asked.types)
    with tempfile.TemporaryDirectory() as folder:
        table = speed_table(model, types, wanted, asked.work or Path(folder))
        print(f"{table.machine}, {table.threads} threads, llama.cpp {table.build}; tokens per second")
        logs: list[list[float]] = []
        for name, chosen in assignments(model, types).items():
            print(name)
            logs.append([math.log(ratio) for ratio in ratios(table, model, chosen, wanted, Path(folder))])
    for column, test in enumerate(("pp512", "tg128")):
        values = [row[column] for row in logs]
        mean, worst = sum(values) / len(values), max(values, key=abs)
        print(f"{test}: geometric mean of the ratios {math.exp(mean):.3f}, worst {math.exp(worst):.3f}")


if __name__ == "__main__":
    main()
