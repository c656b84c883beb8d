"""Speeds as tables: what files of one type would run at, and what each shape costs per weight."""

from collections.abc import Sequence
from typing import Any

from quantplan.devices.speed.measure import SpeedCheck, uniform_types
from quantplan.devices.speed.table import GENERATION, PROMPT, SpeedTable
from quantplan.measurement import Estimate
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.report.table import Columns, Table, table_of


def uniform_table(table: SpeedTable, types: Sequence[QuantType]) -> Table:
    """Predicted tokens per second of files whose matrices are all of one type."""

    def speed(quant_type: QuantType, batch: int) -> str:
        return _text(table.tokens_per_second(uniform_types(table, quant_type), batch))

    def products(quant_type: QuantType) -> str:
        whole = table.token_ns(uniform_types(table, quant_type), GENERATION).value
        return f"{100 * (1 - table.overhead[GENERATION].of(table.blocks) / whole):.0f}"

    columns: Columns[QuantType] = (
        ("type", lambda quant_type: quant_type.name),
        ("bits", lambda quant_type: f"{quant_type.bits:.2f}"),
        ("generation ± s.e.", lambda quant_type: speed(quant_type, GENERATION)),
        ("prompt ± s.e.", lambda quant_type: speed(quant_type, PROMPT)),
        ("products, % of a generated token", products),
    )
    return table_of("tokens/s of files of one type", columns, types)


def shapes_table(table: SpeedTable, batch: int) -> Table:
    """Picoseconds per active weight and token by type and shape; in generation, where memory decides, GB/s too."""
    shapes = sorted({speed.shape for speed in table.speeds})
    names = sorted({speed.type for speed in table.speeds}, key=lambda name: -BY_NAME[name].bits)
    figures = {(speed.type, speed.shape): _cell(speed.type, speed.at(batch), batch) for speed in table.speeds}
    title = (
        "generation: ps per weight (GB/s)"
        if batch == GENERATION
        else f"prompts, {PROMPT} tokens at once: ps per weight"
    )
    rows = tuple((name, *(figures.get((name, shape), "") for shape in shapes)) for name in names)
    return Table(title, ("type", *map(str, shapes)), rows)


def _cell(name: str, figure: Estimate, batch: int) -> str:
    rate = f" ({BY_NAME[name].bits / 8 / figure.value:.1f})" if batch == GENERATION else ""
    return f"{1000 * figure.value:.1f}{rate}"


def check_table(file: str, compared: Sequence[SpeedCheck]) -> Table:
    """Predicted against measured tokens per second of a built file."""
    return table_of(f"{file}: tokens/s", _CHECK_COLUMNS, compared)


def _text(figure: Estimate) -> str:
    digits = 0 if figure.value >= 1000 else 1 if figure.value >= 100 else 2
    error = "" if figure.stderr is None else f" ± {figure.stderr:.{digits}f}"
    return f"{figure.value:.{digits}f}{error}"


_CHECK_COLUMNS: Columns[SpeedCheck] = (
    ("test", lambda check: check.test),
    ("predicted ± s.e.", lambda check: _text(check.predicted)),
    ("llama-bench ± s.e.", lambda check: _text(Estimate(check.measured.mean, check.measured.stderr))),
    ("predicted / measured", lambda check: f"{check.ratio:.3f}"),
)


def speed_fields(table: SpeedTable, types: Sequence[QuantType]) -> dict[str, Any]:
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
