"""llama-perplexity's modes for multiple-choice tasks: --hellaswag, --winogrande, --multiple-choice.

Each prints a line a task with the share solved so far, so the outcome of every task can be had from the share before and
after it. A run counts only when every line is there: the end of the tool's output is cut off now and then.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadUsage, ToolFailed
from quantplan.llamacpp.perplexity import RUNS, ToolOptions
from quantplan.llamacpp.tools import Finished, failure, run
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.task_score import HELLASWAG, MULTIPLE_CHOICE, WINOGRANDE

_LEAST_PARALLEL = 4  # the tool's own least for these modes
_LINES = {
    HELLASWAG: re.compile(r"^(\d+)\t *([\d.]+)%\t\[.*\][ \t]*\r?\n", re.MULTILINE),
    WINOGRANDE: re.compile(r"^(\d+)\t([\d.]+)\t *\S+ +\S+ +[12] +[12][ \t]*\r?\n", re.MULTILINE),
    MULTIPLE_CHOICE: re.compile(r"^(\d+)\t([\d.]+)[ \t]*\r?\n", re.MULTILINE),
}
_ROUNDING = 1e-6  # of a share that is printed in percent to 4 decimals
_TOO_LONG = re.compile(r"task (\d+) does not fit in the context window \(requires (\d+) tokens\)")


@dataclass(frozen=True)
class TaskRun:
    """What the tool is asked to do. ``tasks``: how many, drawn at random (with its fixed seed) where the data has more.

    ``most_answers``: of any task of the data; the tool needs a sequence for each.
    """

    mode: str
    data: Path
    tasks: int
    most_answers: int

    @property
    def parallel(self) -> int:
        return max(_LEAST_PARALLEL, self.most_answers)


def argv(model: Path, asked: TaskRun, options: ToolOptions) -> list[str]:
    """Binary data goes in whole; a text loses its last newline in the tool, as it does for everybody who runs it by hand."""
    given = "-bf" if asked.mode == MULTIPLE_CHOICE else "-f"
    words = [
        "llama-perplexity",
        "-m",
        model,
        given,
        asked.data,
        f"--{asked.mode}",
        f"--{asked.mode}-tasks",
        asked.tasks,
    ]
    words += ["-c", options.n_ctx, "-np", asked.parallel, "-ngl", options.execution.gpu_layers]
    return [str(word) for word in words] + (["-t", str(options.execution.threads)] if options.execution.threads else [])


def outcomes(
    model: Path,
    asked: TaskRun,
    options: ToolOptions,
    *,
    step: Advance | None = None,
    report: Reporter = SILENT,
) -> tuple[bool, ...]:
    """Whether each task was solved, in the tool's order, from up to RUNS runs until one has all of them.

    Raises BadUsage where a task does not fit into the context, ToolFailed where no run says everything, ToolMissing.
    """
    for _ in range(RUNS):
        finished = run(argv(model, asked, options), report=report, on_text=_counter(asked.mode, step))
        _check_chunk(finished, options)
        solved = parse(finished, asked.mode)
        if len(solved) == asked.tasks:
            return solved
        step = None  # another run makes no progress that was not counted
    raise failure(
        finished, f"ended {RUNS} times without the results of all {asked.tasks} tasks, at last with {len(solved)}"
    )


def parse(finished: Finished, mode: str) -> tuple[bool, ...]:
    """The outcomes of the whole lines that are there; ToolFailed where they are not those of one task after another."""
    solved, outcomes = 0, []
    for number, line in enumerate(_LINES[mode].finditer(finished.log), 1):
        count = float(line[2]) * number / 100
        now = round(count)
        if int(line[1]) != number or now - solved not in (0, 1) or abs(count - now) > _ROUNDING * number:
            raise _unreadable(finished, line[0])
        outcomes.append(now > solved)
        solved = now
    return tuple(outcomes)


def _unreadable(finished: Finished, line: str) -> ToolFailed:
    return failure(finished, f"said {line.strip()!r}, which does not follow from the lines before")


def _check_chunk(finished: Finished, options: ToolOptions) -> None:
    too_long = _TOO_LONG.search(finished.log)
    if too_long:
        raise BadUsage(
            f"task {too_long[1]} of this data needs {too_long[2]} tokens, more than --ctx {options.n_ctx} gives room for; "
            "give a larger --ctx"
        )


def _counter(mode: str, step: Advance | None) -> Callable[[str], None] | None:
    """Counts tasks in output that comes in pieces."""
    if step is None:
        return None
    text, counted = "", 0

    def on_text(piece: str) -> None:
        nonlocal text, counted
        text += piece
        done = len(_LINES[mode].findall(text))
        if done > counted:
            step(done - counted)
            counted = done

    return on_text
