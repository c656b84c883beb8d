"""The frontier of a model: every size from one sensitivity table, with the stock quants on the same scale."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantplan.devices.limits import memory_use
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.planning.request import PlanRequest, formulate_request
from quantplan.planning.solving import Solved, formulations, solve_request
from quantplan.planning.stock_quants import StockQuant, stock_quants
from quantplan.quant_type import QuantType
from quantplan.sensitivity.drafts import with_draft_costs
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.alternatives import alternatives
from quantplan.solver.frontier import NEXT_BYTES, Point, even_budgets, frontier, knee, span
from quantplan.solver.planner import Formulation
from quantplan.solver.program import smallest_bytes
from quantplan.solver.search import Solution
from quantplan.solver.stability import Stability, stability
from quantplan.tensor import Model


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
    bytes_per_token: int | None = None  # weights read, see Model.bytes_per_token


@dataclass(frozen=True)
class Frontier:
    """``knee``: index of its entry, None where the curve has none; ``notes``: sizes and stock quants left out, and why."""

    entries: tuple[FrontierEntry, ...]
    step_bytes: int
    knee: int | None
    stock_quants: tuple[StockQuant, ...]
    notes: tuple[str, ...]
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
    bytes_per_token: int | None = None


def model_frontier(
    request: PlanRequest,
    table: SensitivityTable,
    points: int,
    names: Sequence[str] | None = None,
    step_bytes: int | None = None,
    speeds: SpeedTable | None = None,
) -> Frontier:
    """The frontier at even steps within the request's other limits, its knee, and stock quants.

    ``names``: of stock quants (None: those of llama.cpp's table that can be made and scored). ``step_bytes`` None: 100 MB, for
    small files the power of ten below a twentieth of the largest. ``least_tps`` needs ``speeds``. Raises what
    ``formulations`` raises, and BadUsage for a named stock quant that cannot be made or scored.
    """
    if points < 2:
        raise BadUsage(f"--points {points}: a frontier has at least two ends")
    problems = formulations(request, formulate_request(replace(request, budget=None), table), speeds)
    quants, notes = _stock_quants(request, table, names)
    smallest, largest = span_of(problems)
    step = step_bytes or _default_step(largest)
    sizes = even_budgets(smallest, largest, points)
    every = {*sizes, *(size + step for size in sizes), *(quant.file_bytes for quant in quants)}
    best = best_points(request, table, problems, every)
    kept = [size for size in sizes if size in best]
    if not kept:
        raise BudgetImpossible(f"no plan within these types and limits has a predicted KLD of {request.most_kld:g}")
    if len(kept) < len(sizes):
        notes.append(
            f"{len(sizes) - len(kept)} smaller sizes left out: their predicted KLD is above {request.most_kld:g}"
        )
    notes += _beyond_memory(request, quants)
    kld = {size: _predicted(formulation, table, point.choices) for size, (formulation, point) in best.items()}
    before = [None, *(best[size] for size in kept)]
    entries = [
        _entry(request, *best[size], kld[size], kld[size][0] - kld[size + step][0], smaller)
        for smaller, size in zip(before, kept, strict=False)
    ]
    bend = knee([best[size][1] for size in kept])
    scored = (replace(quant, plan_kld=kld.get(quant.file_bytes, (None,))[0]) for quant in quants)
    at = None if bend is None else next(i for i, size in enumerate(kept) if best[size][1] is bend)
    return Frontier(tuple(entries), step, at, tuple(scored), tuple(notes), table.calibrated)


def _beyond_memory(request: PlanRequest, quants: Iterable[StockQuant]) -> Iterator[str]:
    """A note on each stock quant that the request's devices have no room for."""
    if request.devices is None:
        return
    for quant in quants:
        over = request.devices.exceeded(memory_use(quant.types, request.model, request.devices))
        if over:
            yield f"{quant.name} is shown for comparison only: {over}"


def _default_step(largest: int) -> int:
    return min(NEXT_BYTES, 10 ** int(math.log10(max(largest / 20, 1))))


def _entry(
    request: PlanRequest,
    formulation: Formulation,
    point: Point,
    kld: tuple[float, float],
    saved: float,
    before: tuple[Formulation, Point] | None,
) -> FrontierEntry:
    types = formulation.grouping.types(point.choices)
    changed = 0
    if before is not None:
        former = before[0].grouping.types(before[1].choices)
        changed = sum(any(types[t.name] != former[t.name] for t in members) for members in formulation.grouping.members)
    size = formulation.fixed_bytes + point.bytes
    return FrontierEntry(
        point,
        formulation.fixed_bytes + point.budget_bytes,
        size,
        request.model.bits_per_weight(types),
        *kld,
        saved,
        changed,
        request.model.bytes_per_token(types),
    )


def _predicted(formulation: Formulation, table: SensitivityTable, choices: Sequence[int]) -> tuple[float, float]:
    return table.predict(formulation.grouping.priced(choices, table))


def _stock_quants(
    request: PlanRequest, table: SensitivityTable, names: Sequence[str] | None
) -> tuple[list[StockQuant], list[str]]:
    """Those that can be made and scored, and why others were left out; named ones must not be."""
    scored, notes = stock_quants(request, table, names)
    unmeasured = [
        f"{quant.name}: the sensitivity table has no value for {quant.unmeasured}"
        for quant in scored
        if quant.unmeasured
    ]
    if unmeasured and names is not None:
        raise BadUsage(unmeasured[0])
    left_out = [f"stock quant left out: {note}" for note in (*notes, *unmeasured)]
    return [quant for quant in scored if not quant.unmeasured], left_out


# --- every size


def best_points(
    request: PlanRequest, table: SensitivityTable, problems: Sequence[Formulation], file_sizes: Iterable[int]
) -> dict[int, tuple[Formulation, Point]]:
    """File size -> the best plan no larger than that, of all formulations; sizes below every plan are left out.

    Where the request has ``most_kld``, so are plans that are predicted to lose more.
    """
    best: dict[int, tuple[Formulation, Point]] = {}
    sizes = sorted(set(file_sizes))
    for formulation in problems:
        smallest = formulation.fixed_bytes + _smallest(formulation)
        budgets = [size - formulation.fixed_bytes for size in sizes if size >= smallest]
        for point in frontier(formulation.problem, budgets) if budgets else ():
            size = point.budget_bytes + formulation.fixed_bytes
            if size not in best or point.damage < best[size][1].damage:
                best[size] = formulation, point
    if request.most_kld is None:
        return best
    return {
        size: made for size, made in best.items() if _predicted(made[0], table, made[1].choices)[0] <= request.most_kld
    }


def span_of(problems: Sequence[Formulation]) -> tuple[int, int]:
    """The smallest file within the limits, and that of the best plan that no budget limits. BudgetImpossible where none is."""
    ends, refused = [], None
    for formulation in problems:
        try:
            ends.append([formulation.fixed_bytes + size for size in span(formulation.problem)])
        except BudgetImpossible as error:
            refused = error
    if not ends and refused:
        raise refused
    return min(low for low, _ in ends), max(high for _, high in ends)


def _smallest(formulation: Formulation) -> float:
    try:
        return smallest_bytes(formulation.problem)
    except BudgetImpossible:
        return math.inf


# --- one budget


def best_alternatives(
    request: PlanRequest,
    table: SensitivityTable,
    count: int,
    least: int | None,
    time_limit: float = 60.0,
    speeds: SpeedTable | None = None,
) -> tuple[Alternative, ...]:
    """The best plans within the request's budget and limits, each different from every better one in at least ``least``
    groups (None: one in fifty).
    """
    formulation = _at_budget(request, table, speeds).formulation
    least = least or max(1, len(formulation.problem.groups) // 50)
    if least > len(formulation.problem.groups):
        raise BadUsage(
            f"--differ {least}: there are only {len(formulation.problem.groups)} tensors (or groups) to choose for"
        )
    plans = alternatives(formulation.problem, count, least, time_limit=time_limit)
    best = formulation.grouping.types(plans[0].choices)
    return tuple(_alternative(request.model, formulation, table, plan, best) for plan in plans)


def _alternative(
    model: Model, formulation: Formulation, table: SensitivityTable, plan: Solution, best: dict[str, QuantType]
) -> Alternative:
    types = formulation.grouping.types(plan.choices)
    changed = tuple(name for name, kind in types.items() if kind != best[name])
    size = formulation.fixed_bytes + formulation.problem.bytes(plan.choices)
    predicted = _predicted(formulation, table, plan.choices)
    return Alternative(plan, types, size, *predicted, changed, model.bytes_per_token(types))


def plan_stability(
    request: PlanRequest, table: SensitivityTable, draws: int, speeds: SpeedTable | None = None
) -> tuple[Formulation, Solution, Stability]:
    """How much of the plan for the request's budget would change within the errors of the table's rows."""
    solved = _at_budget(request, table, speeds)
    formulation, plan = solved.formulation, solved.solution
    errors = group_errors(formulation, with_draft_costs(table, request.model), plan.choices)
    return formulation, plan, stability(formulation.problem, plan.choices, errors, draws)


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


def _at_budget(request: PlanRequest, table: SensitivityTable, speeds: SpeedTable | None) -> Solved:
    if request.budget is None:
        raise BadUsage("at which size? give --budget, for example --budget 4.5bpw")
    if request.most_kld is not None:
        raise BadUsage("--budget sets the size: leave --max-kld out")
    return solve_request(request, table, speeds)
