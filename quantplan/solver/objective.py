"""What is minimised: the sum of damages, their tail, the largest, the sum on the worst of several texts, or the bytes at a given
damage.

Each is a problem of the same form, so each comes with the same proof.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from quantplan.errors import BudgetImpossible, QuantplanError
from quantplan.plan import Outcome
from quantplan.quant_type import QuantType
from quantplan.sensitivity_table import Interaction, SensitivityTable
from quantplan.solver.cardinality import choosing
from quantplan.solver.grouping import Grouping
from quantplan.solver.problem import Choice, Group, Problem, Resource
from quantplan.solver.program import smallest_bytes, solve
from quantplan.solver.search import Solution
from quantplan.solver.worst_domain import WORST_DOMAIN, minimise_worst
from quantplan.tensor import Tensor

OBJECTIVES = ("sum", "tail", "max", WORST_DOMAIN)
_STEPS = 10**13  # a limit on damage is counted in as many integer steps
_ROUNDING = 1e-9  # what counting in steps, rounded down, may let through, relative
_TANGENTS = 20


def minimise(problem: Problem, objective: str = "sum", gap: float = 1e-6, time_limit: float = 60.0) -> Solution:
    """The best plan for an objective of OBJECTIVES. Raises what ``solve`` raises.

    "tail": the root of the sum of squares, between sum and maximum: a few large damages weigh more than many small ones
    of the same sum. "max": the largest damage of any group, and among the plans that reach it the least sum. "worst-domain": the
    sum of damages on the text of several where it is largest.
    """
    if objective == WORST_DOMAIN:
        return minimise_worst(problem, gap, time_limit)
    if objective == "tail":
        return _tail(problem, gap, time_limit)
    if objective == "max":
        return _minimax(problem, gap, time_limit)
    return solve(problem, gap, time_limit)


def _tail(problem: Problem, gap: float, time_limit: float) -> Solution:
    best = solve(_with_damages(problem, lambda choice: choice.damage**2), gap, time_limit)
    outcome = best.outcome
    top, bound = math.sqrt(best.objective), math.sqrt(best.bound)
    # the derivative of the root turns a price of squares into one of damage
    prices = {name: price / (2 * top) if top else 0.0 for name, price in outcome.prices.items()}
    outcome = replace(outcome, objective=top, bound=bound, gap=(top - bound) / top if top else 0.0, prices=prices)
    return replace(best, outcome=replace(outcome, minimised="tail"))


def _with_damages(problem: Problem, damage: Callable[[Choice], float]) -> Problem:
    groups = (
        Group(group.name, tuple(replace(choice, damage=damage(choice)) for choice in group.choices))
        for group in problem.groups
    )
    return replace(problem, groups=tuple(groups))


def _minimax(problem: Problem, gap: float, time_limit: float) -> Solution:
    """Bisection over the damages that occur: is there a plan in which no group's is larger?"""
    started = time.perf_counter()
    levels = sorted({choice.damage for group in problem.groups for choice in group.choices})
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if _exists(problem, levels[middle], time_limit):
            high = middle
        else:
            low = middle + 1
    restricted, allowed = _capped(problem, levels[low]) if levels else (problem, [])
    best = solve(restricted or problem, gap, time_limit)
    choices = tuple(index[choice] for index, choice in zip(allowed, best.choices, strict=True))
    largest = max((choice.damage for choice in problem.taken(choices)), default=0.0)
    seconds = time.perf_counter() - started
    outcome = Outcome(best.outcome.status, largest, largest, 0.0, seconds, "max", best.outcome.prices)
    return Solution(outcome, choices)


def _capped(problem: Problem, most: float) -> tuple[Problem | None, list[list[int]]]:
    allowed = [[at for at, choice in enumerate(group.choices) if choice.damage <= most] for group in problem.groups]
    restricted = choosing(problem, allowed)
    if restricted and problem.distinct:
        restricted = replace(restricted, distinct=problem.distinct)
    return restricted, allowed


def _exists(problem: Problem, most: float, time_limit: float) -> bool:
    restricted, _ = _capped(problem, most)
    if restricted is None:
        return False
    try:
        if not problem.resources and not problem.distinct and not problem.chains:
            return smallest_bytes(restricted) <= problem.budget_bytes
        solve(restricted, gap=1.0, time_limit=time_limit)
    except BudgetImpossible:
        return False
    return True


# --- a target of damage


def smallest_within(
    problem: Problem,
    grouping: Grouping,
    table: SensitivityTable,
    kld: float,
    gap: float = 1e-6,
    time_limit: float = 60.0,
) -> Solution:
    """The fewest bytes of a plan whose predicted KLD is at most ``kld`` nats per token, and of least damage at these.

    The prediction f (S (1 + c S) + K) is convex in S for c >= 0: it is met by tangents, each a linear limit that every
    such plan keeps, until the plan found keeps the curve itself. (A table with c < 0 is met from the safe side.)
    Raises BudgetImpossible with the least KLD that the types allow.
    """
    curve = table.interaction
    room = kld / curve.factor
    touching = _single_sum(curve, room)
    tangents: list[Resource] = []
    started = time.perf_counter()
    for _ in range(_TANGENTS):
        if curve.curvature < 0:
            tangents.clear()
        tangents.append(_tangent(grouping, table, room, touching))
        best = _fewest_bytes(problem, tangents, gap, time_limit, lambda: _unreachable(problem, grouping, table, kld))
        types = grouping.priced(best.choices, table)
        if table.predict(types)[0] <= kld * (1 + _ROUNDING):
            seconds = time.perf_counter() - started
            return _least_damage(
                problem, grouping, table, kld, replace(best, outcome=replace(best.outcome, seconds=seconds))
            )
        touching = sum(table.rows[name].weights[kind] for name, kind in types.items())
    raise QuantplanError(
        f"no plan of a predicted KLD of {kld:g} was found in {_TANGENTS} rounds; ask for a little more"
    )


def _single_sum(curve: Interaction, total: float) -> float:
    """S with S (1 + c S) = total."""
    c = curve.curvature
    if c <= 0:
        return total
    return (math.sqrt(1 + 4 * c * total) - 1) / (2 * c)


def _tangent(grouping: Grouping, table: SensitivityTable, room: float, at: float) -> Resource:
    """(1 + 2 c s) S - c s^2 + K <= room, which touches the curve at s = ``at``.

    What breaks the limit by itself counts as twice the limit.
    """
    curvature = table.interaction.curvature
    limit, slope = room + curvature * at**2, 1 + 2 * curvature * at
    step = limit / _STEPS

    def use(tensor: Tensor, kind: QuantType) -> int:
        row = table.rows.get(tensor.name)
        if row is None or kind.name not in row.weights:
            return 0  # stays as it is stored
        return int(min((slope * row.weights[kind.name] + row.kernel.get(kind.name, 0.0)) / step, 2.0 * _STEPS))

    return grouping.resource("predicted KLD", _STEPS, use)


def _fewest_bytes(
    problem: Problem, tangents: list[Resource], gap: float, time_limit: float, unreachable: Callable[[], Exception]
) -> Solution:
    """Bytes and the first tangent change places: the problem is of the form that the solver knows."""
    first, *others = tangents
    groups = tuple(
        Group(
            group.name, tuple(Choice(c.label, used, float(c.bytes)) for c, used in zip(group.choices, use, strict=True))
        )
        for group, use in zip(problem.groups, first.use, strict=True)
    )
    sizes = Resource("size of the file", problem.budget_bytes, problem.limits[0].use)
    swapped = replace(problem, groups=groups, budget_bytes=first.limit, resources=(sizes, *problem.resources, *others))
    try:
        best = solve(swapped, gap, time_limit)
    except BudgetImpossible:
        raise unreachable() from None
    # prices would be bytes per step of damage: ``smallest_within`` takes those of the plan's own size
    return replace(best, outcome=replace(best.outcome, minimised="bytes", prices={}))


def _least_damage(
    problem: Problem, grouping: Grouping, table: SensitivityTable, kld: float, found: Solution
) -> Solution:
    """Of all plans as small as the one found, the one of least damage, unless its prediction is beyond the target."""
    best = solve(replace(problem, budget_bytes=problem.bytes(found.choices)))
    if table.predict(grouping.priced(best.choices, table))[0] > kld * (1 + _ROUNDING):
        return found
    return Solution(replace(found.outcome, prices=best.outcome.prices), best.choices)


def _unreachable(problem: Problem, grouping: Grouping, table: SensitivityTable, kld: float) -> Exception:
    """What stands in the way of a target: it itself, or the other limits (then they are named by their own solve)."""
    best = solve(problem)
    least, _ = table.predict(grouping.priced(best.choices, table))
    return BudgetImpossible(
        f"no plan within these types and limits has a predicted KLD of {kld:g} nats/token: the least is {least:.3g}; "
        f"ask for --max-kld {math.ceil(least * 1e6) / 1e6:g} or more, or allow larger types"
    )
