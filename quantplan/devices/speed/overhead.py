"""What a token costs besides matrix products: llama-bench on small synthetic models, less their products."""

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantplan.devices.speed import matmul
from quantplan.devices.speed.synthetic import synthetic_tensors, write_synthetic
from quantplan.devices.speed.table import BATCHES, GENERATION, PROMPT, Overhead, Product, SpeedTable, products
from quantplan.errors import NoSpace
from quantplan.execution import Execution
from quantplan.llamacpp.bench import BenchTests, bench
from quantplan.measurement import Estimate
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.records.cache import Cache
from quantplan.records.files import make_folder
from quantplan.tensor import Model

GENERATED = 128  # tokens that llama-bench generates by default
SYNTHETIC_TYPE = BY_NAME["Q4_0"]  # fits rows of any model, needs no imatrix, and is fast: little is taken away again
_SYNTHETIC_BYTES = 400 << 20
_LEAST_BLOCKS, _MOST_BLOCKS = 2, 16
_TURNS = 3  # both sizes in turn: what disturbs the machine for a second shall not hit one of them alone


def overheads(
    model: Model, table: SpeedTable, runs: Sequence[tuple[int, str]], timings: Cache[Any]
) -> dict[int, Overhead]:
    """By batch, from the ``timings`` of all ``runs`` (see ``synthetic_runs``): a fixed part and one per block."""
    types = uniform_types(table, SYNTHETIC_TYPE)
    fits = {}
    for batch in BATCHES:
        samples: dict[int, list[float]] = {}
        for blocks, key in runs:
            samples.setdefault(blocks, []).extend(timings[key][str(batch)])
        points = {blocks: _beside(model, table, blocks, types, batch, samples[blocks]) for blocks in samples}
        fits[batch] = overhead_line(points, table.blocks)
    return fits


def synthetic_runs(model: Model, matrices: Mapping[str, Product]) -> list[tuple[int, str]]:
    """Number of blocks and key of each run of llama-bench, the sizes in turn."""
    sizes = block_counts(model, _uniform(matrices, SYNTHETIC_TYPE))
    return [(size, f"synthetic {model.digest} {size} blocks {turn}") for turn in range(_TURNS) for size in sizes]


def uniform_types(table: SpeedTable, quant_type: QuantType) -> dict[str, QuantType]:
    """All products' tensors in one type, or in its fallback where rows do not fit."""
    return _uniform(table.products, quant_type)


def _uniform(matrices: Mapping[str, Product], quant_type: QuantType) -> dict[str, QuantType]:
    return {name: fitted(quant_type, product.shape.columns) for name, product in matrices.items()}


def block_counts(model: Model, types: Mapping[str, QuantType]) -> tuple[int, ...]:
    """Two numbers of blocks for the synthetic models, or one where the model has a single block.

    As many as 400 MiB hold, at most 16; all of the model's where they fit, then nothing is extrapolated. At least two.
    """
    run = model.main_blocks
    per_block = max(_block_bytes(model, types).values())
    most = min(run, max(_LEAST_BLOCKS, min(_MOST_BLOCKS, _SYNTHETIC_BYTES // per_block)))
    return (most,) if most == 1 else (max(1, most // 2), most)


def _block_bytes(model: Model, types: Mapping[str, QuantType]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for tensor in model.tensors:
        if tensor.block is not None:
            size = tensor.bytes_as(types.get(tensor.name, tensor.type))
            sizes[tensor.block] = sizes.get(tensor.block, 0) + size
    return sizes


def bench_synthetic(
    model: Model,
    types: Mapping[str, QuantType],
    execution: Execution,
    repetitions: int,
    folder: Path,
    blocks: int,
) -> dict[str, list[float]]:
    """Nanoseconds per token of each repetition, by batch."""
    make_folder(folder)
    remove_orphans(folder)
    needed = sum(tensor.bytes for tensor in synthetic_tensors(model, blocks, types).values())
    if shutil.disk_usage(folder).free < needed + (1 << 20):
        raise NoSpace(f"{folder}: {needed / 1e6:.0f} MB are needed for a synthetic model of {blocks} blocks; free some")
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"synthetic-{os.getpid()}-") as place:
        path = write_synthetic(model, blocks, types, Path(place) / "synthetic.gguf")
        rows = bench(
            path,
            BenchTests((PROMPT,), (GENERATED,)),
            repetitions=repetitions,
            execution=execution,
        )
    return {
        str(batch): [1e9 / speed for speed in row.samples]
        for batch, row in zip((PROMPT, GENERATION), rows, strict=True)
    }


def remove_orphans(folder: Path) -> None:
    """Synthetic models of processes that were killed: up to hundreds of megabytes that nobody would miss."""
    for orphan in folder.glob("synthetic-*-*"):
        owner = orphan.name.split("-")[1]
        if os.name == "posix" and owner.isdigit() and not _runs(int(owner)):
            shutil.rmtree(orphan, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beside(
    model: Model, table: SpeedTable, blocks: int, types: Mapping[str, QuantType], batch: int, samples: list[float]
) -> Estimate:
    """Nanoseconds per token of the synthetic model less those of its products."""
    kept = synthetic_tensors(model, blocks, types)
    planned = {kept[name].name: name for name in table.products if name in kept}
    small = replace(model, blocks=blocks, tensors=tuple(kept.values()), metadata=model.metadata | _no_nextn(model))
    total, errors = 0.0, []
    for name, product in products(small, (small.by_name[name] for name in planned)).items():
        original = planned[name]
        cost = table.product_ns(product, types[original], batch, like=table.products[original].shape)
        total += cost.value
        errors.append(cost.stderr or 0.0)
    whole = matmul.undisturbed(samples)
    return Estimate(whole.ns - total, math.hypot(whole.stderr, *errors))


def _no_nextn(model: Model) -> dict[str, object]:
    return {f"{model.architecture}.nextn_predict_layers": 0}


def overhead_line(points: Mapping[int, Estimate], blocks: int) -> Overhead:
    """The straight line through the overheads of two sizes, carried on to ``blocks``."""
    (small, first), (large, second) = min(points.items()), max(points.items())
    if small == large:
        return Overhead(0.0, second.value / large, second.stderr or 0.0)
    slope = (second.value - first.value) / (large - small)
    far, near = (blocks - small) / (large - small), (large - blocks) / (large - small)
    error = math.hypot(far * (second.stderr or 0.0), near * (first.stderr or 0.0))
    return Overhead(second.value - slope * large, slope, error)
