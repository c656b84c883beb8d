"""What `measure` and `compare` can take besides a text: tasks and speed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.evaluate.measure import MeasureOptions
    from quantplan.evaluate.task_files import TaskFile
    from quantplan.task_score import TaskScore
    from quantplan.throughput import Throughput

TaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="NAME=FILE, repeatable: score tasks of a data file of llama-perplexity's (.txt HellaSwag, .csv WinoGrande, "
        ".bin or .jsonl multiple choice).",
    ),
]
TasksOption = Annotated[
    int | None,
    typer.Option("--tasks", min=1, help="Tasks of each kind, drawn with the tool's fixed seed (default: all)."),
]
SpeedOption = Annotated[bool, typer.Option("--speed", help="Measure pp512, tg128 and pp512+tg128 with llama-bench.")]
RepetitionsOption = Annotated[int, typer.Option("--repetitions", "-r", min=1, help="Repetitions of llama-bench.")]
_TAKEN = {"kld", "ppl", "average", "size", "rms_dp", "same_top", "file_bytes", "name", "bpw"}  # names of other figures


@dataclass(frozen=True)
class EvidenceOptions:
    """Which tasks and whether speed is to be measured. ``count``: tasks of each kind, None for all."""

    data: dict[str, TaskFile] = field(default_factory=dict)
    count: int | None = None
    speed: bool = False
    repetitions: int = 5

    def __bool__(self) -> bool:
        return bool(self.data) or self.speed

    def check_sort(self, by: str | None) -> None:
        """BadUsage for a figure to sort by that will not be there, before anything runs."""
        known = ["kld", "ppl", "size", *self.data, *(["average"] if self.data else [])]
        known += ["pp512", "tg128", "pp512+tg128"] if self.speed else []
        if by is not None and by not in known:
            raise BadUsage(f"--sort {by}: will not be measured; there is {', '.join(known)} (see --task and --speed)")

    def lines(self, files: Sequence[Path]) -> list[str]:
        """What would be done, for --dry-run."""
        count = {
            name: min(self.count or len(given.questions), len(given.questions)) for name, given in self.data.items()
        }
        said = [
            f"{name}: {count[name]} tasks ({given.mode}) of {given.path}, each file"
            for name, given in self.data.items()
        ]
        return said + ([f"llama-bench, {self.repetitions} repetitions, {len(files)} files"] if self.speed else [])


def wanted(tasks: list[str] | None, count: int | None, speed: bool, repetitions: int) -> EvidenceOptions:
    """The options understood and the data files read: faults in them are found before anything runs."""
    from quantplan.evaluate.task_files import read_task_file

    data: dict[str, TaskFile] = {}
    for word in tasks or ():
        name, equals, path = word.partition("=")
        if not equals or not path or not re.fullmatch(r"[A-Za-z][\w.-]*", name):
            raise BadUsage(f"--task {word}: NAME=FILE is needed, as in --task hellaswag=hellaswag_val_full.txt")
        if name in data or name.lower() in _TAKEN:
            raise BadUsage(f"--task {word}: the name {name} is taken; give each task a name of its own")
        data[name] = read_task_file(path)
    if count is not None and not data:
        raise BadUsage(f"--tasks {count}: of what? give --task NAME=FILE")
    return EvidenceOptions(data, count, speed, repetitions)


def gather(
    files: Sequence[Path], asked: EvidenceOptions, chosen: MeasureOptions
) -> tuple[list[list[TaskScore]], list[Throughput]]:
    """Scores and speeds of the files in their order; empty lists for what is not asked."""
    from quantplan.devices.speed.llama_bench import measure_speed
    from quantplan.evaluate.tasks import score_tasks

    scores, speeds = [], []
    if asked.data:
        with console.progress("tasks", 100) as bar:
            scores = score_tasks(
                files,
                asked.data,
                asked.count,
                chosen,
                lambda share: bar(100 * share),
                options.cache_folder(),
                console.LINES,
            )
        for note in dict.fromkeys(f"{each.task}: {note}" for own in scores for each in own for note in each.notes):
            console.warn(note)
    if asked.speed:
        with console.progress("speed", 100) as bar:
            speeds = measure_speed(
                files, chosen.execution, asked.repetitions, lambda share: bar(100 * share), console.LINES
            )
    return scores, speeds
