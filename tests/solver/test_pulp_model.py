import math
import subprocess
import sys

import numpy as np
import pytest
from small_problems import optimum, plans, problem, random_problem, with_resource

from quantplan.solver.bound import choice_arrays, relax, without_oversized
from quantplan.solver.pulp_model import Program, branch_and_bound


def branched(task, target=math.inf, accuracy=0.0):
    arrays = without_oversized(choice_arrays(task))
    assert len(arrays.open) > 0
    return branch_and_bound(arrays, relax(arrays), target, accuracy, deadline=math.inf)


def open_problems(seeds):
    for seed in seeds:
        task = with_resource(random_problem(seed), seed) if seed % 2 else random_problem(seed)
        arrays = without_oversized(choice_arrays(task))
        if len(arrays.open) and not arrays.empty:
            yield pytest.param(task, id=f"seed {seed}")


@pytest.mark.parametrize("task", list(open_problems(range(30))))
def test_highs_finds_the_optimum(task):
    found = branched(task)
    if not plans(task):
        assert (found.choices, found.bound) == (None, math.inf)
        return
    best = tuple(found.choices.tolist())
    assert task.fits(best)
    assert task.damage(best) == pytest.approx(optimum(task), abs=1e-6)
    assert optimum(task) - 1e-5 <= found.bound <= optimum(task) + 1e-12


def test_nothing_below_the_target_proves_the_target():
    task = problem([(0, 1.0), (7, 0.25)], [(0, 2.0), (8, 0.5)], [(0, 3.0), (9, 0.125)], budget=16)
    target = optimum(task) * (1 - 1e-3)
    found = branched(task, target)
    assert (found.choices, found.bound) == (None, target)


def test_what_tolerances_let_through_is_cut_off(monkeypatch):
    """All three at their largest are one byte in 3e13 too large, far below what HiGHS can tell."""
    cuts = []

    def noted(self, choices, cut_off=Program.cut_off):
        cuts.append(choices)
        cut_off(self, choices)

    monkeypatch.setattr(Program, "cut_off", noted)
    sizes = 10**13, 10**13 + 1, 10**13 + 2
    task = problem(*([(0, 1.0 + i), (size, 0.0)] for i, size in enumerate(sizes)), budget=sum(sizes) - 1)
    found = branched(task)
    assert len(cuts) >= 1
    assert found.choices.tolist() == [0, 1, 1]
    assert found.bound == pytest.approx(1.0, abs=1e-5)


def test_a_cut_spares_every_plan_within_the_limits():
    task = random_problem(12)
    arrays = without_oversized(choice_arrays(task))
    too_large = arrays.use[0].argmax(axis=1)
    assert not arrays.fits(too_large)
    program = Program(arrays, relax(arrays), math.inf)
    program.cut_off(too_large)
    found = program.solve(0.0, math.inf)
    assert task.damage(tuple(found.choices.tolist())) == pytest.approx(optimum(task), abs=1e-6)


def test_highs_is_quiet(capfd):
    task = problem(*([(0, 1.0 + i), (7 + i, 0.1 * i)] for i in range(8)), budget=40)
    assert np.isfinite(branched(task).bound)
    assert capfd.readouterr() == ("", "")


def test_past_the_deadline_only_the_relaxation_is_proven():
    task = random_problem(6)
    arrays = without_oversized(choice_arrays(task))
    found = branch_and_bound(arrays, relax(arrays), math.inf, 0.0, deadline=-math.inf)
    assert (found.choices, found.bound) == (None, relax(arrays).bound)


def test_nothing_is_printed():
    """HiGHS' own banner would stand among results."""
    code = (
        "import numpy as np\n"
        "from quantplan.solver.problem import Choice, Group, Problem\n"
        "from quantplan.solver.worst_domain import minimise_worst\n"
        "rng = np.random.default_rng(0)\n"
        "def choice(size):\n"
        "    return Choice(str(size), size, 1 / size, tuple((rng.lognormal(0, 1, 2) / size).tolist()))\n"
        "groups = tuple(Group(str(n), tuple(map(choice, (3, 5, 8, 13)))) for n in range(12))\n"
        "minimise_worst(Problem(groups, 77), 0.0, 5.0)\n"
        "from quantplan.solver import pulp_model\n"
        "assert pulp_model._hide_banner.cache_info().currsize == 1, 'HiGHS was asked'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
