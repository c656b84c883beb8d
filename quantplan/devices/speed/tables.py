"""Speeds as tables: what files of one type would run at, and what each shape costs per weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from quantplan.devices.speed.measure import SpeedCheck, uniform_types
from quantplan.devices.speed.table import GENERATION, PROMPT, SpeedTable
from quantplan.measurement import Estimate
from quantplan.quant_type import BY_NAME, QuantType


def uniform_table(table: SpeedTable, types: Sequence[QuantType]) -> Table:
    """Predicted tokens per second of files whose matrices are all of one type."""
    title = "tokens/s of files of one type"
    shown = Table("type", title=title, title_justify="left")
    for heading in ("bits", "generation ± s.e.", "prompt ± s.e.", "products, % of a generated token"):
        shown.add_column(heading, justify="right")
    for quant_type in types:
        chosen = uniform_types(table, quant_type)
        overhead = table.overhead[GENERATION].of(table.blocks) / table.token_ns(chosen, GENERATION).value
        speeds = (_text(table.tokens_per_second(chosen, batch)) for batch in (GENERATION, PROMPT))
        shown.add_row(quant_type.name, f"{quant_type.bits:.2f}", *speeds, f"{100 * (1 - overhead):.0f}")
    return shown


def shapes_table(table: SpeedTable, batch: int) -> Table:
    """Picoseconds per active weight and token by type and shape; in generation, where memory decides, GB/s too."""
    shapes = sorted({speed.shape for speed in table.speeds})
    title = (
        "generation: ps per weight (GB/s)"
        if batch == GENERATION
        else f"prompts, {PROMPT} tokens at once: ps per weight"
    )
    shown = Table("type", title=title, title_justify="left")
    for shape in shapes:
        shown.add_column(str(shape), justify="right")
    by_key = {(speed.type, speed.shape): speed for speed in table.speeds}
    for name in sorted({speed.type for speed in table.speeds}, key=lambda name: -BY_NAME[name].bits):
        cells = []
        for shape in shapes:
            speed = by_key.get((name, shape))
            cells.append(_cell(name, speed.at(batch), batch) if speed else "")
        shown.add_row(name, *cells)
    return shown


def _cell(name: str, figure: Estimate, batch: int) -> str:
    rate = f" ({BY_NAME[name].bits / 8 / figure.value:.1f})" if batch == GENERATION else ""
    return f"{1000 * figure.value:.1f}{rate}"


def check_table(file: str, compared: Sequence[SpeedCheck]) -> Table:
    """Predicted against measured tokens per second of a built file."""
    shown = Table("test", title=f"{file}: tokens/s", title_justify="left")
    for heading in ("predicted ± s.e.", "llama-bench ± s.e.", "predicted / measured"):
        shown.add_column(heading, justify="right")
    for check in compared:
        measured = _text(Estimate(check.measured.mean, check.measured.stderr))
        shown.add_row(check.test, _text(check.predicted), measured, f"{check.ratio:.3f}")
    return shown


def _text(figure: Estimate) -> str:
    digits = 0 if figure.value >= 1000 else 1 if figure.value >= 100 else 2
    error = "" if figure.stderr is None else f" ± {figure.stderr:.{digits}f}"
    return f"{figure.value:.{digits}f}{error}"


def as_fields(table: SpeedTable, types: Sequence[QuantType]) -> dict[str, Any]:
    """The table as JSON has it; times in nanoseconds."""
    return {
        "machine": table.machine,
        "llama_cpp": table.build,
        "backend": table.backend,
        "threads": table.threads,
        "speeds": [
            {
                "type": speed.type,
                "columns": speed.shape.columns,
                "rows": speed.shape.rows,
                "experts": speed.shape.experts,
                "used": speed.shape.used,
                "working_set": speed.working_set,
                "generation_ns_per_weight": speed.generation.value,
                "generation_err": speed.generation.stderr,
                "prompt_ns_per_weight": speed.prompt.value,
                "prompt_err": speed.prompt.stderr,
            }
            for speed in table.speeds
        ],
        "overhead_ns_per_token": {
            name: {"value": table.overhead[batch].of(table.blocks), "err": table.overhead[batch].stderr}
            for name, batch in (("generation", GENERATION), ("prompt", PROMPT))
        },
        "uniform": [_uniform_fields(table, quant_type) for quant_type in types],
    }


def _uniform_fields(table: SpeedTable, quant_type: QuantType) -> dict[str, Any]:
    chosen = uniform_types(table, quant_type)
    generation, prompt = (table.tokens_per_second(chosen, batch) for batch in (GENERATION, PROMPT))
    return {
        "type": quant_type.name,
        "generation_tps": generation.value,
        "generation_err": generation.stderr,
        "prompt_tps": prompt.value,
        "prompt_err": prompt.stderr,
    }


def check_fields(compared: Sequence[SpeedCheck]) -> list[dict[str, Any]]:
    return [
        {
            "test": check.test,
            "predicted_tps": check.predicted.value,
            "predicted_err": check.predicted.stderr,
            "measured_tps": check.measured.mean,
            "measured_err": check.measured.stderr,
            "ratio": check.ratio,
        }
        for check in compared
    ]
