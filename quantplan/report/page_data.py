"""What a report page shows, as one structure of plain JSON values.

The fields are described in docs/formats.md. Types of tensors are letters: ``data["types"]`` lists the types, the letter
of the n-th type is ``LETTERS[n]``, and ``plan["types"]`` has one letter for each tensor of ``data["tensors"]``. So the
types of 1,100 tensors in 100 plans take 110 kB.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan import __version__
from quantplan.analyze.statistics import FIELDS, Statistics
from quantplan.planning.kept_tables import table_digest
from quantplan.planning.size_range import Planned
from quantplan.planning.stock_quants import StockQuant
from quantplan.quant_type import QuantType
from quantplan.records.codec import finite
from quantplan.records.formats import COMPARISONS, MEASUREMENTS
from quantplan.report.commands import Commands
from quantplan.report.further_tables import cache_table, suite_tables, tables_by_text
from quantplan.report.report_data import ReportData
from quantplan.report.rounding import rounding_words, rules_note
from quantplan.report.table import Table
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Tensor

PAGE_FORMAT, PAGE_VERSION = "quantplan-report", 1  # 1: first
LETTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
_DIGITS = 4  # of a damage: its error is seldom below 1 %
_CHUNKS = ("per_window_kld", "per_window_nll", "per_window_base_nll")
_GROUPS = ("attn", "ssm", "ffn")  # roles in the order in which a block runs them


def page_data(report_data: ReportData, commands: Commands, command: str, made: str) -> dict[str, Any]:
    """``command``: the one that made the report; ``made``: when, in words. ValueError for more types than letters."""
    chosen = report_data.plans[0].types
    tensors = [tensor for tensor in report_data.model.tensors if tensor.name in chosen]
    types = _types(report_data)
    letters = {kind.name: letter for kind, letter in zip(types, LETTERS, strict=False)}
    if len(types) > len(LETTERS):
        raise ValueError(f"{len(types)} types, {len(LETTERS)} letters")
    return {
        "format": PAGE_FORMAT,
        "version": PAGE_VERSION,
        "made": made,
        "model": _model(report_data),
        "calibrated": report_data.table.calibrated,
        "scales": report_data.table.made_from.get("scales", "imported"),
        "notes": list(report_data.notes),
        "types": [
            {"name": kind.name, "bits": kind.bits, "block": kind.block, "block_bytes": kind.block_bytes}
            for kind in types
        ],
        "roles": roles(tensors),
        "tensors": [_tensor(report_data, tensor) for tensor in tensors],
        "damage": [_damages(report_data.table, tensor, types) for tensor in tensors],
        "stock_damage": _stock_damages(report_data.table, tensors, types),
        "plans": [_plan(report_data, commands, plan, tensors, letters) for plan in report_data.plans],
        "opens_at": report_data.opens_at,
        "mixes": [
            {"name": stock_quant.name} | _sized(stock_quant, tensors, letters)
            for stock_quant in report_data.stock_quants
        ],
        "statistics": _statistics(report_data.statistics, tensors) if report_data.statistics else None,
        "comparisons": [
            {"verdict": comparison["verdict"], "rows": [_without_chunks(row) for row in comparison["rows"]]}
            for comparison in map(COMPARISONS.encode, report_data.comparisons)
        ],
        "measurements": [_without_chunks(row) for row in map(MEASUREMENTS.encode, report_data.measurements)],
        "tables": [_table(table) for table in _further(report_data)],
        "provenance": _provenance(report_data, command, made),
    }


def roles(tensors: Sequence[Tensor]) -> list[str]:
    """Roles inside blocks: attention, state spaces, feed-forward, others; within these as the file has them."""
    names = dict.fromkeys(tensor.role for tensor in tensors if tensor.block is not None)
    return sorted(names, key=lambda role: next((at for at, word in enumerate(_GROUPS) if role.startswith(word)), 9))


def _types(report_data: ReportData) -> list[QuantType]:
    """All types of the plans, the stock quants and the candidates, largest first."""
    sizes: list[Planned | StockQuant] = [*report_data.plans, *report_data.stock_quants]
    types = {kind.name: kind for sized in sizes for kind in sized.types.values()}
    types |= {kind.name: kind for kind in report_data.request.types}
    return sorted(types.values(), key=lambda kind: (-kind.bits, kind.name))


def _model(report_data: ReportData) -> dict[str, Any]:
    model = report_data.model
    return {
        "name": model.name or model.path.stem,
        "file": model.path.name,
        "architecture": model.architecture,
        "blocks": model.blocks,
        "weights": model.elements,
        "tensors": len(model.tensors),
        "file_bytes": model.file_bytes,
        "file_type": model.file_type,
        "digest": model.digest,
        "copied_bytes": report_data.fixed_bytes,
    }


def _tensor(report_data: ReportData, tensor: Tensor) -> dict[str, Any]:
    row = report_data.table.rows[tensor.name]
    return {
        "name": tensor.name,
        "block": tensor.block,
        "role": tensor.role,
        "shape": list(tensor.shape),
        "source": row.source,
        "error": _short(row.relative_error),
    }


def _damages(table: SensitivityTable, tensor: Tensor, types: Sequence[QuantType]) -> list[float | None]:
    row = table.rows[tensor.name]
    return [_short(row.damage(kind.name)) if kind.name in row.weights else None for kind in types]


def _stock_damages(
    table: SensitivityTable, tensors: Sequence[Tensor], types: Sequence[QuantType]
) -> list[list[float | None]] | None:
    """Of ggml's own rounding, where ``damage`` is that of compensated rounding; None where the table has none."""
    stock = table.with_stock_rounding()
    compensated = [[table.rows[tensor.name].is_compensated(kind.name) for kind in types] for tensor in tensors]
    if not any(map(any, compensated)):
        return None
    return [
        [damage if shown else None for damage, shown in zip(_damages(stock, tensor, types), row, strict=True)]
        for tensor, row in zip(tensors, compensated, strict=True)
    ]


def _plan(
    report_data: ReportData, commands: Commands, plan: Planned, tensors: Sequence[Tensor], letters: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "budget": plan.budget_bytes,
        "asked": plan.asked,
        "gap": plan.gap,
        **_sized(plan, tensors, letters),
        "rounding": _rounding(plan),
        "commands": {
            "quantplan": commands.by_quantplan(plan),
            "llama-quantize": commands.by_llama_quantize(report_data, plan),
        },
    }


def _rounding(plan: Planned) -> dict[str, Any] | None:
    """In words: what is compensated and what it gains, and what the rules for llama-quantize leave out."""
    if not plan.compensated:
        return None
    return {
        "compensated": plan.compensated,
        "stock_rounding_kld": _short(plan.stock_rounding_kld, 6),
        "words": rounding_words(plan.compensated, len(plan.types), plan.kld, plan.stock_rounding_kld),
        "note": rules_note(plan.compensated),
    }


def _sized(sized: Planned | StockQuant, tensors: Sequence[Tensor], letters: Mapping[str, str]) -> dict[str, Any]:
    return {
        "bytes": sized.file_bytes,
        "bpw": round(sized.bpw, 4),
        "bytes_per_token": sized.bytes_per_token,
        "kld": _short(sized.kld, 6),
        "kld_err": _short(sized.kld_err),
        "unpriced": sized.unmeasured if isinstance(sized, StockQuant) else "",
        "types": "".join(letters[sized.types[tensor.name].name] for tensor in tensors),
    }


def _statistics(statistics: Statistics, tensors: Sequence[Tensor]) -> dict[str, Any]:
    """``rows`` hold the fields in their order. Digits as they are shown: others would be weight for nothing."""
    shown = {tensor.name: at for at, tensor in enumerate(tensors)}
    return {
        "fields": [{"name": name} | asdict(field) for name, field in FIELDS.items()],
        "rows": [
            {
                "name": tensor.name,
                "block": tensor.layer,
                "role": tensor.role,
                "tensor": shown.get(tensor.name),
                "values": [finite(_rounded(getattr(tensor, name), field.decimals)) for name, field in FIELDS.items()],
            }
            for tensor in statistics.tensors
        ],
        "without_data": list(statistics.without_data),
    }


def _rounded(value: float, decimals: int) -> float:
    """To the decimals that are shown, and to as many significant digits where that would leave fewer."""
    return value if value != value else float(max((f"{value:.{decimals}f}", f"{value:.4g}"), key=len))


def _further(report_data: ReportData) -> list[Table]:
    """Measured figures that have no place of their own on the page, as tables."""
    measured = [(Path(each.file).name, each) for each in report_data.measurements]
    measured += [(row.name, row.measurement) for comparison in report_data.comparisons for row in comparison.rows]
    caches = map(cache_table, report_data.caches)
    return [*tables_by_text(measured), *caches, *suite_tables(report_data.scores, report_data.originals)]


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "headings": list(table.headings),
        "rows": [list(row) for row in table.rows],
        "notes": list(table.notes),
        "texts": list(table.texts),
    }


def _without_chunks(row: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of a measurement but those of each chunk."""
    return {name: value for name, value in row.items() if name not in _CHUNKS}


def _provenance(report_data: ReportData, command: str, made: str) -> list[list[str]]:
    table, request = report_data.table, report_data.request
    facts: dict[str, Any] = {
        "made": made,
        "command": command,
        "quantplan": __version__,
        "model": report_data.model.path.name,
        "model_digest": report_data.model.digest,
        "imatrix_file": request.imatrix.path.name if request.imatrix else None,
        "imatrix_data_set": ", ".join(request.imatrix.datasets) if request.imatrix else None,
        "imatrix_chunks": request.imatrix.chunk_count if request.imatrix else None,
        "damage_table": table_digest(table),
        "interaction_factor": table.interaction.factor,
        "interaction_curvature": table.interaction.curvature,
        "backend": table.backend or None,
        "candidate_types": ", ".join(kind.name for kind in request.types),
        "plans_per": request.per,
    }
    facts |= {name: value for name, value in table.made_from.items() if name not in facts}
    return [[_words(name), _shown(value)] for name, value in facts.items() if value not in (None, "", [], {})]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: float | None, digits: int = _DIGITS) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
