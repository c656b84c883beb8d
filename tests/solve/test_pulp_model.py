"""The program as PuLP states it, solved whole by HiGHS, against the solver's own steps and against every plan."""

from __future__ import annotations

import math
from dataclasses import replace

import pulp
import pytest
from small_problems import plans, random_problem, with_resource
from test_chains import chained

from quantplan.solve.highs import THREADS  # one process, one number of threads: HiGHS keeps the first
from quantplan.solve.objective import OBJECTIVES, minimise
from quantplan.solve.problem import COURSES, Distinct
from quantplan.solve.program import solve
from quantplan.solve.pulp_model import state


def stated(task, objective="sum"):
    """The optimum of the stated program, None where it has none."""
    program = state(task, objective)
    program.solve(pulp.HiGHS(msg=False, threads=THREADS, gapRel=0.0, gapAbs=0.0))
    return None if program.status == pulp.LpStatusInfeasible else pulp.value(program.objective)


def value_of(task, objective, plan):
    damages = [choice.damage for choice in task.taken(plan)]
    return {"sum": sum, "tail": lambda each: math.hypot(*each) ** 2, "max": max}[objective](damages)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(15))
def test_objectives(seed, objective):
    task = with_resource(random_problem(seed), seed)
    every = [value_of(task, objective, plan) for plan in plans(task)]
    found = stated(task, objective)
    assert found == (pytest.approx(min(every), rel=1e-6, abs=1e-6) if every else None)
    if every:
        assert value_of(task, objective, minimise(task, objective).choices) == pytest.approx(found, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(15))
def test_few_types(seed):
    base = random_problem(seed)
    task = replace(base, distinct=Distinct(2, tuple(range(len(base.groups)))))
    every = [task.damage(plan) for plan in plans(task)]
    assert stated(task) == (pytest.approx(min(every), rel=1e-6, abs=1e-6) if every else None)
    if every:
        assert task.damage(solve(task).choices) == pytest.approx(min(every), rel=1e-6)


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("seed", range(10))
def test_courses(seed, course):
    task = chained(seed, course)
    every = [task.damage(plan) for plan in plans(task)]
    assert stated(task) == (pytest.approx(min(every), rel=1e-6, abs=1e-6) if every else None)
