"""Start-up, analyze against llama-imatrix --show-statistics, and memory of the round trip; each a ratio within one run.

    python benchmarks/speed.py MODEL.gguf [--values 30000000]

The imatrix is made up (seeded): 48 blocks of 7 tensors, dense or with as many experts as make up the values. Both programs read
the same file, in turn, and medians of five runs are shown. 1.3 M values are an 8B dense model, 30 M one of 30B with 128 experts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from quantplan.formats.imatrix_files import write_imatrix
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.llamacpp import tools

RUNS = 5
# matrices that share their input have the same sums in a real imatrix
INPUTS = (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))
QUANTPLAN = [sys.executable, "-m", "quantplan.cli.main"]
MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from quantplan.analyze.round_trip import round_trips
from quantplan.formats.gguf import read_model
from quantplan.quant_type import parse_types
model = read_model(Path(sys.argv[1]))
tensor = max(model.tensors, key=lambda each: each.elements)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in round_trips(model, [(tensor, parse_types("k"))], None):
    pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / tensor.bytes, tensor.bytes / 1e6)
"""


def seconds(argv: list[str], environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def made_up_imatrix(path: Path, values: int) -> None:
    random = np.random.default_rng(0)
    blocks, roles = 48, sum(map(len, INPUTS))
    columns = min(8192, values // blocks // roles)
    experts = values // blocks // roles // columns
    entries = {}
    for block in range(blocks):
        for inputs in INPUTS:
            sums = random.lognormal(0, 1, (experts, columns)).astype(np.float32) * 1e4
            for role in inputs:
                name = f"blk.{block}.{role}.weight"
                entries[name] = ImatrixEntry(name, sums, np.full(experts, 100_000, np.int64))
    write_imatrix(Imatrix(path, entries, ("made-up.txt",), 200, 512, False, ""), path)


def analyze(model: Path, values: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imatrix.gguf"
        made_up_imatrix(path, values)
        theirs = [str(tools.find("llama-imatrix")), "--show-statistics", "--in-file", str(path), "-m", str(model)]
        pairs = [
            (seconds([*QUANTPLAN, "analyze", str(path)]), seconds(theirs, tools.environment())) for _ in range(RUNS)
        ]
        own, tool = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(
            f"analyze, {path.stat().st_size / 1e6:.1f} MB: {own:.2f} s, llama-imatrix {tool:.2f} s, ratio {ratio:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--values", type=int, nargs="+", default=[1_300_000, 30_000_000, 250_000_000])
    asked = parser.parse_args()
    print(f"quantplan --help: {statistics.median(seconds([*QUANTPLAN, '--help']) for _ in range(RUNS)):.2f} s")
    ratio, size = subprocess.run(
        [sys.executable, "-c", MEMORY, str(asked.model)], capture_output=True, text=True, check=True
    ).stdout.split()
    print(f"round trip: peak memory grows by {float(ratio):.1f} x the tensor ({float(size):.1f} MB as stored)")
    for values in asked.values:
        analyze(asked.model, values)
    print(f"peak memory of this script: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
