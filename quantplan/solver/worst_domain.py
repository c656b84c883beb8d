"""The plan whose largest damage over several texts is least: min over plans of max over texts of a sum of damages.

For any weights of the texts that add up to 1 the best plan for the weighted damages is a lower bound, because no mean is above
the largest. The best weights are sought by cutting planes (Kelley 1960): each plan that is met is a line that the bound lies
below. What is left between the bound and the best plan met is decided by HiGHS, with the choices that the bound has not ruled
out.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.errors import BadUsage
from quantplan.solver.bound import BoundSolution, choice_arrays, relax, without_oversized, without_worse
from quantplan.solver.cardinality import labels
from quantplan.solver.problem import Group, Problem
from quantplan.solver.program import solve
from quantplan.solver.search import Solution, outcome

WORST_DOMAIN = "worst-domain"
_ROUNDS = 60  # of weights; with 5 texts some 15 are enough
_INNER_GAP = 1e-7  # of the weighted problems
_SHARE = 0.5  # of the time that the weights may take


@dataclass
class _Found:
    """``plans``: choices and their damages, float64 [texts]; ``bound``: proven for every plan; ``weights``: that proved it."""

    plans: list[tuple[tuple[int, ...], np.ndarray]]
    bound: float
    weights: np.ndarray

    @property
    def best(self) -> tuple[tuple[int, ...], np.ndarray]:
        return min(self.plans, key=lambda plan: plan[1].max())

    @property
    def largest(self) -> float:
        return float(self.best[1].max())


def minimise_worst(problem: Problem, gap: float, time_limit: float) -> Solution:
    """Raises what ``solve`` raises, and BadUsage where the damages of single texts are not known."""
    if not all(choice.domains for group in problem.groups for choice in group.choices):
        raise BadUsage(
            f"--objective {WORST_DOMAIN} needs sensitivities of several texts, and these are of one: probe on a folder of texts "
            "(--calibration FOLDER, a file for each kind), or take another objective"
        )
    started = time.perf_counter()
    found = _by_weights(problem, gap, started + _SHARE * time_limit)
    if found.largest - found.bound > gap * found.largest:
        answer = _by_search(problem, found, gap, started + time_limit)
        found.bound = max(found.bound, min(answer.bound, found.largest))
        if answer.choices is not None:
            choices = tuple(answer.choices.tolist())
            if problem.fits(choices):
                found.plans.append((choices, np.array(problem.domain_damages(choices))))
    choices, damages = found.best
    seconds = time.perf_counter() - started
    result = outcome(float(damages.max()), found.bound, gap, seconds)
    prices = solve(_weighted(problem, found.weights), gap=1e-3, time_limit=time_limit).outcome.prices
    return Solution(replace(result, minimised=WORST_DOMAIN, prices=prices), choices)


def _by_weights(problem: Problem, gap: float, deadline: float) -> _Found:
    """Plans that are best for some weights of the texts, until no weights promise a better bound."""
    texts = len(problem.groups[0].choices[0].domains)
    found = _Found([], 0.0, np.full(texts, 1 / texts))
    weights = found.weights
    for _ in range(_ROUNDS):
        left = max(1.0, deadline - time.perf_counter())
        best = solve(_weighted(problem, weights), _INNER_GAP, left)
        if best.bound > found.bound or not found.plans:
            found.bound, found.weights = best.bound, weights
        found.plans.append((best.choices, np.array(problem.domain_damages(best.choices))))
        weights, most = _next_weights([damages for _, damages in found.plans])
        if most - found.bound <= gap * most or found.largest - found.bound <= gap * found.largest:
            break
        if time.perf_counter() > deadline:
            break
    return found


def _next_weights(damages: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The weights whose least weighted damage over the plans known is largest, and that: no weights prove more."""
    from scipy.optimize import linprog  # not for --help

    rows = np.array(damages)
    scale = float(rows.max()) or 1.0
    texts = rows.shape[1]
    answer = linprog(
        np.append(np.zeros(texts), -1.0),
        A_ub=np.hstack([-rows / scale, np.ones((len(rows), 1))]),
        b_ub=np.zeros(len(rows)),
        A_eq=np.append(np.ones(texts), 0.0)[None, :],
        b_eq=[1.0],
        bounds=[(0, 1)] * texts + [(None, None)],
    )
    weights = np.maximum(answer.x[:texts], 0.0)
    return weights / weights.sum(), float(answer.x[texts]) * scale


def _weighted(problem: Problem, weights: np.ndarray) -> Problem:
    """The problem of a mean of the texts' damages."""
    groups = tuple(
        Group(group.name, tuple(replace(c, damage=float(weights @ np.array(c.domains))) for c in group.choices))
        for group in problem.groups
    )
    return replace(problem, groups=groups)


def _by_search(problem: Problem, found: _Found, gap: float, deadline: float) -> BoundSolution:
    """A plan whose largest damage is below that of the best one met, by HiGHS; its bound is that one where there is none."""
    from quantplan.solver.pulp_model import WorstProgram  # slow to import

    target = found.largest
    arrays = without_oversized(choice_arrays(_weighted(problem, found.weights)))
    relaxation = relax(arrays)
    near = without_worse(arrays, relaxation, target)  # the mean of a plan is not above its largest
    if near.empty:
        return BoundSolution(None, target)
    cheapest = np.where(near.offered, relaxation.reduced, np.inf).argmin(axis=1)
    if not len(near.open):
        return BoundSolution(cheapest, float(max(problem.domain_damages(cheapest.tolist()))))
    damages = np.zeros((len(found.weights), *near.damage.shape))
    for at, group in enumerate(problem.groups):
        damages[:, at, : len(group.choices)] = np.array([choice.domains for choice in group.choices]).T
    program = WorstProgram(near, replace(relaxation, choices=cheapest), damages, target)
    for chain in problem.chains:
        program.add_chain(chain)
    if problem.distinct:
        program.add_distinct(problem.distinct.most, problem.distinct.groups, labels(problem, near))
    return program.best(found.bound, target, gap * target, deadline)
