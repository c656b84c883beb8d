"""At most K distinct types: branch and bound over the set of types.

A node allows some labels and has decided to use some of them. Without the condition it is a problem that the solver
proves in a moment, and where that plan happens to use no more than K labels it is the node's best. Else one of its
labels is either decided on or left out; leaving a label out only raises the bound, so nodes are taken best first.
"""

import heapq
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from quantplan.solver.bound import BoundSolution, ChoiceArrays, Relaxation, choice_arrays, relax, without_oversized
from quantplan.solver.problem import Group, Problem

Labels = frozenset[str]
Solve = Callable[[Problem, float, float], BoundSolution | None]  # (problem, gap, deadline); None where no plan exists


@dataclass(order=True)
class _Node:
    """``bound`` <= the damage of every plan of allowed labels. ``used``: labels of the node's best plan without the
    condition, most bytes first; empty until that is solved.
    """

    bound: float
    number: int
    allowed: Labels = field(compare=False)
    decided: Labels = field(compare=False)
    used: tuple[str, ...] = field(compare=False, default=())


def solve_distinct(problem: Problem, solve: Solve, gap: float, deadline: float) -> BoundSolution | None:
    """The best plan of at most ``problem.distinct.most`` labels; None where none exists.

    ``solve`` answers problems without the condition. ``deadline`` is on time.perf_counter's clock; the result has no choices
    where it passed without any plan.
    """
    return _Search(problem, solve, gap, deadline).run()


class _Search:
    def __init__(self, problem: Problem, solve: Solve, gap: float, deadline: float) -> None:
        assert problem.distinct is not None
        self.problem, self.solve, self.gap, self.deadline = problem, solve, gap, deadline
        self.most = problem.distinct.most
        self.arrays = choice_arrays(problem)
        self.label = labels(problem, self.arrays)
        self.best: np.ndarray | None = None
        self.damage, self.unproven = math.inf, math.inf
        self.heap: list[_Node] = []
        self.made = 0
        self.seen: set[Labels] = set()

    def run(self) -> BoundSolution | None:
        self._push(frozenset(self.label[self.label != ""].tolist()), frozenset(), 0.0)
        while self.heap and self.heap[0].bound < self._enough and time.perf_counter() < self.deadline:
            node = heapq.heappop(self.heap)
            if node.used:
                self._branch(node)
            else:
                self._solve(node)
        bound = min([self.damage, self.unproven, *(node.bound for node in self.heap[:1])])
        return None if self.best is None and bound == math.inf else BoundSolution(self.best, bound)

    @property
    def _enough(self) -> float:
        return self.damage * (1 - self.gap)

    def _branch(self, node: _Node) -> None:
        """With and without the undecided label that its best plan puts most bytes into."""
        label = next(label for label in node.used if label not in node.decided)
        decided = node.decided | {label}
        if len(decided) == self.most:
            self._push(decided, decided, node.bound)
        else:
            heapq.heappush(self.heap, replace(node, number=self._number(), decided=decided))
        self._push(node.allowed - {label}, node.decided, node.bound)

    def _push(self, allowed: Labels, decided: Labels, bound: float) -> None:
        """A node to be solved, bounded by its relaxation for now."""
        if allowed in self.seen:
            return
        relaxation = self._relaxed(allowed)
        if relaxation is not None and (bound := max(bound, relaxation.bound)) < self._enough:
            heapq.heappush(self.heap, _Node(bound, self._number(), allowed, decided))

    def _number(self) -> int:
        self.made += 1
        return self.made

    def _relaxed(self, allowed: Labels) -> Relaxation | None:
        """None where no plan of these labels keeps the limits."""
        arrays = self.arrays.without(~np.isin(self.label, [*allowed, ""]))
        if arrays.empty:
            return None
        arrays = without_oversized(arrays)
        return None if arrays.empty else relax(arrays)

    def _solve(self, node: _Node) -> None:
        best = self._best_of(node.allowed)
        if best is None:
            return
        if best.choices is None:  # out of time
            self.unproven = min(self.unproven, node.bound)
            return
        used = self._by_bytes(best.choices)
        if len(used) <= self.most:
            self._take(best)
            return
        heapq.heappush(self.heap, replace(node, bound=max(node.bound, best.bound), used=used))
        self._guess(frozenset(used[: self.most]))

    def _guess(self, allowed: Labels) -> None:
        """A plan of the labels that matter most, so that the bound has something to prune with."""
        if allowed not in self.seen and (best := self._best_of(allowed)):
            self._take(best)

    def _best_of(self, allowed: Labels) -> BoundSolution | None:
        """The best plan of these labels, however many of them it uses."""
        self.seen.add(allowed)
        restricted, allowed_choices = _restricted(self.problem, allowed)
        best = self.solve(restricted, self.gap, max(self.deadline, time.perf_counter() + 1.0)) if restricted else None
        if best is None or best.choices is None:
            return best
        choices = [index[choice] for index, choice in zip(allowed_choices, best.choices, strict=True)]
        return replace(best, choices=np.array(choices))

    def _take(self, answer: BoundSolution) -> None:
        damage = math.inf if answer.choices is None else self.problem.damage(answer.choices.tolist())
        if answer.bound < damage * (1 - self.gap):
            self.unproven = min(self.unproven, answer.bound)
        if damage < self.damage:
            self.damage, self.best = damage, answer.choices

    def _by_bytes(self, choices: np.ndarray) -> tuple[str, ...]:
        weight: dict[str, int] = {}
        for group in self.problem.distinct.groups if self.problem.distinct else ():
            choice = self.problem.groups[group].choices[choices[group]]
            weight[choice.label] = weight.get(choice.label, 0) + choice.bytes
        return tuple(sorted(weight, key=lambda label: (-weight[label], label)))


def labels(problem: Problem, arrays: ChoiceArrays) -> np.ndarray:
    """str [groups, choices]: empty where labels are not counted."""
    counted = set(problem.distinct.groups if problem.distinct else ())
    width = arrays.damage.shape[1]
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


def choosing(problem: Problem, allowed_choices: list[list[int]]) -> Problem | None:
    """The problem with only these choices of each group, without ``distinct``; None where a group has none left."""
    if not all(allowed_choices):
        return None
    groups = tuple(
        Group(group.name, tuple(group.choices[at] for at in index))
        for group, index in zip(problem.groups, allowed_choices, strict=True)
    )
    resources = tuple(
        replace(
            each,
            use=tuple(tuple(use[at] for at in index) for use, index in zip(each.use, allowed_choices, strict=True)),
        )
        for each in problem.resources
    )
    chains = tuple(
        replace(
            each,
            ranks=tuple(
                tuple(ranks[at] for at in allowed_choices[group])
                for group, ranks in zip(each.groups, each.ranks, strict=True)
            ),
        )
        for each in problem.chains
    )
    return Problem(groups, problem.budget_bytes, resources, None, chains)
