"""The frontier of a model: every size from one damage table, with the stock mixes on the same scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from quantplan.build.build import stock_plan
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_need import without_imatrix_data
from quantplan.llamacpp import quantize
from quantplan.llamacpp.quantize import published_ftypes
from quantplan.planning.request import PlanRequest, formulate_request, parse_budget, quantizable
from quantplan.quant_type import QuantType
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solve.alternatives import alternatives
from quantplan.solve.frontier import NEXT_BYTES, Point, differing, even_budgets, frontier, knee, span
from quantplan.solve.planner import Formulation, check_budget
from quantplan.solve.program import solve
from quantplan.solve.search import Solution
from quantplan.solve.stability import Stability, stability


@dataclass(frozen=True)
class FrontierEntry:
    """A point of the frontier as a file. ``saved``: expected KLD that ``step_bytes`` more would save, solved for;
    ``changed``: groups that differ from the entry before.
    """

    point: Point
    budget_bytes: int
    file_bytes: int
    bpw: float
    kld: float
    kld_err: float
    saved: float
    changed: int


@dataclass(frozen=True)
class StockQuant:
    """A stock mix in the same damage table; ``plan_kld``: expected of the plan of its size, None where there is none."""

    name: str
    file_bytes: int
    bpw: float
    kld: float
    kld_err: float
    plan_kld: float | None

    @property
    def ratio(self) -> float | None:
        """The plan's KLD over the mix's."""
        return None if self.plan_kld is None or not self.kld else self.plan_kld / self.kld


@dataclass(frozen=True)
class Frontier:
    """``knee``: index of its entry, None where the curve has none; ``unscored``: mixes left out, each with the reason."""

    entries: tuple[FrontierEntry, ...]
    step_bytes: int
    knee: int | None
    stock_quants: tuple[StockQuant, ...]
    unscored: tuple[str, ...]
    calibrated: bool


@dataclass(frozen=True)
class Alternative:
    """A plan for the same budget; ``kld`` and its error as expected, ``changed``: tensors that differ from the best."""

    solution: Solution
    types: dict[str, QuantType]
    file_bytes: int
    kld: float
    kld_err: float
    changed: tuple[str, ...]


def model_frontier(
    request: PlanRequest,
    table: SensitivityTable,
    points: int,
    stock_quants: Sequence[str] | None = None,
    step_bytes: int | None = None,
) -> Frontier:
    """The frontier at even steps, its knee, and the stock ``stock_quants`` (None: the usual ones that can be made and scored).

    ``step_bytes`` None: 100 MB, for small files the power of ten below a twentieth of the largest. Raises what posing
    raises, and BadUsage for a named mix that cannot be made or scored.
    """
    if points < 2:
        raise BadUsage(f"--points {points}: a frontier has two ends at least")
    formulation = formulate_request(replace(request, budget=None), table)
    stock, unscored = _stock(request, table, stock_quants)
    smallest, largest = span(formulation.problem)
    step = step_bytes or _default_step(formulation.fixed_bytes + largest)
    budgets = even_budgets(smallest, largest, points)
    further = {each + step for each in budgets}
    of_ftypes = {name: size - formulation.fixed_bytes for name, (size, *_) in stock.items()}
    every = {*budgets, *further, *(size for size in of_ftypes.values() if size >= smallest)}
    found = {each.budget_bytes: each for each in frontier(formulation.problem, sorted(every))}
    kld = {budget: _predicted(formulation, table, point.choices) for budget, point in found.items()}
    entries = [
        _entry(request, formulation, found[at], kld[at], kld[at][0] - kld[at + step][0], found.get(before))
        for before, at in zip((None, *budgets), budgets, strict=False)
    ]
    bend = knee([found[at] for at in budgets])
    scored = [StockQuant(name, *stock[name], kld[size][0] if size in kld else None) for name, size in of_ftypes.items()]
    return Frontier(
        tuple(entries),
        step,
        budgets.index(bend.budget_bytes) if bend else None,
        tuple(sorted(scored, key=lambda each: each.file_bytes)),
        tuple(unscored),
        table.calibrated,
    )


def _default_step(largest: int) -> int:
    return min(NEXT_BYTES, 10 ** int(math.log10(max(largest / 20, 1))))


def _entry(
    request: PlanRequest,
    formulation: Formulation,
    point: Point,
    kld: tuple[float, float],
    saved: float,
    before: Point | None,
) -> FrontierEntry:
    types = formulation.grouping.types(point.choices)
    changed = differing(before.choices, point.choices) if before else 0
    size = formulation.fixed_bytes + point.bytes
    return FrontierEntry(
        point,
        formulation.fixed_bytes + point.budget_bytes,
        size,
        request.model.bits_per_weight(types),
        *kld,
        saved,
        changed,
    )


def _predicted(formulation: Formulation, table: SensitivityTable, choices: Sequence[int]) -> tuple[float, float]:
    return table.predict(formulation.grouping.priced(choices, table))


# --- stock mixes


def _stock(
    request: PlanRequest, table: SensitivityTable, names: Sequence[str] | None
) -> tuple[dict[str, tuple[int, float, float, float]], list[str]]:
    """Mix -> (bytes of its file, bpw, KLD, error), and why others were left out; named ones must not be."""
    found, left_out = {}, []
    for name in names if names is not None else published_ftypes():
        reason = _unscorable(request, table, name)
        if reason and names is not None:
            raise BadUsage(f"--mixes {name}: {reason}")
        if reason:
            left_out.append(f"{name}: {reason}")
            continue
        plan = stock_plan(request.model, name, request.imatrix)
        assignment = _decided(request, table, plan.types)
        found[quantize.known_ftype(name)] = (
            plan.file_bytes,
            plan.bits_per_weight(request.model),
            *table.predict(assignment),
        )
    return found, left_out


def _unscorable(request: PlanRequest, table: SensitivityTable, name: str) -> str:
    """Why the mix cannot be made or scored, or nothing."""
    types = quantize.stock_quant(request.model, name, request.imatrix.path if request.imatrix else None)
    lacking = without_imatrix_data(request.model, types, request.imatrix)
    if lacking:
        return f"{lacking[0]} needs imatrix data"
    unknown = [
        f"{tensor} as {kind}"
        for tensor, kind in _decided(request, table, types).items()
        if kind not in table.rows[tensor].weights
    ]
    return f"the damage table has no value for {unknown[0]}" if unknown else ""


def _decided(request: PlanRequest, table: SensitivityTable, types: dict[str, QuantType]) -> dict[str, str]:
    """What the mix makes of the tensors that are up for choice; one that stays as it is stored costs nothing."""
    stored = {tensor.name: tensor.type for tensor in quantizable(request.model)}
    return table.measured({name: types[name] for name in stored}, stored)


# --- one budget


def best_alternatives(
    request: PlanRequest, table: SensitivityTable, count: int, least: int | None, time_limit: float = 60.0
) -> tuple[Alternative, ...]:
    """The best plans within the request's budget, each different from every better one in at least ``least`` groups
    (None: one in fifty).
    """
    formulation = _at_budget(request, table)
    least = least or max(1, len(formulation.problem.groups) // 50)
    if least > len(formulation.problem.groups):
        raise BadUsage(
            f"--differ {least}: there are only {len(formulation.problem.groups)} tensors (or groups) to choose for"
        )
    found = alternatives(formulation.problem, count, least, time_limit=time_limit)
    best = formulation.grouping.types(found[0].choices)
    return tuple(_alternative(formulation, table, each, best) for each in found)


def _alternative(
    formulation: Formulation, table: SensitivityTable, found: Solution, best: dict[str, QuantType]
) -> Alternative:
    types = formulation.grouping.types(found.choices)
    changed = tuple(name for name, kind in types.items() if kind != best[name])
    size = formulation.fixed_bytes + formulation.problem.bytes(found.choices)
    return Alternative(found, types, size, *_predicted(formulation, table, found.choices), changed)


def plan_stability(
    request: PlanRequest, table: SensitivityTable, draws: int
) -> tuple[Formulation, Solution, Stability]:
    """How much of the plan for the request's budget would change within the errors of the table's rows."""
    formulation = _at_budget(request, table)
    found = solve(formulation.problem)
    errors = group_errors(formulation, table, found.choices)
    return formulation, found, stability(formulation.problem, found.choices, errors, draws)


def group_errors(formulation: Formulation, table: SensitivityTable, choices: Sequence[int]) -> tuple[float, ...]:
    """Relative error of each group's damage: of one tensor its row's; of several, independent, at the types chosen."""
    grouping = formulation.grouping
    taken = zip(grouping.members, grouping.kinds, choices, strict=True)
    return tuple(_group_error(table, zip(members, kinds[at], strict=True)) for members, kinds, at in taken)


def _group_error(table: SensitivityTable, stored: Iterable) -> float:
    rows = [(table.rows[tensor.name], kind.name) for tensor, kind in stored if tensor.name in table.rows]
    if len(rows) == 1:
        return rows[0][0].relative_error
    damages = [(row.damage(kind) if kind in row.weights else 0.0, row.relative_error) for row, kind in rows]
    total = sum(damage for damage, _ in damages)
    return math.sqrt(sum((damage * error) ** 2 for damage, error in damages)) / total if total else 0.0


def _at_budget(request: PlanRequest, table: SensitivityTable) -> Formulation:
    budget = parse_budget(request)
    if budget is None:
        raise BadUsage("at which size? give --at BUDGET, for example --at 4.5bpw")
    formulation = formulate_request(request, table)
    check_budget(request.model, budget, formulation.fixed_bytes + formulation.problem.smallest_bytes)
    return formulation
