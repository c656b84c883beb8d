"""At most K distinct types: branch and bound over the set of types, each node bounded by its Lagrangian relaxation.

A node allows some labels and has decided to use some of them. Leaving a label out can only raise the bound, so nodes
are taken best first, and a set of K labels is a problem without the condition, solved exactly.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from quantplan.solve.bound import Relaxation, Tableau, relax, tabulate, without_oversized
from quantplan.solve.problem import Group, Problem

Labels = frozenset[str]
Solved = tuple[float, float, tuple[int, ...]]  # damage, bound, choices
Leaf = Callable[[Problem, float], Solved | None]  # solves within the seconds given; None where no plan exists


@dataclass(order=True)
class _Node:
    """``bound`` <= the damage of every plan of allowed labels; ``used``: of the relaxation, most bytes first."""

    bound: float
    number: int
    allowed: Labels = field(compare=False)
    decided: Labels = field(compare=False)
    used: tuple[str, ...] = field(compare=False)


def solve_distinct(problem: Problem, leaf: Leaf, gap: float, deadline: float) -> Solved | None:
    """The best plan of at most ``problem.distinct.most`` labels; None where none exists (bound inf) or was found in time.

    ``deadline`` is on time.perf_counter's clock.
    """
    return _Search(problem, leaf, gap, deadline).run()


class _Search:
    def __init__(self, problem: Problem, leaf: Leaf, gap: float, deadline: float) -> None:
        assert problem.distinct is not None
        self.problem, self.leaf, self.gap, self.deadline = problem, leaf, gap, deadline
        self.most = problem.distinct.most
        self.tableau = tabulate(problem)
        self.label = _labels(problem, self.tableau)
        self.best: tuple[int, ...] | None = None
        self.damage, self.unproven = math.inf, math.inf
        self.heap: list[_Node] = []
        self.made = 0
        self.seen: set[Labels] = set()

    def run(self) -> Solved | None:
        everything = frozenset(self.label[self.label != ""].tolist())
        self._push(everything, frozenset())
        if self.heap:
            self._try(frozenset(self.heap[0].used[: self.most]))
        while self.heap and self.heap[0].bound < self._enough and time.perf_counter() < self.deadline:
            self._branch(heapq.heappop(self.heap))
        if self.best is None:
            return None
        bound = min([self.damage, self.unproven, *(self.heap[0:1] and [self.heap[0].bound])])
        return self.damage, bound, self.best

    @property
    def _enough(self) -> float:
        return self.damage * (1 - self.gap)

    def _branch(self, node: _Node) -> None:
        """With and without the undecided label that the relaxation puts most bytes into."""
        if len(node.allowed) <= self.most:
            self._try(node.allowed)
            return
        undecided = [label for label in (*node.used, *sorted(node.allowed)) if label not in node.decided]
        decided = node.decided | {undecided[0]}
        self._push(decided if len(decided) == self.most else node.allowed, decided)
        self._push(node.allowed - {undecided[0]}, node.decided)

    def _push(self, allowed: Labels, decided: Labels) -> None:
        relaxation = self._relaxed(allowed)
        if relaxation is None or relaxation.bound >= self._enough:
            return
        self.made += 1
        heapq.heappush(self.heap, _Node(relaxation.bound, self.made, allowed, decided, self._used(relaxation)))

    def _relaxed(self, allowed: Labels) -> Relaxation | None:
        """None where no plan of these labels keeps the limits."""
        ruled_out = ~np.isin(self.label, [*allowed, ""])
        tableau = self.tableau.without(ruled_out)
        if tableau.empty:
            return None
        tableau = without_oversized(tableau)
        return None if tableau.empty else relax(tableau)

    def _used(self, relaxation: Relaxation) -> tuple[str, ...]:
        taken = np.take_along_axis(self.label, relaxation.choices[:, None], axis=1)[:, 0]
        weight: dict[str, int] = {}
        for label, group, choice in zip(taken.tolist(), self.problem.groups, relaxation.choices.tolist(), strict=True):
            if label:
                weight[label] = weight.get(label, 0) + group.choices[choice].bytes
        return tuple(sorted(weight, key=lambda label: (-weight[label], label)))

    def _try(self, allowed: Labels) -> None:
        """Solve the problem that a set of labels leaves, once."""
        if allowed in self.seen:
            return
        self.seen.add(allowed)
        restricted, kept = _restricted(self.problem, allowed)
        found = self.leaf(restricted, self.deadline - time.perf_counter()) if restricted else None
        if found is None:
            return
        damage, bound, choices = found
        self.unproven = min(self.unproven, bound if bound < damage * (1 - self.gap) else math.inf)
        if damage < self.damage:
            self.damage = damage
            self.best = tuple(index[choice] for index, choice in zip(kept, choices, strict=True))


def _labels(problem: Problem, tableau: Tableau) -> np.ndarray:
    """str [groups, choices]: empty where labels are not counted."""
    counted = set(problem.distinct.groups if problem.distinct else ())
    width = tableau.damage.shape[1]
    rows = [
        [choice.label if at in counted else "" for choice in group.choices] + [""] * (width - len(group.choices))
        for at, group in enumerate(problem.groups)
    ]
    return np.array(rows)


def _restricted(problem: Problem, allowed: Iterable[str]) -> tuple[Problem | None, list[list[int]]]:
    """The problem of these labels alone, and the indices that its choices have in the whole one."""
    allowed, counted = set(allowed), set(problem.distinct.groups if problem.distinct else ())
    kept = [
        [at for at, choice in enumerate(group.choices) if number not in counted or choice.label in allowed]
        for number, group in enumerate(problem.groups)
    ]
    return choosing(problem, kept), kept


def choosing(problem: Problem, kept: list[list[int]]) -> Problem | None:
    """The problem with only these choices of each group, without ``distinct``; None where a group has none left."""
    if not all(kept):
        return None
    groups = tuple(
        Group(group.name, tuple(group.choices[at] for at in index))
        for group, index in zip(problem.groups, kept, strict=True)
    )
    resources = tuple(
        replace(each, use=tuple(tuple(use[at] for at in index) for use, index in zip(each.use, kept, strict=True)))
        for each in problem.resources
    )
    chains = tuple(
        replace(
            each,
            ranks=tuple(
                tuple(ranks[at] for at in kept[group]) for group, ranks in zip(each.groups, each.ranks, strict=True)
            ),
        )
        for each in problem.chains
    )
    return Problem(groups, problem.budget_bytes, resources, None, chains)
