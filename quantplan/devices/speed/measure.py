"""Speed measured on this machine: products by type and shape in ggml graphs, the rest with llama-bench on a synthetic model.

Every figure is kept by machine, llama.cpp build, threads and backend: the second call measures nothing.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quantplan.devices.speed import matmul
from quantplan.devices.speed.cpu_caches import last_level_cache
from quantplan.devices.speed.synthetic import synthetic_tensors, write_synthetic
from quantplan.devices.speed.table import (
    BATCHES,
    GENERATION,
    PROMPT,
    Overhead,
    Product,
    Shape,
    Speed,
    SpeedTable,
    products,
)
from quantplan.errors import BadUsage, ModelMismatch, NoSpace
from quantplan.execution import Execution, cores
from quantplan.llamacpp import tools
from quantplan.llamacpp.bench import BenchRow, bench
from quantplan.llamacpp.quantize import quantizable
from quantplan.measurement import Estimate
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.records.cache import Cache, Plain
from quantplan.records.files import make_folder
from quantplan.tensor import Model

VERSION = 1  # 1: first
GENERATED = 128  # tokens that llama-bench generates by default
# weights that are visited in turn: all of a small model, so that caches help as they will help it, else enough to
# leave the last-level cache
_WORKING_SET = 256 << 20
_SYNTHETIC_BYTES = 400 << 20
_LEAST_BLOCKS, _MOST_BLOCKS = 2, 16
_SYNTHETIC_TYPE = BY_NAME["Q4_0"]  # fits rows of any model, needs no imatrix, and is fast: little is taken away again
_TIMINGS = 2  # of each product, the second after all others had their first: the faster one counts
_TURNS = 3  # both sizes in turn: what disturbs the machine for a second shall not hit one of them alone
_LEAST_ERROR = 0.01  # of a figure: the same measurement a minute later differs by as much on a quiet machine
_DISTURBED = 0.05  # repetitions on a quiet machine differ by 0.3 to 2 %


@dataclass(frozen=True)
class SpeedOptions:
    """``execution.gpu_layers``: 0, or more than the model has blocks. ``again``: forget what was measured."""

    execution: Execution = Execution()
    repetitions: int = 5  # of llama-bench
    again: bool = False


@dataclass(frozen=True)
class SpeedCheck:
    """A built file's speed in tokens per second, predicted and measured. ``ratio``: predicted over measured."""

    test: str
    predicted: Estimate
    measured: BenchRow

    @property
    def ratio(self) -> float:
        return self.predicted.value / self.measured.mean

    @property
    def disturbed(self) -> bool:
        """Whether llama-bench's repetitions differ so much that something else ran at the same time."""
        return self.measured.deviation > _DISTURBED * self.measured.mean


@dataclass(frozen=True)
class TimingTask:
    """One product to be timed."""

    quant_type: QuantType
    shape: Shape
    batch: int
    working_set: int

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys in the cache, one for each time that it is timed."""
        name = f"{self.quant_type} {self.shape} {self.batch} tokens {self.working_set} bytes"
        return tuple(f"{name} {turn}" for turn in range(_TIMINGS))


def speed_table(
    model: Model,
    types: Iterable[QuantType],
    options: SpeedOptions,
    cache_folder: Path,
    report: Reporter = SILENT,
) -> SpeedTable:
    """The speeds of every type in every shape of the model's matrices, and what a token costs besides.

    Measured for ``types`` (where rows do not fit one, for its fallback) and the types that the model is stored in; header-only
    models will do. Raises BadUsage for a part of the blocks on a GPU, ToolFailed, ToolMissing, NoSpace.
    """
    check_layers(model, options)
    matrices = products(model, quantizable(model))
    wanted_types = tuple(types)
    timings = _cache(options, cache_folder)
    todo = tasks(model, matrices, wanted_types)
    runs = _timings(todo)
    _measure_missing(timings, runs, partial(_timed, options), "speed of matrix products", report)
    speeds = best_speeds(todo, timings)
    table = SpeedTable(
        machine=matmul.device_name(options.execution.gpu_layers > 0),
        build=tools.build(),
        backend=options.execution.backend,
        threads=options.execution.threads_used,
        model_digest=model.digest,
        blocks=model.main_blocks,
        products=matrices,
        speeds=speeds,
        overhead=dict.fromkeys(BATCHES, Overhead(0.0, 0.0, 0.0)),
        stored={name: model.by_name[name].type for name in matrices},
    )
    return _with_overhead(model, table, options, timings, report)


def _measure_missing(
    timings: Cache[Any],
    runs: Sequence[tuple[Any, str]],
    measure: Callable[[Any], dict[str, Any]],
    stage: str,
    report: Reporter,
) -> None:
    """Measures the subject of each (subject, key) whose key the cache does not have; each is kept at once."""
    missing = [(subject, key) for subject, key in runs if key not in timings]
    with report.stage(stage, len(runs)) if missing else SILENT.stage(stage) as advance:
        advance(len(runs) - len(missing))
        for subject, key in missing:
            timings.put(key, measure(subject))
            advance(1)


def pending(model: Model, types: tuple[QuantType, ...], options: SpeedOptions, cache_folder: Path) -> tuple[int, int]:
    """How many measurements ``speed_table`` would make, and how many it knows already: products and runs of llama-bench."""
    timings = _cache(options, cache_folder)
    matrices = products(model, quantizable(model))
    keys = [key for _, key in _timings(tasks(model, matrices, types))]
    keys += [key for _, key in _synthetic_runs(model, matrices)]
    known = sum(key in timings for key in keys)
    return len(keys) - known, known


def check_layers(model: Model, options: SpeedOptions) -> None:
    """BadUsage where some blocks would run on a GPU and some not: a tensor's speed would depend on its block."""
    gpu_layers = options.execution.gpu_layers
    if 0 < gpu_layers <= model.blocks or gpu_layers < 0:
        raise BadUsage(
            f"--gpu-layers {gpu_layers}: speed is predicted with all {model.blocks} blocks and the output on the "
            f"GPU (--gpu-layers {model.blocks + 1} or more) or none (0)"
        )


def tasks(model: Model, matrices: Mapping[str, Product], types: tuple[QuantType, ...]) -> tuple[TimingTask, ...]:
    """All products to be timed, in the shapes that occur, at both batches: types and their fallbacks, stored types, and the
    type of the synthetic models."""
    limit = max(_WORKING_SET, 2 * last_level_cache())
    chosen: dict[tuple[str, Shape], TimingTask] = {}
    stored = {model.by_name[name].type for name in matrices}
    for quant_type in dict.fromkeys([*types, *sorted(stored, key=str), _SYNTHETIC_TYPE]):
        whole = {name: fitted(quant_type, product.shape.columns) for name, product in matrices.items()}
        size = sum(model.by_name[name].bytes_as(fit) for name, fit in whole.items())
        for name, product in matrices.items():
            # a fallback that is measured anyway keeps its own working set
            key = whole[name].name, product.shape
            if key not in chosen or whole[name] == quant_type:
                chosen[key] = TimingTask(whole[name], product.shape, GENERATION, min(size, limit))
    both = (
        TimingTask(task.quant_type, task.shape, batch, task.working_set)
        for task in chosen.values()
        for batch in BATCHES
    )
    return tuple(both)


def _cache(options: SpeedOptions, folder: Path) -> Cache[Any]:
    gpu = options.execution.gpu_layers > 0
    machine = (matmul.device_name(), cores(), matmul.device_name(gpu))
    execution = options.execution
    timings: Cache[Any] = Cache(
        Plain(), folder, "speed", VERSION, machine, tools.build(), execution.threads_used, execution.backend
    )
    if options.again:
        timings.forget()
    return timings


def _timings(todo: Sequence[TimingTask]) -> list[tuple[TimingTask, str]]:
    """Every product in turn, and then again."""
    return [(task, task.keys[turn]) for turn in range(_TIMINGS) for task in todo]


def _timed(options: SpeedOptions, task: TimingTask) -> dict[str, object]:
    shape = matmul.measured_shape(task.quant_type, task.shape, task.batch)
    load = matmul.Load(task.batch, task.working_set, options.execution.threads_used, options.execution.gpu_layers > 0)
    timing = matmul.time_product(task.quant_type, shape, load)
    weights = shape.active * task.batch
    return {"ns": timing.ns / weights, "stderr": timing.stderr / weights, "runs": timing.runs, "rows": shape.rows}


def best_speeds(todo: Iterable[TimingTask], timings: Cache[Any]) -> tuple[Speed, ...]:
    by_key = {(task.quant_type, task.shape, task.batch): task for task in todo}

    def figure(task: TimingTask) -> Estimate:
        entry = min((timings[key] for key in task.keys), key=lambda timing: timing["ns"])
        return Estimate(entry["ns"], math.hypot(entry["stderr"], _LEAST_ERROR * entry["ns"]))

    return tuple(
        Speed(quant_type.name, shape, figure(task), figure(by_key[quant_type, shape, PROMPT]), task.working_set)
        for (quant_type, shape, batch), task in by_key.items()
        if batch == GENERATION
    )


# --- what is no product


def _with_overhead(
    model: Model, table: SpeedTable, options: SpeedOptions, timings: Cache[Any], report: Reporter
) -> SpeedTable:
    """llama-bench on synthetic models of two sizes, less their products: a fixed part and one per block."""
    types = uniform_types(table, _SYNTHETIC_TYPE)
    runs = _synthetic_runs(model, table.products)
    assert timings.folder is not None
    bench_size = partial(_bench_synthetic, model, types, options, timings.folder)
    _measure_missing(timings, runs, bench_size, "speed of synthetic models", report)
    fits = {}
    for batch in BATCHES:
        samples: dict[int, list[float]] = {}
        for blocks, key in runs:
            samples.setdefault(blocks, []).extend(timings[key][str(batch)])
        points = {blocks: _beside(model, table, blocks, types, batch, samples[blocks]) for blocks in samples}
        fits[batch] = overhead_line(points, table.blocks)
    return replace(table, overhead=fits)


def _synthetic_runs(model: Model, matrices: Mapping[str, Product]) -> list[tuple[int, str]]:
    """Number of blocks and key of each run of llama-bench, the sizes in turn."""
    sizes = block_counts(model, _uniform(matrices, _SYNTHETIC_TYPE))
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


def _bench_synthetic(
    model: Model, types: Mapping[str, QuantType], options: SpeedOptions, folder: Path, blocks: int
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
            prompt=(PROMPT,),
            generation=(GENERATED,),
            repetitions=options.repetitions,
            execution=options.execution,
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


# --- the check


def check_against_bench(
    table: SpeedTable,
    built: Model,
    options: SpeedOptions,
    *,
    run: Callable[..., list[BenchRow]] = bench,
    report: Reporter = SILENT,
) -> list[SpeedCheck]:
    """pp512 and tg128 of a built file: predicted from its types, measured with llama-bench.

    ModelMismatch where the file's matrices are not those that the table was measured for.
    """
    types = {tensor.name: tensor.type for tensor in built.tensors}
    lacking = sorted(table.products.keys() - types.keys())
    if lacking:
        raise ModelMismatch(f"{built.path} has no {lacking[0]}: it was not made from the model whose speed is known")
    rows = run(
        built.path,
        prompt=(PROMPT,),
        generation=(GENERATED,),
        repetitions=options.repetitions,
        execution=replace(options.execution, threads=table.threads),
        report=report,
    )
    expected = {PROMPT: table.tokens_per_second(types, PROMPT), 0: table.tokens_per_second(types, GENERATION)}
    return [SpeedCheck(row.name, expected[row.prompt], row) for row in rows]
