"""The solver on published planning instances and on large made-up ones, each in a process of its own.

    python benchmarks/solver_bench.py FOLDER [--plain] [--only TEXT]

FOLDER holds one JSON file for each model and a README.md with a table of known optima. --plain solves each
instance also as one integer program, without bounds, fixing or dynamic program (PuLP and HiGHS, two threads,
at most 20 seconds), and shows its gap and its seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MADE_UP = "made up"
PLAIN_SECONDS = 20


@dataclass(frozen=True)
class Instance:
    """One row of the table: ``budget_bytes`` of the whole file, tensors that are copied included."""

    model: str
    pool: str
    at: str
    budget_bytes: int = 0
    optimum: float | None = None


def published(folder: Path) -> Iterator[Instance]:
    """Rows ``| model | pool | at | ties | budget bytes | optimum | ...`` of the folder's README."""
    for line in (folder / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 8 and cells[4].isdigit():
            yield Instance(cells[0], cells[1], cells[2], int(cells[4]), float(cells[5]))


def problem(instance: Instance, folder: Path):
    if instance.model == MADE_UP:
        return _made_up(instance)
    from quantplan.solver.problem import Problem

    record = _record(folder / f"{instance.model}.json")
    at_their_largest = (max(record["groups"][group]["bytes"]) for _, group in record["unmeasured"])
    fixed = record["f32"]["bytes"] + sum(at_their_largest)
    labels = record["qtypes"] if instance.pool == "all" else record["mainline"]
    return Problem(tuple(_groups(record, labels)), instance.budget_bytes - fixed)


@cache
def _record(path: Path) -> dict:
    return json.loads(path.read_text())


def _groups(record: dict, labels: list[str]) -> Iterator:
    """Damage of a tensor in a type = its sensitivity * the type's curve."""
    from quantplan.solver.problem import Choice, Group

    index = [record["qtypes"].index(label) for label in labels]
    curve = [record["curve"][label] for label in labels]
    for name, group, sensitivity in record["tensors"]:
        sizes = record["groups"][group]["bytes"]
        choices = zip(labels, index, curve, strict=True)
        yield Group(name, tuple(Choice(label, sizes[at], sensitivity * kld) for label, at, kld in choices))


def _made_up(instance: Instance):
    """10,000 tensors of six shapes x 20 types: damage falls exponentially in bits, with noise."""
    import numpy as np

    from quantplan.solver.problem import Choice, Group, Problem

    rng = np.random.default_rng(0)
    bits = np.linspace(1.5, 8.5, 20)
    elements = rng.choice(np.array([1, 4, 11, 28, 48, 112]) << 20, 10_000)
    sizes = (elements[:, None] * bits / 8).astype(np.int64)
    damage = rng.lognormal(-8, 1.5, (10_000, 1)) * np.exp(-1.2 * bits) * rng.lognormal(0, 0.1, (10_000, 20))
    groups = tuple(
        Group(f"tensor {i}", tuple(map(Choice, map(str, range(20)), row.tolist(), costs.tolist())))
        for i, (row, costs) in enumerate(zip(sizes, damage, strict=True))
    )
    share = float(instance.at.rstrip("%")) / 100
    smallest, largest = int(sizes.min(axis=1).sum()), int(sizes.max(axis=1).sum())
    return Problem(groups, smallest + int(share * (largest - smallest)))


def plain(problem) -> dict:
    """The whole program at once, as one would write it down."""
    import pulp

    program = pulp.LpProblem("plain", pulp.LpMinimize)
    damage, megabytes = {}, {}  # the bytes themselves are beyond HiGHS' tolerances
    for g, group in enumerate(problem.groups):
        row = [program.add_variable(f"x_{g}_{c}", cat=pulp.LpBinary) for c in range(len(group.choices))]
        program += pulp.lpSum(row) == 1
        damage |= {x: choice.damage for x, choice in zip(row, group.choices, strict=True)}
        megabytes |= {x: choice.bytes / 1e6 for x, choice in zip(row, group.choices, strict=True)}
    program.setObjective(pulp.LpAffineExpression(damage))
    program += pulp.LpAffineExpression(megabytes) <= problem.budget_bytes / 1e6
    program.solve(pulp.HiGHS(msg=False, threads=2, timeLimit=PLAIN_SECONDS, gapRel=1e-6, gapAbs=0.0))
    info = program.solverModel.getInfo()
    return {"objective": info.objective_function_value, "gap": info.mip_gap}


def solve_one(instance: Instance, folder: Path, as_plain: bool) -> dict:
    from quantplan.solver.program import solve

    task = problem(instance, folder)
    size = f"{len(task.groups):,} x {max(len(group.choices) for group in task.groups)}"
    started = time.perf_counter()
    if as_plain:
        result = plain(task)
    else:
        outcome = solve(task).outcome
        result = {"objective": outcome.objective, "gap": outcome.gap}
    return result | {"size": size, "seconds": time.perf_counter() - started}


def in_a_process(instance: Instance, folder: Path, as_plain: bool = False) -> dict:
    """The result of ``solve_one`` with ``process``: seconds from the start of Python to its end."""
    row = json.dumps([instance.model, instance.pool, instance.at, instance.budget_bytes, instance.optimum])
    command = [sys.executable, __file__, str(folder), "--row", row, *(["--plain"] if as_plain else [])]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"process": time.perf_counter() - started}


def report(instances: list[Instance], folder: Path, with_plain: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "pool", "at", "size", "known optimum", "quantplan", "gap", "s", "s process")
    if with_plain:
        table.add_column("plain gap")
        table.add_column("plain s")
    seconds = []
    for instance in instances:
        result = in_a_process(instance, folder)
        seconds.append(result["process"])
        known = "" if instance.optimum is None else f"{instance.optimum:.9g}"
        row = [
            instance.model,
            instance.pool,
            instance.at,
            result["size"],
            known,
            f"{result['objective']:.9g}",
            f"{result['gap']:.0e}",
            f"{result['seconds']:.2f}",
            f"{result['process']:.2f}",
        ]
        if with_plain:
            plain_result = in_a_process(instance, folder, as_plain=True)
            row += [f"{plain_result['gap']:.0e}", f"{plain_result['seconds']:.2f}"]
        table.add_row(*row)
    console = Console(width=160)
    console.print(table)
    median = sorted(seconds)[len(seconds) // 2]
    console.print(f"whole process: median {median:.2f} s, worst {max(seconds):.2f} s")


def main() -> None:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plain", action="store_true", help="compare with one plain integer program")
    parser.add_argument("--only", default="", help="rows whose model, pool and budget contain this text")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        instance = Instance(*json.loads(options.row))
        print(json.dumps(solve_one(instance, options.folder, options.plain)))
        return
    instances = [*published(options.folder), *(Instance(MADE_UP, "", at) for at in ("25%", "50%", "75%"))]
    chosen = [row for row in instances if options.only in f"{row.model} {row.pool} {row.at}"]
    report(chosen, options.folder, options.plain)


if __name__ == "__main__":
    main()
