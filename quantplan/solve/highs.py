"""The integer program as PuLP states it and HiGHS solves it, for what bounds and sweeps left open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from quantplan.solve.bound import BoundSolution, ChoiceArrays, Relaxation
from quantplan.solve.problem import Chain
from quantplan.solve.pulp_model import add_chain, steps

if TYPE_CHECKING:
    import pulp

THREADS = 2
LARGEST_COEFFICIENT = 1e6  # HiGHS takes rows as satisfied within 1e-6: larger numbers ask too much of float64
TOLERANCE = 1e-7  # HiGHS' own, on the objective that it sees


def branch_and_bound(
    choices_arrays: ChoiceArrays,
    relaxation: Relaxation,
    target: float,
    accuracy: float,
    deadline: float,
    chains: tuple[Chain, ...] = (),
) -> BoundSolution:
    """The best plan of damage below ``target`` (inf: none is known), proven within ``accuracy`` nats/token.

    HiGHS' tolerances let through sets of choices that are a few bytes too large. Each is met by a cut that no
    plan within the limits violates, so the bound stays true. ``deadline`` is on time.perf_counter's clock.
    """
    statement = _Statement(choices_arrays, relaxation, target)
    for chain in chains:
        statement.add_chain(chain)
    bound = relaxation.bound
    while (seconds := deadline - time.perf_counter()) > 0:
        found = statement.solve(accuracy, seconds)
        bound = max(bound, min(found.bound, target))
        if found.choices is None or choices_arrays.fits(found.choices):
            return BoundSolution(found.choices, bound)
        statement.cut_off(found.choices)
    return BoundSolution(None, bound)


class _Statement:
    """Binary x[group, choice], one in each group. Objective and rows count from the relaxation's choices."""

    def __init__(self, choices_arrays: ChoiceArrays, relaxation: Relaxation, target: float) -> None:
        import pulp

        self.choices_arrays, self.base, self.chains = choices_arrays, relaxation.choices, 0
        self.ground = choices_arrays.total_damage(self.base)
        self.unit = _unit(choices_arrays, relaxation, target)
        self.program = pulp.LpProblem("plan", pulp.LpMinimize)
        self.x = {
            (group, choice): self.program.add_variable(f"x_{group}_{choice}", cat=pulp.LpBinary)
            for group in choices_arrays.open.tolist()
            for choice in np.flatnonzero(choices_arrays.offered[group]).tolist()
        }
        self._add_objective(target)
        self._add_groups()
        self._add_limits()

    def _add_objective(self, target: float) -> None:
        import pulp

        damage = self.choices_arrays.damage
        objective = pulp.lpSum(
            float(damage[group, choice] - damage[group, self.base[group]]) / self.unit * x
            for (group, choice), x in self.x.items()
        )
        self.program.setObjective(objective)
        if np.isfinite(target):
            self.program += objective <= (target - self.ground) / self.unit

    def _add_groups(self) -> None:
        import pulp

        for group in self.choices_arrays.open.tolist():
            choices = np.flatnonzero(self.choices_arrays.offered[group]).tolist()
            self.program += pulp.lpSum(self.x[group, choice] for choice in choices) == 1

    def _add_limits(self) -> None:
        import pulp

        room = self.choices_arrays.limit - self.choices_arrays.total_use(self.base)
        for use, left in zip(self.choices_arrays.use, room.tolist(), strict=True):
            more = {key: int(use[key] - use[key[0], self.base[key[0]]]) for key in self.x}
            scale = LARGEST_COEFFICIENT / max(LARGEST_COEFFICIENT, *map(abs, more.values()))
            row = pulp.lpSum(more[key] * scale * x for key, x in self.x.items())
            self.program += row <= left * scale

    def add_chain(self, chain: Chain) -> None:
        self.chains += 1
        ranks = steps(chain)
        every = zip(chain.groups, chain.ranks, strict=True)
        reached = [[self._reached(group, of_choice, rank) for rank in ranks] for group, of_choice in every]
        add_chain(self.program, chain, reached, f"rises_{self.chains}")

    def _reached(self, group: int, ranks: tuple[int, ...], rank: int) -> pulp.LpAffineExpression:
        """1 where the group's choice has that rank or more."""
        import pulp

        high = [choice for choice, each in enumerate(ranks) if each >= rank]
        if (group, int(self.base[group])) in self.x:
            return pulp.lpSum(self.x[group, choice] for choice in high if (group, choice) in self.x)
        return pulp.LpAffineExpression(constant=float(int(self.base[group]) in high))

    def cut_off(self, choices: np.ndarray) -> None:
        """A cover cut: not all groups may use as much as they do in these choices, which break a limit."""
        import pulp

        broken = int(np.argmax(self.choices_arrays.total_use(choices) > self.choices_arrays.limit))
        use = self.choices_arrays.use[broken]
        taken = np.take_along_axis(use, choices[:, None], axis=1)
        as_much = (use >= taken).tolist()
        self.program += (
            pulp.lpSum(x for (group, choice), x in self.x.items() if as_much[group][choice])
            <= len(self.choices_arrays.open) - 1
        )

    def solve(self, accuracy: float, seconds: float) -> BoundSolution:
        import pulp

        gap = accuracy / self.unit / 2
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

    def _has_plan(self, info: object) -> bool:
        """Whether HiGHS ended with an integer solution, not with what its relaxation left."""
        import highspy

        return info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible

    def _choices(self) -> np.ndarray:
        choices = self.base.copy()
        for (group, choice), x in self.x.items():
            if x.value() > 0.5:
                choices[group] = choice
        return choices


def _unit(choices_arrays: ChoiceArrays, relaxation: Relaxation, target: float) -> float:
    """Nats per token that HiGHS sees as 1: from bound to target, which is what is to be decided."""
    if np.isfinite(target):
        return max(target - relaxation.bound, 1e-9 * target)
    spread = np.ptp(choices_arrays.damage[choices_arrays.offered])
    return float(spread) or 1.0
