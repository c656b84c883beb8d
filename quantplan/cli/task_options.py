"""What `measure` and `compare` can measure besides PPL and KLD: tasks and speed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from quantplan.cli import console, options
from quantplan.cli.bench_options import BenchOptions
from quantplan.cli.framework import option
from quantplan.cli.option_groups import MEASURING
from quantplan.cli.plan_options import split_assignments
from quantplan.devices.speed.llama_bench import measure_speed
from quantplan.errors import BadUsage
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.task_files import TaskFile, read_task_file
from quantplan.evaluate.tasks import score_tasks
from quantplan.llamacpp.bench import BenchTests
from quantplan.task_score import TaskScore
from quantplan.throughput import Throughput

_TAKEN = {"kld", "ppl", "average", "size", "rms_dp", "same_top", "file_bytes", "name", "bpw"}  # names of other figures


@dataclass(frozen=True)
class TaskOptions:
    panel: ClassVar[str] = MEASURING
    bench: BenchOptions
    task: tuple[str, ...] = option(
        "Score tasks of a data file of llama-perplexity (.txt HellaSwag, .csv WinoGrande, .bin or .jsonl multiple "
        "choice); repeatable.",
        default=(),
        split=split_assignments,
        metavar="NAME=FILE",
    )
    tasks: int | None = option("Tasks of each kind, drawn with the tool's fixed seed (default: all).", min=1)

    def evidence(self) -> "Evidence":
        """The data files read: errors in them come before anything runs."""
        data: dict[str, TaskFile] = {}
        for word in self.task:
            name, equals, path = word.partition("=")
            if not equals or not path or not re.fullmatch(r"[A-Za-z][\w.-]*", name):
                raise BadUsage(f"--task {word}: write NAME=FILE, as in --task hellaswag=hellaswag_val_full.txt")
            if name in data or name.lower() in _TAKEN:
                raise BadUsage(f"--task {word}: the name {name} is taken; give each task its own name")
            data[name] = read_task_file(path)
        if self.tasks is not None and not data:
            raise BadUsage(f"--tasks {self.tasks}: of what? give --task NAME=FILE")
        return Evidence(data, self.tasks, self.bench.tests, self.bench.repetitions)


@dataclass(frozen=True)
class Evidence:
    """Which tasks and which tests of speed are to be measured. ``count``: tasks of each kind, None for all."""

    data: dict[str, TaskFile] = field(default_factory=dict)
    count: int | None = None
    speed: BenchTests | None = None
    repetitions: int = 5

    def __bool__(self) -> bool:
        return bool(self.data or self.speed)

    def check_sort(self, by: str | None) -> None:
        """BadUsage for a figure to sort by that will not be measured, before anything runs."""
        known = ["kld", "ppl", "size", *self.data, *(["average"] if self.data else [])]
        known += self.speed.names if self.speed else []
        if by is not None and by not in known:
            raise BadUsage(
                f"--sort {by}: will not be measured; choose from {', '.join(known)} (see --task and --speed)"
            )

    def lines(self, files: Sequence[Path]) -> list[str]:
        """What would be done, for --dry-run."""
        lines = []
        for name, tasks in self.data.items():
            count = min(self.count or len(tasks.questions), len(tasks.questions))
            lines.append(f"{name}: {count} tasks ({tasks.mode}) of {tasks.path}, each file")
        if self.speed:
            names = ", ".join(self.speed.names)
            lines.append(f"llama-bench ({names}), {self.repetitions} repetitions, {len(files)} files")
        return lines

    def gather(self, files: Sequence[Path], how: MeasureOptions) -> tuple[list[list[TaskScore]], list[Throughput]]:
        """Scores and speeds of the files in their order; empty lists for what is not asked for."""
        scores, speeds = [], []
        if self.data:
            with console.progress("tasks") as bar:
                scores = score_tasks(files, self.data, self.count, how, bar, options.cache_folder(), console.LINES)
            notes = (f"{score.task}: {note}" for of_file in scores for score in of_file for note in score.notes)
            for note in dict.fromkeys(notes):
                console.warn(note)
        if self.speed:
            with console.progress("speed") as bar:
                speeds = measure_speed(files, how.execution, self.repetitions, self.speed, bar, console.LINES)
        return scores, speeds
