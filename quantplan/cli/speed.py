"""`quantplan speed`: tokens per second of any choice of types, predicted from what this machine was measured to do."""

from pathlib import Path

from quantplan.cli import console, options
from quantplan.cli.framework import OutputOptions, command, option
from quantplan.cli.option_groups import MEASURING, ModelOptions, ToolOptions, TypesOptions, repetitions_option
from quantplan.devices.speed.measure import (
    SpeedCheck,
    SpeedOptions,
    check_against_bench,
    check_layers,
    pending,
    speed_table,
    types_to_check,
)
from quantplan.devices.speed.table import GENERATION, PROMPT, SpeedTable
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.quant_type import QuantType
from quantplan.report.speed_table import check_fields, check_table, shapes_table, speed_fields, uniform_table
from quantplan.tensor import Model


@command
def speed(
    model: ModelOptions,
    types: TypesOptions,
    execution: ToolOptions,
    output: OutputOptions,
    check: tuple[Path, ...] = option(
        "Run llama-bench on this built file too, and compare; repeatable.", default=(), panel=MEASURING
    ),
    repetitions: int = repetitions_option(),
    again: bool = option("Measure from scratch, whatever the cache holds.", default=False, panel=MEASURING),
) -> None:
    """Measure this machine's speed by type and matrix shape, and predict tokens per second.

    Products of every type in the model's shapes are timed at batch 1 and 512, the rest of a forward pass with llama-bench on
    small synthetic models; weights are not read. Figures are kept for this machine, llama.cpp build and number of threads.
    Other running programs make the figures wrong: let the machine be idle.

    Example, in a project: quantplan speed --types Q4_K,Q8_0 --threads 1
    """
    source = read_model(options.model_path(model.file))
    chosen = parse_writable(types.types)
    how = SpeedOptions(execution.parsed(), repetitions, again)
    built = [read_model(path) for path in check]
    checked = tuple(kind for model in built for kind in types_to_check(model, source))
    measured = tuple(dict.fromkeys((*chosen, *checked)))
    if output.dry_run:
        console.put(_announced(source, measured, how))
        return
    with console.terminal() as report:
        table = speed_table(source, measured, how, options.cache_folder(), report)
    checks = {model.path.name: check_against_bench(table, model, how, report=console.LINES) for model in built}
    _show(table, chosen, checks, output.as_json)


def _announced(model: Model, types: tuple[QuantType, ...], how: SpeedOptions) -> str:
    check_layers(model, how)
    todo, known = pending(model, types, how, options.cache_folder())
    return f"{todo} measurements to make (products, and llama-bench on synthetic models), {known} are in the cache"


def _show(table: SpeedTable, types: tuple[QuantType, ...], checks: dict[str, list[SpeedCheck]], as_json: bool) -> None:
    if any(row.disturbed for rows in checks.values() for row in rows):
        console.warn(
            "repetitions of llama-bench differ by more than 5 %: other programs are running, the ratios mean little"
        )
    if as_json:
        fields = {name: check_fields(rows) for name, rows in checks.items()}
        console.put_json(speed_fields(table, types) | {"check": fields})
        return
    console.say(f"{table.machine}, {table.backend}, {table.threads} threads, llama.cpp {table.build}")
    console.put_table(shapes_table(table, GENERATION), shapes_table(table, PROMPT), uniform_table(table, types))
    console.put_table(*(check_table(name, rows) for name, rows in checks.items()))
