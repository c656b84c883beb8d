"""Planning instances from published measurements, where their folder lies beside the repository."""

import importlib.util
import sys
from pathlib import Path

import pytest

from quantplan.solver.program import solve

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".." / "shared" / "solver-bench"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"published instances are not at {FOLDER}")


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("solver_bench", ROOT / "benchmarks" / "solver_bench.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_published_optimum_is_found_and_proven(bench):
    instances = list(bench.published(FOLDER))
    assert len(instances) >= 18
    assert "DeepSeek-V3.1-Terminus all 50%" in {f"{each.model} {each.pool} {each.at}" for each in instances}
    for instance in instances:
        task = bench.problem(instance, FOLDER)
        solution = solve(task)
        assert task.fits(solution.choices)
        assert solution.outcome.status == "optimal"
        assert solution.outcome.gap <= 1e-6
        assert solution.outcome.objective == pytest.approx(instance.optimum, rel=1e-6)
