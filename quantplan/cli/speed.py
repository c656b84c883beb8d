"""`quantplan speed`: tokens per second of any choice of types, predicted from what this machine was measured to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options

if TYPE_CHECKING:
    from quantplan.devices.speed.measure import SpeedCheck, SpeedOptions
    from quantplan.devices.speed.table import SpeedTable
    from quantplan.quant_type import QuantType
    from quantplan.tensor import Model

_CheckOption = Annotated[
    list[Path] | None, typer.Option("--check", help="Run llama-bench on this built file too, and compare.")
]
_RepetitionsOption = Annotated[int, typer.Option("--repetitions", "-r", min=1, help="Repetitions of llama-bench.")]
_AgainOption = Annotated[bool, typer.Option("--again", help="Measure anew what the cache holds.")]


def speed(
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    types: options.TypesOption = "all",
    check: _CheckOption = None,
    repetitions: _RepetitionsOption = 5,
    again: _AgainOption = False,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Measure this machine's speed by type and matrix shape, and predict tokens per second.

    Products of every type in the model's shapes are timed at batch 1 and 512, the rest of a forward pass with llama-bench on
    small synthetic models; weights are not read. Figures are kept for this machine, llama.cpp build and number of threads.
    Other programs make it slow and wrong: let the machine be quiet.

    Example, in a project: quantplan speed --types Q4_K,Q8_0 --threads 1
    """
    from quantplan.devices.speed.measure import SpeedOptions, check_against_bench, speed_table
    from quantplan.gguf.reader import read_model
    from quantplan.llamacpp.encodable_types import parse_writable

    source = read_model(options.model_path(options.local_or_hub(model, hub)))
    kinds = parse_writable(types)
    wanted = SpeedOptions(options.execution(threads, gpu_layers), repetitions, again)
    if dry_run:
        console.put(_announced(source, kinds, wanted))
        return
    built = [read_model(path) for path in check or ()]

    with console.terminal() as report:
        table = speed_table(source, kinds, wanted, options.cache_folder(), report)
    compared = {each.path.name: check_against_bench(table, each, wanted, report=console.LINES) for each in built}
    _show(table, kinds, compared, as_json)


def _announced(model: Model, kinds: tuple[QuantType, ...], wanted: SpeedOptions) -> str:
    from quantplan.devices.speed.measure import check_layers, pending

    check_layers(model, wanted)
    todo, known = pending(model, kinds, wanted, options.cache_folder())
    return f"{todo} measurements to be made (products, and llama-bench on synthetic models), {known} known already"


def _show(
    table: SpeedTable, kinds: tuple[QuantType, ...], compared: dict[str, list[SpeedCheck]], as_json: bool
) -> None:
    from quantplan.devices.speed.table import GENERATION, PROMPT
    from quantplan.devices.speed.tables import as_fields, check_fields, check_table, shapes_table, uniform_table

    if any(row.disturbed for rows in compared.values() for row in rows):
        console.warn(
            "repetitions of llama-bench differ by more than 5 %: other programs run, the ratios are worth little"
        )
    if as_json:
        checks = {name: check_fields(rows) for name, rows in compared.items()}
        console.put_json(as_fields(table, kinds) | {"check": checks})
        return
    console.say(f"{table.machine}, {table.backend}, {table.threads} threads, llama.cpp {table.build}")
    console.put_table(shapes_table(table, GENERATION), shapes_table(table, PROMPT), uniform_table(table, kinds))
    console.put_table(*(check_table(name, rows) for name, rows in compared.items()))
