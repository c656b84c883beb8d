"""All that is known of one model, gathered for its report: plans of every size, stock mixes, statistics, measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.analyze.statistics import Statistics, statistics
from quantplan.build.build import stock_plan
from quantplan.comparison import Comparison
from quantplan.errors import BadFile, BadUsage, NothingSelected
from quantplan.llamacpp.quantize import published_ftypes
from quantplan.measurement import Measurement
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, formulate_request, goal_of
from quantplan.planning.score import score
from quantplan.quant_type import QuantType
from quantplan.records.codec import read_any
from quantplan.records.formats import COMPARISONS, MEASUREMENTS
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solve.frontier import Point, even_budgets, frontier, span
from quantplan.solve.planner import Formulation, check_budget
from quantplan.tensor import Model

Fields = dict[str, Any]
OPENS_AT = "Q4_K_M"  # the mix that most people take


@dataclass(frozen=True)
class Sized:
    """A file of one size, made or not. ``kld`` None: a type that it has was not priced, ``unmeasured_tensors`` says which."""

    file_bytes: int
    bpw: float
    kld: float | None
    kld_err: float | None
    types: Mapping[str, QuantType]  # of the tensors that are up for choice
    unmeasured_tensors: str = ""


@dataclass(frozen=True)
class Planned(Sized):
    """The best plan within ``budget_bytes`` of the whole file; ``asked``: the same in the words of ``--budget``."""

    budget_bytes: int = 0
    asked: str = ""
    gap: float = 0.0


@dataclass(frozen=True)
class StockQuantRow(Sized):
    """A stock mix of llama-quantize."""

    name: str = ""


@dataclass(frozen=True)
class ReportData:
    """``plans`` from the smallest to the largest; ``opens_at`` is the index of the one to show first."""

    request: PlanRequest
    table: SensitivityTable
    fixed_bytes: int  # of every file: header and tensors that are copied
    plans: tuple[Planned, ...]
    opens_at: int
    stock_quants: tuple[StockQuantRow, ...]
    statistics: Statistics | None
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Fields, ...]  # verdict and rows as their records have them
    notes: tuple[str, ...]  # what is missing, and why

    @property
    def model(self) -> Model:
        return self.request.model


def report_data(
    request: PlanRequest, table: SensitivityTable, points: int = 100, reports: Path | None = None
) -> ReportData:
    """Plans for ``points`` budgets at even steps, one as large as each stock mix, and one for the request's own budget.

    ``reports``: folder whose measurements and comparisons join. Steps end at the largest stock mix: what is larger has
    next to no damage left. Raises BudgetImpossible and what posing raises.
    """
    formulation = formulate_request(request, table)
    stock_quants = stock_quant_rows(request, table)
    plans = _plans(request, table, formulation, _budgets(request, formulation, stock_quants, points))
    measured, compared, notes = records(reports, request.model) if reports else ((), (), [])
    found = statistics(request.imatrix) if request.imatrix else None
    notes += [] if found else ["no imatrix: types that need one are no candidates, and there are no statistics"]
    return ReportData(
        request,
        table,
        formulation.fixed_bytes,
        plans,
        _opening(request, plans),
        stock_quants,
        found,
        measured,
        compared,
        tuple(notes),
    )


def stock_quant_rows(request: PlanRequest, table: SensitivityTable) -> tuple[StockQuantRow, ...]:
    """The usual mixes with the request's imatrix, smallest first; those that need one are left out where there is none."""
    found = []
    for name in published_ftypes():
        try:
            plan = stock_plan(request.model, name, request.imatrix)
        except BadUsage:  # needs imatrix data that is not there
            continue
        types = {each.name: each.type for each in plan.tensors if each.rule}
        expected = _scored(plan, table, request.model)
        found.append(
            StockQuantRow(plan.file_bytes, plan.bits_per_weight(request.model), *expected[:2], types, expected[2], name)
        )
    return tuple(sorted(found, key=lambda stock_quant: (stock_quant.file_bytes, stock_quant.name)))


def _scored(plan: Plan, table: SensitivityTable, model: Model) -> tuple[float | None, float | None, str]:
    """(KLD, its error, "") or (None, None, the types that the table does not price)."""
    try:
        return *score(plan, table, model), ""
    except NothingSelected:
        lacking = {
            each.type.name for each in plan.tensors if each.rule and each.type.name not in table.rows[each.name].weights
        }
        return None, None, ", ".join(sorted(lacking))


def _budgets(
    request: PlanRequest, formulation: Formulation, stock_quants: Sequence[StockQuantRow], points: int
) -> dict[int, str]:
    """Bytes of the whole file -> words; of equally large mixes the first names the budget."""
    smallest, largest = (formulation.fixed_bytes + size for size in span(formulation.problem))
    top = min(largest, max((stock_quant.file_bytes for stock_quant in stock_quants), default=largest))
    budgets = {size: str(size) for size in even_budgets(smallest, max(top, smallest), points)}
    for stock_quant in reversed(stock_quants):
        if stock_quant.file_bytes >= smallest:
            budgets[stock_quant.file_bytes] = stock_quant.name
    own = goal_of(request).budget
    if own is not None:
        check_budget(request.model, own, smallest)
        budgets[own.bytes] = own.asked
    return budgets


def _plans(
    request: PlanRequest, table: SensitivityTable, formulation: Formulation, budgets: Mapping[int, str]
) -> tuple[Planned, ...]:
    points = frontier(formulation.problem, [size - formulation.fixed_bytes for size in budgets])
    return tuple(_planned(request.model, table, formulation, point, budgets) for point in points)


def _planned(
    model: Model, table: SensitivityTable, formulation: Formulation, point: Point, budgets: Mapping[int, str]
) -> Planned:
    types = formulation.grouping.types(point.choices)
    kld, error = table.predict(formulation.grouping.priced(point.choices, table))
    budget = point.budget_bytes + formulation.fixed_bytes
    file_bytes = formulation.fixed_bytes + point.bytes
    return Planned(file_bytes, model.bits_per_weight(types), kld, error, types, "", budget, budgets[budget], point.gap)


def _opening(request: PlanRequest, plans: Sequence[Planned]) -> int:
    """The plan of the request's own budget, else the one as large as Q4_K_M, else the middle one."""
    own = goal_of(request).budget
    wanted = [own.asked] if own else [OPENS_AT]
    return next((at for at, plan in enumerate(plans) if plan.asked in wanted), len(plans) // 2)


def records(folder: Path, model: Model) -> tuple[tuple[Measurement, ...], tuple[Fields, ...], list[str]]:
    """Measurements and comparisons of files of this model below a folder, and a note on each that cannot be taken."""
    measurements, comparisons, notes = [], [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            _json(path)
            record = read_any(path, MEASUREMENTS, COMPARISONS)
            if isinstance(record, Measurement):
                _check_base(path, record, model)
                measurements.append(record)
            elif isinstance(record, Comparison):
                for row in record.rows:
                    _check_base(path, row.measurement, model)
                comparisons.append(COMPARISONS.encode(record))
        except BadFile as error:
            notes.append(f"left out: {error}")
    return tuple(measurements), tuple(comparisons), notes


def _json(path: Path) -> None:
    """BadFile for half a file."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from None


def _check_base(path: Path, measured: Measurement, model: Model) -> None:
    base = measured.conditions.base_digest
    if base != model.digest:
        raise BadFile(f"{path}: measured against another model (digest {base[:12]}, this is {model.digest[:12]})")
