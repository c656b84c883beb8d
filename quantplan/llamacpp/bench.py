"""llama-bench: tokens per second of a model file, for prompts (pp), generation (tg) and both in turn (pp+tg)."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.errors import BadUsage, ToolFailed
from quantplan.execution import Execution
from quantplan.llamacpp.tools import command_line, run
from quantplan.progress import SILENT, Reporter

TOOL = "llama-bench"


@dataclass(frozen=True)
class BenchTests:
    """Which tests to run: prompts, generations, and pairs of both in turn, in tokens."""

    prompt: tuple[int, ...]
    generation: tuple[int, ...]
    combined: tuple[tuple[int, int], ...] = ()

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """(prompt, generation) of each test, 0 where it has none, in the order in which they are run."""
        return [*((size, 0) for size in self.prompt), *((0, size) for size in self.generation), *self.combined]

    @property
    def names(self) -> list[str]:
        """``pp512``, ``tg128``, ``pp512+tg128``."""
        return [_name(*test) for test in self.lengths]


USUAL_TESTS = BenchTests((512,), (128,), ((512, 128),))  # the first two are the tool's own defaults


@dataclass(frozen=True)
class BenchRow:
    """One test: ``prompt`` tokens are processed, then ``generation`` tokens generated one by one.

    ``mean`` and ``deviation``: tokens per second over all repetitions, as the tool prints them; ``samples`` are those of
    the repetitions.
    """

    prompt: int
    generation: int
    mean: float
    deviation: float
    samples: tuple[float, ...]
    threads: int
    build: str  # commit (number) of the llama.cpp that ran
    backend: str
    processor: str
    gpu: str = ""  # as the tool names it; empty without one

    @property
    def name(self) -> str:
        """``pp512``, ``tg128`` or ``pp512+tg128``."""
        return _name(self.prompt, self.generation)

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean; None for a single repetition."""
        return self.deviation / math.sqrt(len(self.samples)) if len(self.samples) > 1 else None


def _name(prompt: int, generation: int) -> str:
    return "+".join([f"pp{prompt}"] * (prompt > 0) + [f"tg{generation}"] * (generation > 0))


def bench(
    path: Path,
    tests: BenchTests = USUAL_TESTS,
    *,
    repetitions: int = 5,
    execution: Execution = Execution(),
    report: Reporter = SILENT,
) -> list[BenchRow]:
    """A row for every test, in their order.

    Raises BadUsage where no test is asked for, ToolMissing, and ToolFailed where the tool ends badly
    or leaves a test out.
    """
    lengths = tests.lengths
    if not lengths or repetitions < 1:
        raise BadUsage("llama-bench needs a test and a repetition at least: name a prompt or a generation length")
    command = argv(path, lengths, repetitions, execution.threads_used, execution.gpu_layers)
    return parse(run(command, report=report).log, lengths, repetitions, command_line(command))


def argv(path: Path, tests: Iterable[tuple[int, int]], repetitions: int, threads: int, gpu_layers: int) -> list[str]:
    """The command line. Every test is a pair (``-pg``): the tool's own defaults for -p and -n are switched off.

    One JSON object a line: what stderr says between two tests cannot tear one.
    """
    words = [TOOL, "-m", str(path), "-o", "jsonl", "-r", str(repetitions), "-t", str(threads), "-ngl", str(gpu_layers)]
    words += ["-p", "0", "-n", "0"]
    for prompt, generation in tests:
        words += ["-pg", f"{prompt},{generation}"]
    return words


def parse(log: str, tests: Sequence[tuple[int, int]], repetitions: int, command: str = TOOL) -> list[BenchRow]:
    """The rows of ``tests`` in their order; ToolFailed unless each is there, whole and with all its repetitions."""
    rows: dict[tuple[int, int], BenchRow] = {}
    for line in log.splitlines():
        if line.lstrip().startswith("{"):
            row = _row(line, command)
            rows[row.prompt, row.generation] = row
    for test in tests:
        found = rows.get(test)
        if found is None:
            raise _unreadable(command, f"no result for {_name(*test)}", log[-300:])
        if len(found.samples) != repetitions:
            raise _unreadable(command, f"{len(found.samples)} of {repetitions} repetitions of {found.name}", log[-300:])
    return [rows[test] for test in tests]


def _row(line: str, command: str) -> BenchRow:
    try:
        entry = json.loads(line)
        samples = tuple(_speed(value) for value in entry["samples_ts"])
        row = BenchRow(
            prompt=int(entry["n_prompt"]),
            generation=int(entry["n_gen"]),
            mean=_speed(entry["avg_ts"]),
            deviation=float(entry["stddev_ts"]),
            samples=samples,
            threads=int(entry["n_threads"]),
            build=f"{entry['build_commit']} ({entry['build_number']})",
            backend=str(entry["backends"]),
            processor=str(entry["cpu_info"]),
            gpu=str(entry.get("gpu_info", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(command, f"a damaged result ({type(error).__name__}: {error})", line[:300]) from None
    consistent = samples and min(samples) * 0.999 <= row.mean <= max(samples) * 1.001
    if not consistent or not math.isfinite(row.deviation):
        raise _unreadable(command, f"a mean of {row.mean} that its samples do not have", line[:300])
    return row


def _speed(value: Any) -> float:
    """Tokens per second; ValueError for what no run can have."""
    number = float(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{value} tokens per second")
    return number


def _unreadable(command: str, what: str, said: str) -> ToolFailed:
    return ToolFailed(
        f"{TOOL} gave {what}\n  command: {command}\n  it said: {said.strip()}\n  run it by hand, and see `quantplan doctor`"
    )
