"""Plans and damage tables as JSON. See docs/formats.md for every field."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.plan import ImatrixUse, Limit, Outcome, Plan, PlannedTensor
from quantplan.quant_type import quant_type
from quantplan.records.codec import finite, read_record, write_record
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable

PLAN_FORMAT, PLAN_VERSION = "quantplan-plan", 2  # 1: first; 2: what was minimised, prices, limits, devices, tokens/s
SENSITIVITY_FORMAT, SENSITIVITY_VERSION = "quantplan-damage", 1  # 1: first


def write_plan(plan: Plan, path: Path) -> None:
    content = asdict(plan)
    content["tensors"] = [{"name": t.name, "type": t.type.name, "bytes": t.bytes, "rule": t.rule} for t in plan.tensors]
    content["outcome"] = {key: finite(v) if isinstance(v, float) else v for key, v in asdict(plan.outcome).items()}
    content["predicted_kld"] = finite(plan.predicted_kld)
    content["predicted_kld_err"] = finite(plan.predicted_kld_err)
    write_record(path, PLAN_FORMAT, PLAN_VERSION, content)


def read_plan(path: Path | str) -> Plan:
    """A plan as it was written; BadFile where fields are missing or do not add up."""
    content = read_record(path, PLAN_FORMAT, PLAN_VERSION)
    try:
        plan = _plan(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadFile(
            f"{path}: damaged plan ({type(error).__name__}: {error}); make it again with `quantplan solve`"
        ) from None
    if len(plan.types) != len(plan.tensors):
        raise BadFile(f"{path}: damaged plan: a tensor is named twice")
    return plan


def _plan(content: dict[str, Any]) -> Plan:
    fields = {key: value for key, value in content.items() if key not in ("format", "version")}
    fields["tensors"] = tuple(
        PlannedTensor(each["name"], quant_type(each["type"]), each["bytes"], each["rule"])
        for each in content["tensors"]
    )
    fields["outcome"] = Outcome(**content["outcome"])
    fields["imatrix"] = ImatrixUse(**content["imatrix"]) if content["imatrix"] else None
    fields["limits"] = tuple(Limit(**each) for each in content.get("limits", ()))
    fields["on_cpu"] = tuple(content.get("on_cpu", ()))
    fields["layer_types"] = tuple((int(layer), str(ftype)) for layer, ftype in content["layer_types"])
    return Plan(**fields)


def sensitivity_content(table: SensitivityTable) -> dict[str, Any]:
    """What a damage table's record holds."""
    return {
        "model_digest": table.model_digest,
        "unit": table.unit,
        "calibrated": table.calibrated,
        "backend": table.backend,
        "interaction": asdict(table.interaction),
        "made_from": table.made_from,
        "rows": [asdict(row) for row in table.rows.values()],
    }


def write_sensitivities(table: SensitivityTable, path: Path) -> None:
    write_record(path, SENSITIVITY_FORMAT, SENSITIVITY_VERSION, sensitivity_content(table))


def read_sensitivities(path: Path | str) -> SensitivityTable:
    content = read_record(path, SENSITIVITY_FORMAT, SENSITIVITY_VERSION)
    try:
        rows = [SensitivityRow(**row) for row in content["rows"]]
        for row in rows:
            _check_row(row)
        if len({row.tensor for row in rows}) != len(rows):
            raise ValueError("a tensor is named twice")
        return SensitivityTable(
            content["model_digest"],
            {row.tensor: row for row in rows},
            Interaction(**content["interaction"]),
            content["backend"],
            content["calibrated"],
            content["made_from"],
            content["unit"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path}: damaged damage table ({type(error).__name__}: {error}); probe again") from None


def _check_row(row: SensitivityRow) -> None:
    for name, value in (row.weights | row.kernel).items():
        quant_type(name)
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{row.tensor} as {name} has damage {value!r}")
