"""Plans of every size that a model can have, with the stock quants in the same sensitivity table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantplan.build.build import stock_plan
from quantplan.errors import BadUsage, NothingSelected
from quantplan.llamacpp.quantize import published_ftypes
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, formulate_request, goal_of
from quantplan.planning.score import score
from quantplan.quant_type import QuantType
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solve.frontier import Point, even_budgets, frontier, span
from quantplan.solve.planner import Formulation, check_budget
from quantplan.tensor import Model


@dataclass(frozen=True)
class Sized:
    """A file of one size, made or not. ``kld`` None: the table has no value for the types that ``unmeasured_tensors`` lists."""

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
    """A stock quant of llama-quantize."""

    name: str = ""


@dataclass(frozen=True)
class SizeRange:
    """``plans`` and ``stock_quants`` from the smallest to the largest."""

    fixed_bytes: int  # of every file: header and tensors that are copied
    plans: tuple[Planned, ...]
    stock_quants: tuple[StockQuantRow, ...]


def size_range(request: PlanRequest, table: SensitivityTable, points: int) -> SizeRange:
    """Plans for ``points`` budgets at even steps, one of the size of each stock quant, and one for the request's own budget.

    Steps end at the largest stock quant: larger files have next to no loss left. Raises BudgetImpossible and what
    ``formulate_request`` raises.
    """
    formulation = formulate_request(request, table)
    stock_quants = stock_quant_rows(request, table)
    budgets = _budgets(request, formulation, stock_quants, points)
    solutions = frontier(formulation.problem, [size - formulation.fixed_bytes for size in budgets])
    plans = tuple(_planned(request.model, table, formulation, point, budgets) for point in solutions)
    return SizeRange(formulation.fixed_bytes, plans, stock_quants)


def stock_quant_rows(request: PlanRequest, table: SensitivityTable) -> tuple[StockQuantRow, ...]:
    """Stock quants with the request's imatrix, smallest first; those that need one are left out where there is none."""
    rows = []
    for name in published_ftypes():
        try:
            plan = stock_plan(request.model, name, request.imatrix)
        except BadUsage:  # needs imatrix data that is not there
            continue
        types = {tensor.name: tensor.type for tensor in plan.tensors if tensor.rule}
        kld, error, unpriced = _scored(plan, table, request.model)
        rows.append(
            StockQuantRow(plan.file_bytes, plan.bits_per_weight(request.model), kld, error, types, unpriced, name)
        )
    return tuple(sorted(rows, key=lambda stock_quant: (stock_quant.file_bytes, stock_quant.name)))


def _scored(plan: Plan, table: SensitivityTable, model: Model) -> tuple[float | None, float | None, str]:
    """(KLD, its error, "") or (None, None, the types that the table has no value for)."""
    try:
        return *score(plan, table, model), ""
    except NothingSelected:
        unpriced = {
            tensor.type.name
            for tensor in plan.tensors
            if tensor.rule and tensor.type.name not in table.rows[tensor.name].weights
        }
        return None, None, ", ".join(sorted(unpriced))


def _budgets(
    request: PlanRequest, formulation: Formulation, stock_quants: Sequence[StockQuantRow], points: int
) -> dict[int, str]:
    """Bytes of the whole file -> words; of stock quants of the same size the first names the budget."""
    smallest, largest = (formulation.fixed_bytes + size for size in span(formulation.problem))
    top = min(largest, max((stock_quant.file_bytes for stock_quant in stock_quants), default=largest))
    budgets = {size: str(size) for size in even_budgets(smallest, max(top, smallest), points)}
    for stock_quant in reversed(stock_quants):
        if stock_quant.file_bytes >= smallest:
            budgets[stock_quant.file_bytes] = stock_quant.name
    requested = goal_of(request).budget
    if requested is not None:
        check_budget(request.model, requested, smallest)
        budgets[requested.bytes] = requested.asked
    return budgets


def _planned(
    model: Model, table: SensitivityTable, formulation: Formulation, point: Point, budgets: Mapping[int, str]
) -> Planned:
    types = formulation.grouping.types(point.choices)
    kld, error = table.predict(formulation.grouping.priced(point.choices, table))
    budget = point.budget_bytes + formulation.fixed_bytes
    file_bytes = formulation.fixed_bytes + point.bytes
    return Planned(file_bytes, model.bits_per_weight(types), kld, error, types, "", budget, budgets[budget], point.gap)
