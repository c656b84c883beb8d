"""Stability: how much of a plan would change if the damages were measured again.

Each group's damages are redrawn within its relative error, all by one factor (the error is that of its scale), and the
problem is solved again. The error of the level, which all groups share, is left out: it multiplies all damages alike
and so changes no plan.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.solver.bound import ChoiceArrays, choice_arrays, without_dominated
from quantplan.solver.problem import Group, Problem
from quantplan.solver.program import solve
from quantplan.solver.search import search


@dataclass(frozen=True)
class Stability:
    """``changed[d]``: groups that draw d would store otherwise; ``regret[d]``: what the plan loses in draw d against the
    best plan there, as a share of that; ``instead[group]``: label -> how many draws would take it.
    """

    changed: tuple[int, ...]
    regret: tuple[float, ...]
    instead: tuple[dict[str, int], ...]

    @property
    def draws(self) -> int:
        return len(self.changed)

    def frequency(self, group: int) -> float:
        """Share of the draws that change the group."""
        return sum(self.instead[group].values()) / self.draws


def stability(
    problem: Problem,
    choices: Sequence[int],
    relative_errors: Sequence[float],
    draws: int = 200,
    seed: int = 0,
    gap: float = 1e-6,
    time_limit: float = 60.0,
) -> Stability:
    """Of the plan ``choices`` when each group's damages are known within its relative standard error.

    Factors are lognormal with mean 1 and that standard deviation. The same seed gives the same draws. ``time_limit`` is
    for each draw; one that it ends counts with the best plan that was found.
    """
    if draws < 1 or len(relative_errors) != len(problem.groups):
        raise ValueError("at least one draw, and an error for each group")
    redrawn = _Redrawn(problem, gap, time_limit)
    changed, regret = [], []
    instead: list[Counter[str]] = [Counter() for _ in problem.groups]
    for factors in error_factors(relative_errors, draws, seed):
        best = redrawn.best(factors, choices)
        moved = [at for at, (one, two) in enumerate(zip(choices, best, strict=True)) if one != two]
        for at in moved:
            instead[at][problem.groups[at].choices[best[at]].label] += 1
        changed.append(len(moved))
        regret.append(_regret(problem, factors, choices, best))
    return Stability(tuple(changed), tuple(regret), tuple(map(dict, instead)))


def error_factors(relative_errors: Sequence[float], draws: int, seed: int) -> np.ndarray:
    """float64 [draws, groups]"""
    variance = np.log1p(np.square(np.asarray(relative_errors, np.float64)))
    normal = np.random.default_rng(seed).standard_normal((draws, len(variance)))
    return np.exp(np.sqrt(variance) * normal - variance / 2)


def _regret(problem: Problem, factors: np.ndarray, choices: Sequence[int], best: Sequence[int]) -> float:
    def damage(plan: Sequence[int]) -> float:
        return math.fsum(each.damage * factor for each, factor in zip(problem.taken(plan), factors, strict=True))

    least = damage(best)
    return damage(choices) / least - 1 if least else 0.0


class _Redrawn:
    """A problem with its groups' damages multiplied. Factors keep what is dominated: it is ruled out once."""

    def __init__(self, problem: Problem, gap: float, time_limit: float) -> None:
        self.problem, self.gap, self.time_limit = problem, gap, time_limit
        self.choices_arrays = without_dominated(choice_arrays(problem))

    def best(self, factors: np.ndarray, known: Sequence[int]) -> tuple[int, ...]:
        """The best choices; those ``known`` where no better ones were found."""
        if self.problem.distinct or self.problem.chains:
            return solve(self._multiplied(factors), self.gap, self.time_limit).choices
        choices_arrays = self._times(factors)
        answer = search(choices_arrays, self.gap, time.perf_counter() + self.time_limit, known)
        return tuple(known) if answer is None or answer.choices is None else tuple(answer.choices.tolist())

    def _times(self, factors: np.ndarray) -> ChoiceArrays:
        return replace(self.choices_arrays, damage=self.choices_arrays.damage * factors[:, None])

    def _multiplied(self, factors: np.ndarray) -> Problem:
        groups = tuple(
            Group(group.name, tuple(replace(each, damage=each.damage * float(factor)) for each in group.choices))
            for group, factor in zip(self.problem.groups, factors, strict=True)
        )
        return replace(self.problem, groups=groups)
