"""The formats of plans, sensitivity tables, measurements, comparisons and runs. docs/formats.md has every field."""

import math
from collections.abc import Callable
from typing import Any

from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.comparison import KLD, Comparison, Gap, Row
from quantplan.measurement import PERCENTILES, Conditions, DomainFigures, Measurement
from quantplan.plan import ImatrixUse, Plan
from quantplan.quant_type import quant_type
from quantplan.records.codec import Fields, RecordFormat, register, shape
from quantplan.run_record import RunRecord
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.spikes import Spike
from quantplan.task_score import TaskScore
from quantplan.throughput import SpeedTest, Throughput

# --- plans and sensitivity tables


def _check_plan(plan: Plan) -> None:
    if len(plan.types) != len(plan.tensors):
        raise ValueError("a tensor is named twice")


def _check_table(table: SensitivityTable) -> None:
    for row in table.rows.values():
        for name, damage in (*row.weights.items(), *row.kernel.items()):
            quant_type(name)
            if not 0 <= damage < math.inf:
                raise ValueError(f"{row.tensor} as {name} has damage {damage!r}")
        for name, ratio in row.domains.items():
            if name not in table.domains or not 0 <= ratio < math.inf:
                raise ValueError(f"{row.tensor} has {ratio!r} times its damage on the text {name}")


def _unless_empty(*names: str) -> Callable[[Fields], Fields]:
    """What few have is left out where there is nothing; so records of before it have the digests that they had."""
    return lambda fields: {name: value for name, value in fields.items() if name not in names or value}


def _table_written(fields: Fields) -> Fields:
    known = _unless_empty("architecture", "shapes", "domains")(fields)
    return known | {"rows": list(fields["rows"].values())}


def _rows_by_tensor(fields: Fields) -> Fields:
    rows = {row["tensor"]: row for row in fields["rows"]}
    if len(rows) != len(fields["rows"]):
        raise ValueError("a tensor is named twice")
    return fields | {"rows": rows}


shape(SensitivityRow, written=_unless_empty("without_importance", "domains"))
shape(ImatrixUse, written=_unless_empty("excluded"))
shape(
    Plan,
    required=("outcome", "imatrix", "predicted_kld", "layer_types", "made_from"),
    written=_unless_empty("predicted_domains"),
)
shape(SensitivityTable, written=_table_written, read=_rows_by_tensor)
PLANS = register(
    # 1: first; 2: what was minimised, prices, limits, devices, tokens/s; 3: compensated rounding; 4: types of the KV cache
    RecordFormat("quantplan-plan", 4, Plan, "plan", "make it again with `quantplan solve`", _check_plan)
)
SENSITIVITY_TABLES = register(
    # 1: first; 2: which pairs have compensated rounding; 3: architecture and shapes, types without importance
    RecordFormat("quantplan-damage", 3, SensitivityTable, "sensitivity table", "probe again", _check_table)
)


# --- measurements. Keys of version 1 say window where the code says chunk

_PERCENTILE = "kld_percentiles"
_CHUNK_KEYS = {
    "kld_chunk_err": "kld_window_err",
    "per_chunk_kld": "per_window_kld",
    "per_chunk_nll": "per_window_nll",
    "per_chunk_base_nll": "per_window_base_nll",
}


def _written(fields: Fields) -> Fields:
    percentiles = fields.pop(_PERCENTILE)
    fields = _unless_empty("spikes", "domains")(fields)
    if domains := fields.get("domains"):
        worst = max(domains, key=lambda domain: domain["kld"])
        fields["worst_domain"] = worst["name"] if worst["kld"] > 0 else None
    return fields | {_percentile_key(percent): value for percent, value in percentiles.items()}


def _percentiles(fields: Fields) -> Fields:
    return fields | {_PERCENTILE: {percent: fields[_percentile_key(percent)] for percent in PERCENTILES}}


def _percentile_key(percent: float) -> str:
    return f"kld_p{percent:g}".replace(".", "_")


def _of_domain(fields: Fields) -> Fields:
    """The whole has the figures per chunk."""
    return {name: value for name, value in _written(fields).items() if not name.startswith("per_window_")}


shape(Conditions, names={"chunks": "windows"})
shape(Spike, written=_unless_empty("domain"))
shape(DomainFigures, names=_CHUNK_KEYS | {"chunks": "windows"}, written=_of_domain, read=_percentiles)
shape(
    Measurement,
    names=_CHUNK_KEYS,
    required=("notes", "per_window_kld", "per_window_nll", "per_window_base_nll"),
    written=_written,
    read=_percentiles,
)
shape(
    TaskScore,
    derived={"score": lambda score: score.score.value, "score_err": lambda score: score.score.stderr},
    written=lambda fields: fields | {"outcomes": "".join("01"[solved] for solved in fields["outcomes"])},
    read=lambda fields: fields | {"outcomes": _outcomes(fields["outcomes"])},
)
shape(SpeedTest, derived={"tps": lambda test: test.speed.value, "tps_err": lambda test: test.speed.stderr})


def _outcomes(text: Any) -> list[bool]:
    if not isinstance(text, str) or not text or set(text) - {"0", "1"}:
        raise ValueError("outcomes are a row of 0 and 1")
    return [digit == "1" for digit in text]


def _check_throughput(throughput: Throughput) -> None:
    if not all(test.samples and all(0 <= sample < math.inf for sample in test.samples) for test in throughput.tests):
        raise ValueError("a test without repetitions, or with speeds that cannot be")


MEASUREMENTS = register(
    # 1: first; 2: bytes read per token, types of the KV cache
    RecordFormat("quantplan-measurement", 2, Measurement, "measurement", "measure again")
)
CACHE_SENSITIVITIES = register(
    RecordFormat("quantplan-cache", 1, CacheSensitivity, "table of cache types", "measure again with `solve --kv auto`")
)
TASK_SCORES = register(RecordFormat("quantplan-task-score", 1, TaskScore, "score", "measure again"))
THROUGHPUTS = register(
    RecordFormat("quantplan-throughput", 1, Throughput, "speeds", "measure again", _check_throughput)
)


# --- comparisons


def _gaps_of_version_1(fields: Fields) -> Fields:
    """Version 1 only says whether the KLD differs significantly from the first row's."""
    if "gaps" in fields or (fields["kld_ratio_low"], fields["kld_ratio_high"]) == (1, 1):
        return fields
    gap = {"difference": None, "low": None, "high": None}
    return fields | {"gaps": {KLD: gap | {"decided": fields["told_apart"], "needed": fields["windows_needed"]}}}


shape(Gap, absent={"difference": math.nan, "low": -math.inf, "high": math.inf})
shape(
    Row,
    names={
        "low": "kld_ratio_low",
        "high": "kld_ratio_high",
        "elements": "weights",
    },
    merged=("measurement",),
    read=_gaps_of_version_1,
    absent={"kld_ratio": math.inf, "low": math.inf, "high": math.inf},
    derived={
        "larger": lambda row: row.larger,
        "told_apart": lambda row: row.significant,
        "windows_needed": lambda row: row.chunks_needed,
        "average": lambda row: row.average.value if row.average else None,
        "average_err": lambda row: row.average.stderr if row.average else None,
    },
)
COMPARISONS = register(
    # 1: first; 2: tasks, speed, gaps, shrinkage; 3: as measurements of version 2
    RecordFormat("quantplan-comparison", 3, Comparison, "comparison", "compare again")
)


# --- runs. Keys of version 1: the stock quant as fallback is a mix, the evaluated files are judged


def _handed_over(fields: Fields) -> Fields:
    return fields | {"handed_over": "mix" if fields["handed_over"] else "plan"}


def _is_stock_quant(fields: Fields) -> Fields:
    if fields["handed_over"] not in ("mix", "plan"):
        raise ValueError("handed_over says neither plan nor fallback")
    return fields | {"handed_over": fields["handed_over"] == "mix"}


shape(
    RunRecord,
    names={"is_stock_quant": "handed_over", "kept": "name", "evaluated": "judged"},
    written=_handed_over,
    read=_is_stock_quant,
)
RUNS = register(RecordFormat("quantplan-run", 1, RunRecord, "run", "run again: finished steps are reused"))
