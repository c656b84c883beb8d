"""Plans of every size that a model can have, with the stock quants in the same sensitivity table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quantplan.devices.speed.table import SpeedTable
from quantplan.planning.frontier import best_points, span_of
from quantplan.planning.request import PlanRequest, formulate_request, parse_budget
from quantplan.planning.solving import formulations
from quantplan.planning.stock_quants import StockQuant, stock_quants
from quantplan.quant_type import QuantType
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.frontier import Point, even_budgets
from quantplan.solver.planner import Formulation, check_budget
from quantplan.tensor import Model


@dataclass(frozen=True)
class Planned:
    """The best plan within ``budget_bytes`` of the whole file; ``asked``: the same in the words of ``--budget``.

    ``compensated``: number of tensors with error-compensated rounding; ``stock_rounding_kld``: expected without it.
    """

    file_bytes: int
    bpw: float
    kld: float
    kld_err: float
    types: Mapping[str, QuantType]  # of the tensors that llama-quantize quantizes
    budget_bytes: int
    asked: str
    gap: float
    compensated: int = 0
    stock_rounding_kld: float | None = None
    bytes_per_token: int | None = None  # weights read, see Model.bytes_per_token


@dataclass(frozen=True)
class SizeRange:
    """``plans`` and ``stock_quants`` from the smallest to the largest."""

    fixed_bytes: int  # of every file: header and tensors that are copied
    plans: tuple[Planned, ...]
    stock_quants: tuple[StockQuant, ...]


def size_range(
    request: PlanRequest, table: SensitivityTable, points: int, speeds: SpeedTable | None = None
) -> SizeRange:
    """Plans for ``points`` budgets at even steps, one of the size of each stock quant, and one for the request's own budget.

    Steps end at the largest stock quant: larger files have next to no loss left. All plans keep the request's limits on memory,
    KLD and speed (which needs ``speeds``). Raises BudgetImpossible and what ``formulations`` raises.
    """
    problems = formulations(request, formulate_request(replace(request, budget=None), table), speeds)
    quants, _ = stock_quants(request, table)
    budgets = _budgets(request, problems, quants, points)
    best = sorted(best_points(request, table, problems, budgets).items())
    plans = tuple(_planned(request.model, table, *made, size, budgets[size]) for size, made in best)
    return SizeRange(problems[0].fixed_bytes, plans, quants)


def _budgets(
    request: PlanRequest, problems: Sequence[Formulation], quants: Sequence[StockQuant], points: int
) -> dict[int, str]:
    """Bytes of the whole file -> words; of stock quants of the same size the first names the budget."""
    smallest, largest = span_of(problems)
    top = min(largest, max((quant.file_bytes for quant in quants), default=largest))
    budgets = {size: str(size) for size in even_budgets(smallest, max(top, smallest), points)}
    budgets |= {quant.file_bytes: quant.name for quant in reversed(quants) if quant.file_bytes >= smallest}
    budget = parse_budget(request)
    if budget is not None:
        check_budget(request.model, budget, smallest)
        budgets[budget.bytes] = budget.asked
    return budgets


def _planned(
    model: Model, table: SensitivityTable, formulation: Formulation, point: Point, budget_bytes: int, asked: str
) -> Planned:
    types = formulation.grouping.types(point.choices)
    assignment = formulation.grouping.priced(point.choices, table)
    kld, error = table.predict(assignment)
    file_bytes = formulation.fixed_bytes + point.bytes
    compensated = sum(table.rows[name].is_compensated(kind) for name, kind in assignment.items())
    stock = table.with_stock_rounding().predict(assignment)[0] if compensated else None
    bpw, read = model.bits_per_weight(types), model.bytes_per_token(types)
    return Planned(file_bytes, bpw, kld, error, types, budget_bytes, asked, point.gap, compensated, stock, read)
