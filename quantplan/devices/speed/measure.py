"""Speed measured on this machine: products by type and shape in ggml graphs, the rest with llama-bench on a synthetic model.

Every figure is kept by machine, llama.cpp build, threads and backend: the second call measures nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from quantplan.abilities import check_predicts, check_speed_tests
from quantplan.devices.speed import matmul
from quantplan.devices.speed.cpu_caches import last_level_cache
from quantplan.devices.speed.overhead import (
    GENERATED,
    SYNTHETIC_TYPE,
    bench_synthetic,
    overheads,
    synthetic_runs,
    uniform_types,
)
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
from quantplan.errors import BadUsage, ModelMismatch
from quantplan.execution import Execution, cores
from quantplan.llamacpp import tools
from quantplan.llamacpp.bench import BenchRow, BenchTests, bench
from quantplan.llamacpp.quantize import quantizable
from quantplan.measurement import Estimate
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType, fitted
from quantplan.records.cache import Cache, Plain
from quantplan.tensor import Model

VERSION = 1  # 1: first
# weights that are visited in turn: all of a small model, so that caches help as they will help it, else enough to
# leave the last-level cache
_WORKING_SET = 256 << 20
_TIMINGS = 2  # of each product, the second after all others had their first: the faster one counts
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
    models will do. Raises BadUsage for a model that generates no text and for a part of the blocks on a GPU, ToolFailed,
    ToolMissing, NoSpace.
    """
    check_predicts(model)
    check_speed_tests(model, max(PROMPT, GENERATED))
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
    keys += [key for _, key in synthetic_runs(model, matrices)]
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
    for quant_type in dict.fromkeys([*types, *sorted(stored, key=str), SYNTHETIC_TYPE]):
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


def _with_overhead(
    model: Model, table: SpeedTable, options: SpeedOptions, timings: Cache[Any], report: Reporter
) -> SpeedTable:
    """With what llama-bench takes for synthetic models of two sizes, less their products."""
    runs = synthetic_runs(model, table.products)
    assert timings.folder is not None
    types = uniform_types(table, SYNTHETIC_TYPE)
    bench_size = partial(bench_synthetic, model, types, options.execution, options.repetitions, timings.folder)
    _measure_missing(timings, runs, bench_size, "speed of synthetic models", report)
    return replace(table, overhead=overheads(model, table, runs, timings))


# --- the check


def types_to_check(built: Model, model: Model) -> tuple[QuantType, ...]:
    """The types whose speed predicts that of a file built from ``model``.

    ModelMismatch where its matrices are not the model's, which is known before anything is measured.
    """
    names = products(model, quantizable(model))
    for name in names:
        if name not in built.by_name or built.by_name[name].shape != model.by_name[name].shape:
            raise ModelMismatch(
                f"{built.path}: {name} is {'another shape' if name in built.by_name else 'missing'}, so it was not made from "
                f"{model.path}; give the model that it was made from"
            )
    return tuple(dict.fromkeys(built.by_name[name].type for name in names))


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
    absent = sorted(table.products.keys() - types.keys())
    if absent:
        raise ModelMismatch(f"{built.path} has no {absent[0]}: it was not made from the model whose speed is known")
    expected = {PROMPT: table.tokens_per_second(types, PROMPT), 0: table.tokens_per_second(types, GENERATION)}
    rows = run(
        built.path,
        BenchTests((PROMPT,), (GENERATED,)),
        repetitions=options.repetitions,
        execution=replace(options.execution, threads=table.threads),
        report=report,
    )
    return [SpeedCheck(row.name, expected[row.prompt], row) for row in rows]
