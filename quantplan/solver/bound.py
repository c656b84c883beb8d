"""Lower bounds by Lagrangian relaxation, and what they rule out.

With a price on every resource the groups fall apart: each takes its cheapest choice of damage + price * use.
For any prices >= 0 that sum, less price * limit, is a lower bound of the optimum (Everett 1963; Geoffrion
1974), and a choice whose reduced cost lifts it to the damage of a known plan is in no better plan. Choices
above the convex hull stay: an exact answer needs them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from quantplan.solver.problem import Problem, Resource

SECANT_STEPS = 200  # 10-30 are typical; the relaxation is a valid bound wherever it stops
ROUNDS = 30  # over several resources; each round raises the bound, two or three do most of it


@dataclass(frozen=True)
class ChoiceArrays:
    """The problem in arrays. Use counts from each group's smallest choice, in units of the common divisor.

    ``damage``: float64 [groups, choices], inf where a choice does not exist or was ruled out;
    ``use``: int64 [resources, groups, choices]; ``limit``: int64 [resources], negative where nothing fits.
    """

    damage: np.ndarray
    use: np.ndarray
    limit: np.ndarray

    @property
    def offered(self) -> np.ndarray:
        """bool [groups, choices]"""
        return np.isfinite(self.damage)

    @property
    def empty(self) -> bool:
        """Whether some group has no choice left, so that no plan exists."""
        return not self.offered.any(axis=1).all()

    @property
    def open(self) -> np.ndarray:
        """Indices of the groups with more than one choice left."""
        return np.flatnonzero(self.offered.sum(axis=1) > 1)

    def without(self, ruled_out: np.ndarray) -> "ChoiceArrays":
        return replace(self, damage=np.where(ruled_out, np.inf, self.damage))

    def total_damage(self, choices: np.ndarray) -> float:
        return float(np.take_along_axis(self.damage, choices[:, None], axis=1).sum())

    def total_use(self, choices: np.ndarray) -> np.ndarray:
        """int64 [resources]"""
        return np.take_along_axis(self.use, choices[None, :, None], axis=2).sum(axis=(1, 2))

    def fits(self, choices: np.ndarray) -> bool:
        return bool((self.total_use(choices) <= self.limit).all())


def choice_arrays(problem: Problem) -> ChoiceArrays:
    shape = len(problem.groups), max((len(group.choices) for group in problem.groups), default=1)
    damage = np.full(shape, np.inf)
    for row, group in zip(damage, problem.groups, strict=True):
        row[: len(group.choices)] = [choice.damage for choice in group.choices]
    scaled = [_scaled(resource, shape) for resource in binding(problem)]
    use, limit = zip(*scaled, strict=True)
    return ChoiceArrays(damage, np.stack(use), np.array(limit, dtype=np.int64))


def binding(problem: Problem) -> tuple[Resource, ...]:
    """The limits that not even the largest choices keep; where there are none, the bytes."""
    limits = problem.limits
    return tuple(each for each in limits if sum(map(max, each.use)) > each.limit) or limits[:1]


def prices(problem: Problem) -> dict[str, float]:
    """Damage that one more unit of each limit would save at the margin: the relaxation's prices, 0 where one does not bind."""
    # with what is too large for any plan: at the smallest size, too, the next step has a price
    choices_arrays = choice_arrays(problem)
    by_name = dict.fromkeys((each.name for each in problem.limits), 0.0)
    units = [max(_unit(each), 1) for each in binding(problem)]
    priced_limits = zip(binding(problem), relax(choices_arrays).prices.tolist(), units, strict=True)
    return by_name | {each.name: price / unit for each, price, unit in priced_limits}


def _unit(resource: Resource) -> int:
    """Greatest common divisor of what choices use beyond their group's least."""
    return math.gcd(*(use - min(uses) for uses in resource.use for use in uses))


def _scaled(resource: Resource, shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    use = np.zeros(shape, dtype=np.int64)
    for row, uses in zip(use, resource.use, strict=True):
        row[: len(uses)] = np.array(uses, dtype=np.int64) - min(uses)
    unit = max(_unit(resource), 1)
    return use // unit, (resource.limit - sum(map(min, resource.use))) // unit


def without_dominated(choices_arrays: ChoiceArrays) -> ChoiceArrays:
    """Without choices that use no less and are no better than another; of equals the first stays."""
    ruled_out = ~choices_arrays.offered
    index = np.arange(choices_arrays.damage.shape[1])
    for other in index:
        damage, use = choices_arrays.damage[:, other, None], choices_arrays.use[:, :, other, None]
        no_better = (damage <= choices_arrays.damage) & (use <= choices_arrays.use).all(axis=0)
        equal = (damage == choices_arrays.damage) & (use == choices_arrays.use).all(axis=0)
        ruled_out |= no_better & (~equal | (other < index))
    return choices_arrays.without(ruled_out)


def without_oversized(choices_arrays: ChoiceArrays) -> ChoiceArrays:
    """Without choices that fit in no plan, even when all other groups take their smallest."""
    while not choices_arrays.empty:
        least = np.where(choices_arrays.offered, choices_arrays.use, np.iinfo(np.int64).max).min(axis=2, keepdims=True)
        room = (choices_arrays.limit - least.sum(axis=(1, 2)))[:, None, None]
        oversized = choices_arrays.offered & (choices_arrays.use - least > room).any(axis=0)
        if not oversized.any():
            break
        choices_arrays = choices_arrays.without(oversized)  # what is smallest of another resource may have gone with it
    return choices_arrays


@dataclass(frozen=True)
class BoundSolution:
    """What a search says.

    ``choices``: int64 [groups], its best plan, None where it met none below its target; ``bound`` <= the
    damage of every plan that the arrays still hold, or the target.
    """

    choices: np.ndarray | None
    bound: float


@dataclass(frozen=True)
class Relaxation:
    """``bound`` <= the damage of every plan of the arrays.

    ``prices``: float64 [resources], damage per unit of their use; ``choices``: int64 [groups],
    cheapest at these prices, and with one resource within its limit; ``reduced``: float64 [groups, choices],
    what a choice costs beyond the cheapest, >= 0.
    """

    bound: float
    prices: np.ndarray
    choices: np.ndarray
    reduced: np.ndarray


def relax(choices_arrays: ChoiceArrays) -> Relaxation:
    """The best bound over the prices: exact for one resource, by coordinate ascent for several.

    Needs arrays that ``without_oversized`` did not leave empty.
    """
    prices, bound = np.zeros(len(choices_arrays.limit)), -np.inf
    for _ in range(ROUNDS if len(prices) > 1 else 1):
        for resource in range(len(prices)):
            prices, choices = _ascend(choices_arrays, prices, resource)
        relaxation = _relaxation(choices_arrays, prices, choices)
        if relaxation.bound - bound <= 1e-9 * abs(relaxation.bound):
            break
        bound = relaxation.bound
    return relaxation


def _cheapest(choices_arrays: ChoiceArrays, prices: np.ndarray) -> np.ndarray:
    return _costs(choices_arrays, prices).argmin(axis=1)


def _costs(choices_arrays: ChoiceArrays, prices: np.ndarray) -> np.ndarray:
    return choices_arrays.damage + priced(prices, choices_arrays.use)


def priced(prices: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Sum over the resources of price * use: [..., resources] and [resources, ...] give [..., ...].

    einsum on purpose: BLAS, behind ``@``, starts threads for such thin products and takes three times as long
    on a busy machine.
    """
    flat = np.einsum("...r,rx->...x", prices, use.reshape(len(use), -1))
    return flat.reshape(*prices.shape[:-1], *use.shape[1:])


def _relaxation(choices_arrays: ChoiceArrays, prices: np.ndarray, choices: np.ndarray) -> Relaxation:
    costs = _costs(choices_arrays, prices)
    reduced = costs - costs.min(axis=1, keepdims=True)
    # use - limit is taken in integers: price * use alone may be far larger than the bound
    value = choices_arrays.total_damage(choices) + float(
        prices @ (choices_arrays.total_use(choices) - choices_arrays.limit)
    )
    excess = np.take_along_axis(reduced, choices[:, None], axis=1).sum()  # rounding, unless steps ran out
    return Relaxation(value - float(excess), prices, choices, reduced)


def _ascend(choices_arrays: ChoiceArrays, prices: np.ndarray, resource: int) -> tuple[np.ndarray, np.ndarray]:
    """Prices with the best price of one resource, and the choices there.

    The bound is concave and piecewise linear in the price, one line for each set of choices. Where the line
    of too large a set meets that of one that fits, either no line is lower and the top is found, or a lower
    one takes the place of one of the two.
    """
    prices = prices.copy()

    def line(choices: np.ndarray) -> tuple[float, int]:
        others = np.delete(np.arange(len(prices)), resource)
        over = choices_arrays.total_use(choices) - choices_arrays.limit
        return choices_arrays.total_damage(choices) + float(prices[others] @ over[others]), int(over[resource])

    prices[resource] = 0.0
    too_large = _cheapest(choices_arrays, prices)
    at_zero, slope_up = line(too_large)
    if slope_up <= 0:
        return prices, too_large
    fitting = _smallest(choices_arrays, prices, resource)
    at_zero_fitting, slope_down = line(fitting)
    for _ in range(SECANT_STEPS):
        prices[resource] = (at_zero_fitting - at_zero) / (slope_up - slope_down)
        choices = _cheapest(choices_arrays, prices)
        height, slope = line(choices)
        if slope in (slope_up, slope_down):
            break
        if slope > 0:
            at_zero, slope_up = height, slope
        else:
            fitting, at_zero_fitting, slope_down = choices, height, slope
    return prices, fitting


def _smallest(choices_arrays: ChoiceArrays, prices: np.ndarray, resource: int) -> np.ndarray:
    """The choices that use least of a resource, the cheapest of those."""
    use = np.where(choices_arrays.offered, choices_arrays.use[resource], np.iinfo(np.int64).max)
    least = use == use.min(axis=1, keepdims=True)
    return np.where(least, _costs(choices_arrays, prices), np.inf).argmin(axis=1)


def without_worse(choices_arrays: ChoiceArrays, relaxation: Relaxation, target: float) -> ChoiceArrays:
    """Without choices that no plan of less damage than ``target`` takes (reduced cost fixing)."""
    return choices_arrays.without(relaxation.bound + relaxation.reduced >= target)
