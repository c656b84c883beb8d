"""What takes how long, each a ratio within one run.

    python benchmarks/speed.py MODEL.gguf [--only table sampling] [--values 30000000] [--types k] [--gigabytes 1.2]

start     `quantplan --help`, median of five.
memory    of the round trip of the model's largest tensor.
analyze   against llama-imatrix --show-statistics on the same made-up imatrix of 48 blocks of 7 tensors, dense or with as many
          experts as make up --values; in turn, medians of five runs. 1.3 M values are an 8B dense model, 30 M one of 30B with
          128 experts.
table     the round trip of every weight of MODEL in every type of --types, in one process, against llama-quantize writing MODEL
          in each of these types, one process each; both with a made-up imatrix and on all cores.
sampling  default sampling of rows against every weight on a made-up F16 model of --gigabytes (blocks of the shape of Qwen3-8B,
          rows and columns of very different size), and what sampling costs a plan: the plans of both tables, scored in the
          full one.

Imatrices and weights are seeded. The analyze part reads what it wrote just before, so files lie in the page cache for both sides.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from quantplan.execution import cores
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model
from quantplan.gguf.writer import write_header_only
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.llamacpp import tools
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.llamacpp.quantize import Recipe, Rule, argv
from quantplan.planning.request import PlanRequest, quantizable
from quantplan.planning.solving import plan_for
from quantplan.quant_type import BY_NAME
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.tensor import Model

RUNS = 5
# matrices that share their input have the same sums in a real imatrix
INPUTS = (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))
QUANTPLAN = [sys.executable, "-m", "quantplan.cli.main"]
MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from quantplan.sensitivity.round_trip import round_trips
from quantplan.gguf.reader import read_model
from quantplan.quant_type import parse_types
model = read_model(Path(sys.argv[1]))
tensor = max(model.tensors, key=lambda each: each.elements)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in round_trips(model, [(tensor, parse_types("k"))], None):
    pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / tensor.bytes, tensor.bytes / 1e6)
"""


def seconds(words: list[str], environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
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


# --- the round trip against llama-quantize, and sampled against whole

TABLE = """
import sys
from pathlib import Path
from quantplan.planning.request import quantizable
from quantplan.sensitivity.estimate import DEFAULT_SAMPLE, SensitivityOptions, price
from quantplan.sensitivity.probe import ProbeOptions
from quantplan.gguf.reader import read_model
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.llamacpp.encodable_types import parse_writable
model, imatrix, types, sample, out = sys.argv[1:]
source = read_model(Path(model))
options = SensitivityOptions(parse_writable(types), ProbeOptions(512), None if sample == "full" else DEFAULT_SAMPLE)
priced = price(source, quantizable(source), read_imatrix(Path(imatrix)), None, options, Path(out).parent / sample)
SENSITIVITY_TABLES.write(priced.table, Path(out))
"""
BUDGETS = ("3bpw", "3.5bpw", "4bpw", "4.5bpw", "5bpw", "6bpw")


def sensitivity_table(model: Path, imatrix: Path, types: str, sample: str, folder: Path) -> tuple[float, Path]:
    """(seconds, sensitivity table) of the round trip, the start of the process and its caches included."""
    out = folder / f"{model.stem}-{sample}.json"
    return seconds([sys.executable, "-c", TABLE, str(model), str(imatrix), types, sample, str(out)]), out


def imatrix_for(model: Model, path: Path) -> Path:
    """Mean squares that spread over two orders of magnitude, for every matrix that a plan decides."""
    random, entries = np.random.default_rng(1), {}
    for tensor in quantizable(model):
        sums = random.lognormal(0, 1, (tensor.experts, tensor.columns)).astype(np.float32) * 1e4
        entries[tensor.name] = ImatrixEntry(tensor.name, sums, np.full(tensor.experts, 10_000, np.int64))
    write_imatrix(Imatrix(path, entries, ("made-up.txt",), 200, 512, False, ""), path)
    return path


def against_llama_quantize(path: Path, types: str) -> None:
    model = read_model(path)
    kinds = [kind for kind in parse_writable(types) if kind.family != "float"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imatrix = imatrix_for(model, folder / "imatrix.gguf")
        own, _ = sensitivity_table(path, imatrix, ",".join(kind.name for kind in kinds), "full", folder)
        tool = 0.0
        for kind in kinds:
            recipe = Recipe("Q8_0", (Rule(".", kind),), imatrix=imatrix, allow_requantize=True)
            words = argv(model.path, recipe, folder / "out.gguf", cores())
            tool += seconds([str(tools.find(words[0])), *words[1:]], tools.environment())
    print(
        f"table, {model.elements / 1e6:.0f} M weights in {len(kinds)} types on {cores()} cores: {own:.1f} s, "
        f"llama-quantize {tool:.1f} s, ratio {own / tool:.2f}"
    )


def made_up_model(path: Path, gigabytes: float, width: int = 4096) -> Path:
    """Qwen3 blocks in F16; rows and columns of a matrix differ in size by factors, weights have heavy tails."""
    forward, keys = 3 * width, width // 4
    block = {
        "attn_q": (width, width),
        "attn_k": (width, keys),
        "attn_v": (width, keys),
        "attn_output": (width, width),
        "ffn_gate": (width, forward),
        "ffn_up": (width, forward),
        "ffn_down": (forward, width),
    }
    blocks = max(2, math.ceil(gigabytes * 1e9 / 2 / sum(math.prod(shape) for shape in block.values())))
    shapes = {"token_embd.weight": (width, 1024), "output.weight": (width, 1024), "output_norm.weight": (width,)}
    shapes |= {f"blk.{at}.{role}.weight": shape for at in range(blocks) for role, shape in block.items()}
    shapes |= {f"blk.{at}.{role}_norm.weight": (width,) for at in range(blocks) for role in ("attn", "ffn")}
    numbers = {
        "block_count": blocks,
        "context_length": 512,
        "embedding_length": width,
        "feed_forward_length": forward,
        "attention.head_count": width // 128,
        "attention.head_count_kv": keys // 128 or 1,
        "attention.key_length": 128,
        "attention.value_length": 128,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    stored = ((name, shape, BY_NAME["F16" if len(shape) > 1 else "F32"]) for name, shape in shapes.items())
    write_header_only(path, "qwen3", {f"qwen3.{key}": value for key, value in numbers.items()}, stored)
    random = np.random.default_rng(0)
    with path.open("r+b") as file:
        for tensor in read_model(path).tensors:
            file.seek(tensor.offset)
            columns = random.lognormal(0, 0.3, tensor.columns).astype(np.float32)
            for start in range(0, tensor.rows, 1024):
                rows = min(1024, tensor.rows - start)
                weights = random.standard_t(5, (rows, tensor.columns)).astype(np.float32) * 0.02 * columns
                weights *= random.lognormal(0, 0.5, (rows, 1)).astype(np.float32)
                file.write(weights.astype(np.float16 if tensor.type.name == "F16" else np.float32).tobytes())
    return path


def sampling(gigabytes: float, types: str, width: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = read_model(made_up_model(folder / "model.gguf", gigabytes, width))
        imatrix = imatrix_for(model, folder / "imatrix.gguf")
        took, files = zip(
            *(sensitivity_table(model.path, imatrix, types, each, folder) for each in ("default", "full")), strict=True
        )
        print(
            f"sampling, {model.file_bytes / 1e9:.2f} GB: {took[0]:.1f} s, every weight {took[1]:.1f} s, "
            f"{took[1] / took[0]:.1f} times as fast"
        )
        sampled, full = (SENSITIVITY_TABLES.read(file) for file in files)
        for budget in BUDGETS:
            request = PlanRequest(model, read_imatrix(imatrix), parse_writable(types), budget)
            plans = [plan_for(request, table)[0] for table in (sampled, full)]
            true = [sum(row.damage(plan.types[name].name) for name, row in full.rows.items()) for plan in plans]
            print(
                f"  {budget}: damage of the sampled table's plan over that of the full one's: {true[0] / true[1]:.5f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parts = ("start", "memory", "analyze", "table", "sampling")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--values", type=int, nargs="+", default=[1_300_000, 30_000_000, 250_000_000])
    parser.add_argument("--types", default="all,-F16", help="of the table and sampling parts")
    parser.add_argument("--gigabytes", type=float, default=1.2, help="of the sampling part's model")
    parser.add_argument("--width", type=int, default=4096, help="of the sampling part's model")
    asked = parser.parse_args()
    if "start" in asked.only:
        print(f"quantplan --help: {statistics.median(seconds([*QUANTPLAN, '--help']) for _ in range(RUNS)):.2f} s")
    if "memory" in asked.only:
        memory(asked.model)
    for values in asked.values if "analyze" in asked.only else ():
        analyze(asked.model, values)
    if "table" in asked.only:
        against_llama_quantize(asked.model, asked.types)
    if "sampling" in asked.only:
        sampling(asked.gigabytes, asked.types, asked.width)
    print(f"peak memory of this script: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def memory(model: Path) -> None:
    words = [sys.executable, "-c", MEMORY, str(model)]
    ratio, size = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    print(f"round trip: peak memory grows by {float(ratio):.1f} x the tensor ({float(size):.1f} MB as stored)")


if __name__ == "__main__":
    main()
