"""Dynamic programming over the groups: a state is an amount used of each resource and the least damage at it.

A state falls when another uses no more and damages no more, when its damage plus the Lagrangian bound of the
groups to come reaches the target, or when the sweep is at its width and the state promises least. What fell
for width alone limits what is proven: a narrow sweep finds a good plan, a wide enough one proves the best
(bounds within dynamic programming: Dyer, Riha and Walker 1995).
"""

import time
from dataclasses import dataclass

import numpy as np

from quantplan.solver.bound import BoundSolution, ChoiceArrays, Relaxation, priced

# The groups to come have a best price of their own, near that of all groups: these factors come close enough.
PRICE_FACTORS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1, 1.005, 1.01, 1.02, 1.05, 1.1, 1.25, 2)


@dataclass(frozen=True)
class States:
    """``use``: int64 [resources, states], ``damage``: float64 [states], both above the relaxation's plan."""

    use: np.ndarray
    damage: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "States":
        return States(self.use[:, which], self.damage[which])


@dataclass(frozen=True)
class Stage:
    """One group: what each of its choices adds, and the least that the groups after it can add.

    ``choices``: int64 [k]; ``use``: int64 [resources, k]; ``damage``: float64 [k];
    ``later_cost``: float64 [factors], damage + price * use; ``later_use`` and ``later_most``: int64 [resources].
    """

    group: int
    choices: np.ndarray
    use: np.ndarray
    damage: np.ndarray
    later_cost: np.ndarray
    later_use: np.ndarray
    later_most: np.ndarray

    def extend(self, states: States, room: np.ndarray) -> States:
        """Every state with every choice, [states * k]: child i comes of state i // k by choice i % k.

        Of several resources, states that leave more than all later groups can use are alike: their use counts as what
        leaves just that.
        """
        use = (states.use[:, :, None] + self.use[:, None, :]).reshape(len(self.use), -1)
        if len(use) > 1:
            use = np.maximum(use, (room - self.later_most)[:, None])
        return States(use, (states.damage[:, None] + self.damage).ravel())


def sweep(arrays: ChoiceArrays, relaxation: Relaxation, target: float, width: int, deadline: float) -> BoundSolution:
    """The best plan of damage below ``target`` that ``width`` states at a time can find.

    ``deadline`` on time.perf_counter's clock: past it nothing was found and nothing proven.
    """
    base = relaxation.choices
    ground = arrays.total_damage(base)
    room = arrays.limit - arrays.total_use(base)
    prices = np.outer(PRICE_FACTORS, relaxation.prices)
    states = States(np.zeros((len(room), 1), dtype=np.int64), np.zeros(1))
    proven = target - ground
    stages, trail = make_stages(arrays, relaxation, prices), []
    for stage in stages:
        if time.perf_counter() > deadline:
            return BoundSolution(None, relaxation.bound)
        children = stage.extend(states, room)
        promise = promised(children, stage, prices, room)
        worth = np.flatnonzero(promise < target - ground)
        worth = worth[undominated(children[worth])]
        worth, missed = most_promising(worth, promise, width)
        proven = min(proven, missed)
        states = children[worth]
        trail.append(worth)
    if not len(states.damage):
        return BoundSolution(None, ground + proven)
    best = int(states.damage.argmin())
    return BoundSolution(follow(trail, stages, base, best), ground + min(proven, float(states.damage[best])))


def make_stages(arrays: ChoiceArrays, relaxation: Relaxation, prices: np.ndarray) -> list[Stage]:
    """Open groups, most at stake first: many small groups have a tight bound and fill what is left."""
    stake = np.where(arrays.offered, priced(relaxation.prices, arrays.use), 0.0).max(axis=1)
    order = sorted(arrays.open, key=lambda group: (-stake[group], group))
    later_cost = np.zeros(len(prices))
    later_use = later_most = np.zeros(len(arrays.limit), dtype=np.int64)
    stages: list[Stage] = []
    for group in reversed(order):
        base = relaxation.choices[group]
        choices = np.flatnonzero(arrays.offered[group])
        use = arrays.use[:, group, choices] - arrays.use[:, group, base, None]
        damage = arrays.damage[group, choices] - arrays.damage[group, base]
        stages.append(Stage(int(group), choices, use, damage, later_cost, later_use, later_most))
        later_cost = later_cost + (damage + priced(prices, use)).min(axis=1)
        later_use = later_use + use.min(axis=1)
        later_most = later_most + use.max(axis=1)
    return stages[::-1]


def promised(children: States, stage: Stage, prices: np.ndarray, room: np.ndarray) -> np.ndarray:
    """float64 [children]: a bound of the damage it ends with, inf where it cannot end within the limits."""
    left = room[:, None] - children.use
    bound = children.damage + (stage.later_cost[:, None] - priced(prices, left)).max(axis=0)
    return np.where((left >= stage.later_use[:, None]).all(axis=0), bound, np.inf)


def undominated(states: States) -> np.ndarray:
    """Indices of the states to keep: of those that use as much of the further resources, the best for their bytes."""
    first, *further = states.use
    order = np.lexsort((states.damage, first, *further))
    if not further:
        damage = states.damage[order]
        return order[np.concatenate([[True], damage[1:] < np.minimum.accumulate(damage)[:-1]])[: len(order)]]
    starts = np.zeros(len(order), dtype=bool)
    starts[:1] = True
    for use in further:
        starts[1:] |= use[order[1:]] != use[order[:-1]]
    ranks = np.unique(states.damage, return_inverse=True)[1].reshape(-1)[order]
    ranks = ranks - np.cumsum(starts) * (len(order) + 1)  # those of one use begin below all of the use before
    better = np.ones(len(order), dtype=bool)
    better[1:] = ranks[1:] < np.minimum.accumulate(ranks)[:-1]
    return order[better]


def most_promising(worth: np.ndarray, promise: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """At most ``width`` of them, and the best promise of those left behind (inf where none is)."""
    if len(worth) <= width:
        return worth, np.inf
    order = np.argsort(promise[worth], kind="stable")
    return worth[np.sort(order[:width])], float(promise[worth[order[width]]])


def follow(trail: list[np.ndarray], stages: list[Stage], base: np.ndarray, state: int) -> np.ndarray:
    """The choices that led to a state of the last stage; ``trail``: each stage's children that went on."""
    choices = base.copy()
    for stage, kept in zip(reversed(stages), reversed(trail), strict=True):
        state, taken = divmod(int(kept[state]), len(stage.choices))
        choices[stage.group] = stage.choices[taken]
    return choices
