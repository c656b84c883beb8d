"""The integer program in PuLP, solved by HiGHS, for what bounds and the dynamic program left open.

min sum D(g,c) x(g,c)     sum_c x(g,c) = 1     sum use(g,c) x(g,c) <= limit, for bytes and each further resource
"""

import ctypes
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import highspy
import numpy as np
import pulp

from quantplan.solver.bound import BoundSolution, ChoiceArrays, Relaxation
from quantplan.solver.problem import Chain

THREADS = 2
LARGEST_COEFFICIENT = 1e6  # HiGHS takes rows as satisfied within 1e-6: larger numbers ask too much of float64
TOLERANCE = 1e-7  # HiGHS' own, on the objective that it sees


def branch_and_bound(
    arrays: ChoiceArrays,
    relaxation: Relaxation,
    target: float,
    accuracy: float,
    deadline: float,
    chains: tuple[Chain, ...] = (),
) -> BoundSolution:
    """The best plan of damage below ``target`` (inf: none is known), proven within ``accuracy`` KLD.

    HiGHS' tolerances let through sets of choices that are a few bytes too large. Each is met by a cut that no
    plan within the limits violates, so the bound stays true. ``deadline`` is on time.perf_counter's clock.
    """
    program = Program(arrays, relaxation, target)
    for chain in chains:
        program.add_chain(chain)
    return program.best(relaxation.bound, target, accuracy, deadline)


class Program:
    """Binary x[group, choice], one in each group. Objective and rows count from the relaxation's choices."""

    def __init__(self, arrays: ChoiceArrays, relaxation: Relaxation, target: float) -> None:
        self.arrays, self.base, self.chains = arrays, relaxation.choices, 0
        self.ground = arrays.total_damage(self.base)
        self.unit = _unit(arrays, relaxation, target)
        self.program = pulp.LpProblem("plan", pulp.LpMinimize)
        self.x = {
            (group, choice): self.program.add_variable(f"x_{group}_{choice}", cat=pulp.LpBinary)
            for group in arrays.open.tolist()
            for choice in np.flatnonzero(arrays.offered[group]).tolist()
        }
        self._add_objective(target)
        self._add_groups()
        self._add_limits()

    def _add_objective(self, target: float) -> None:
        damage = self.arrays.damage
        objective = pulp.lpSum(
            float(damage[group, choice] - damage[group, self.base[group]]) / self.unit * x
            for (group, choice), x in self.x.items()
        )
        self.program.setObjective(objective)
        if np.isfinite(target):
            self.program += objective <= (target - self.ground) / self.unit

    def _add_groups(self) -> None:
        for group in self.arrays.open.tolist():
            choices = np.flatnonzero(self.arrays.offered[group]).tolist()
            self.program += pulp.lpSum(self.x[group, choice] for choice in choices) == 1

    def _add_limits(self) -> None:
        room = self.arrays.limit - self.arrays.total_use(self.base)
        for use, left in zip(self.arrays.use, room.tolist(), strict=True):
            more = {key: int(use[key] - use[key[0], self.base[key[0]]]) for key in self.x}
            scale = LARGEST_COEFFICIENT / max(LARGEST_COEFFICIENT, *map(abs, more.values()))
            row = pulp.lpSum(more[key] * scale * x for key, x in self.x.items())
            self.program += row <= left * scale

    def add_chain(self, chain: Chain) -> None:
        self.chains += 1
        ranks = _steps(chain)
        every = zip(chain.groups, chain.ranks, strict=True)
        reached = [[self._reached(group, of_choice, rank) for rank in ranks] for group, of_choice in every]
        _add_chain(self.program, chain, reached, f"rises_{self.chains}")

    def _reached(self, group: int, ranks: tuple[int, ...], rank: int) -> pulp.LpAffineExpression:
        """1 where the group's choice has that rank or more."""
        high = [choice for choice, each in enumerate(ranks) if each >= rank]
        if (group, int(self.base[group])) in self.x:
            return pulp.lpSum(self.x[group, choice] for choice in high if (group, choice) in self.x)
        return pulp.LpAffineExpression(constant=float(int(self.base[group]) in high))

    def cut_off(self, choices: np.ndarray) -> None:
        """A cover cut: not all groups may use as much as they do in these choices, which break a limit."""
        broken = int(np.argmax(self.arrays.total_use(choices) > self.arrays.limit))
        use = self.arrays.use[broken]
        taken = np.take_along_axis(use, choices[:, None], axis=1)
        as_much = (use >= taken).tolist()
        self.program += (
            pulp.lpSum(x for (group, choice), x in self.x.items() if as_much[group][choice])
            <= len(self.arrays.open) - 1
        )

    def best(self, bound: float, target: float, accuracy: float, deadline: float) -> BoundSolution:
        """The best plan below ``target`` within all limits; ``bound``: what is known of every plan."""
        while (seconds := deadline - time.perf_counter()) > 0:
            answer = self.solve(accuracy, seconds)
            bound = max(bound, min(answer.bound, target))
            if answer.choices is None or self.arrays.fits(answer.choices):
                return BoundSolution(answer.choices, bound)
            self.cut_off(answer.choices)
        return BoundSolution(None, bound)

    def solve(self, accuracy: float, seconds: float) -> BoundSolution:
        gap = accuracy / self.unit / 2
        _hide_banner()
        self.program.solve(
            pulp.HiGHS(msg=False, threads=THREADS, timeLimit=seconds, gapRel=0.0, gapAbs=gap, random_seed=0)
        )
        if self.program.status == pulp.LpStatusInfeasible:
            return BoundSolution(None, np.inf)
        if self.program.status != pulp.LpStatusOptimal:  # it is so too when time ran out with a plan
            return BoundSolution(None, -np.inf)
        info = self.program.solverModel.getInfo()
        bound = self.ground + (info.mip_dual_bound - TOLERANCE) * self.unit
        return BoundSolution(self._choices() if self._has_plan(info) else None, bound)

    def _has_plan(self, info: highspy.HighsInfo) -> bool:
        """Whether HiGHS ended with an integer solution, not with what its relaxation left."""
        return bool(info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible)

    def _choices(self) -> np.ndarray:
        choices = self.base.copy()
        for (group, choice), x in self.x.items():
            if x.value() > 0.5:
                choices[group] = choice
        return choices


class WorstProgram(Program):
    """The same, but the largest of several damages is minimised: min t, sum D(k,g,c) x(g,c) <= t for each of them.

    ``damages``: float64 [damages, groups, choices]; the relaxation is that of a mean of them.
    """

    def __init__(self, arrays: ChoiceArrays, relaxation: Relaxation, damages: np.ndarray, target: float) -> None:
        self.damages = damages
        super().__init__(arrays, relaxation, target)

    def _add_objective(self, target: float) -> None:
        largest = self.program.add_variable("largest")
        self.program.setObjective(1 * largest)
        for damage in self.damages:
            at_base = np.take_along_axis(damage, self.base[:, None], axis=1).sum()
            more = pulp.lpSum(
                float(damage[group, choice] - damage[group, self.base[group]]) / self.unit * x
                for (group, choice), x in self.x.items()
            )
            self.program += more - largest <= float(self.ground - at_base) / self.unit
        if np.isfinite(target):
            self.program += largest <= (target - self.ground) / self.unit

    def add_distinct(self, most: int, groups: Sequence[int], label: np.ndarray) -> None:
        """At most ``most`` different labels among the choices of ``groups``. ``label``: str [groups, choices]."""
        used: dict[str, pulp.LpVariable] = {}

        def of(name: str) -> pulp.LpVariable:
            if name not in used:
                used[name] = self.program.add_variable(f"label_{len(used)}", cat=pulp.LpBinary)
            return used[name]

        for group in groups:
            choices = [choice for at, choice in self.x if at == group]
            for choice in choices:
                self.program += self.x[group, choice] <= of(label[group, choice])
            if not choices:
                self.program += of(label[group, self.base[group]]) >= 1
        self.program += pulp.lpSum(used.values()) <= most


@cache
def _hide_banner() -> None:
    """HiGHS 1.16 prints a banner to the process's stdout, where results belong, when the first solver is made."""
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()
        with suppress(OSError, AttributeError, TypeError):  # no C library under this name: it may flush later
            ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)


def _unit(arrays: ChoiceArrays, relaxation: Relaxation, target: float) -> float:
    """Nats per token that HiGHS sees as 1: from bound to target, which is what is to be decided."""
    if np.isfinite(target):
        return max(target - relaxation.bound, 1e-9 * target)
    spread = np.ptp(arrays.damage[arrays.offered])
    return float(spread) or 1.0


def _steps(chain: Chain) -> list[int]:
    """The ranks that a group of the chain may or may not reach."""
    return sorted({rank for each in chain.ranks for rank in each})[1:]


def _add_chain(program: pulp.LpProblem, chain: Chain, reached: Sequence[Sequence], name: str) -> None:
    """``reached[g][r]``: 1 where group g's rank is r or more. Of neighbours a, b: reached(a, r) <= reached(b, r) where the
    chain rises, >= where it falls; a binary says which, for each pair.
    """
    for one, two, rising in zip(
        reached, reached[1:], _rises(program, chain.course, len(reached) - 1, name), strict=False
    ):
        for before, after in zip(one, two, strict=True):
            program += before - after <= 1 - rising
            program += after - before <= rising


def _rises(program: pulp.LpProblem, course: str, count: int, name: str) -> list:
    """For each pair of neighbours 1 where the chain rises, 0 where it falls."""
    if course in ("rising", "falling"):
        return [int(course == "rising")] * count
    if course == "monotone":
        return [program.add_variable(name, cat=pulp.LpBinary)] * count
    rises = [program.add_variable(f"{name}_{at}", cat=pulp.LpBinary) for at in range(count)]
    for one, two in zip(rises, rises[1:], strict=False):
        program += one <= two
    return rises
