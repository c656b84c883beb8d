"""What the commands print with: data on stdout, everything else on stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from quantplan.budget import human_bytes
from quantplan.cli import streams
from quantplan.progress import StagePace, human_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.progress import Progress, TaskID
    from rich.table import Table as RichTable

    from quantplan.progress import Advance, Reporter
    from quantplan.report.table import Table

_WIDE = 160  # columns where there is no terminal
_BETWEEN_LINES = 60.0  # seconds, of a stage where there is no terminal


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    streams.write(text, sys.stderr)


def warn(text: str) -> None:
    say(f"warning: {text}")


def put(text: str) -> None:
    """Data, on stdout."""
    streams.write(text, sys.stdout)


def put_json(value: Any) -> None:
    """One JSON document on stdout; ValueError for NaN, which would not be JSON."""
    put(json.dumps(value, indent=1, allow_nan=False))


def put_table(*tables: "Table") -> None:
    """Tables on stdout; full width where it is no terminal, so that pipes lose nothing."""
    from rich.console import Console

    from quantplan.report.table import as_rich

    wide = Console(width=_WIDE, highlight=False)
    console = Console(highlight=False) if sys.stdout.isatty() else wide
    for table in map(as_rich, map(_showable, tables)):
        (console if _fitted(table, console) else wide).print(table)


def _showable(table: "Table") -> "Table":
    """The table as stdout's encoding shows it, so that its columns stay in line."""
    lines = [[streams.shown(cell, sys.stdout) for cell in line] for line in (table.headings, *table.rows, table.notes)]
    headings, *rows, notes = map(tuple, lines)
    return replace(
        table, title=streams.shown(table.title, sys.stdout), headings=headings, rows=tuple(rows), notes=notes
    )


def _fitted(table: "RichTable", console: "Console") -> bool:
    """Where the terminal is too narrow, the frame is left out and cells fold between words; False where their longest words
    need more: then lines go on in the terminal's next, for what is cut off nobody can read.
    """
    from rich import box
    from rich.measure import Measurement

    options = console.options.update(max_width=_WIDE)
    names = table.columns[0]  # the only column that folds anywhere, down to its least width
    cells = [Measurement.get(console, options, cell) for cell in (names.header, *names.cells)]
    least = names.min_width or max(each.minimum for each in cells)
    if _spared(table, console, max(each.maximum for each in cells) - least).maximum <= console.width:
        return True
    table.box, table.show_edge, table.pad_edge = box.SIMPLE_HEAD, False, False
    for column in table.columns:
        column.no_wrap, column.overflow, column.min_width = False, "fold", None
    return _spared(table, console, max(each.minimum for each in cells) - least).minimum <= console.width


def _spared(table: "RichTable", console: "Console", columns: int) -> "Measurement":
    """The widths of the table, less the columns that its names can do without."""
    from rich.measure import Measurement

    found = Measurement.get(console, console.options.update(max_width=_WIDE), table)
    return Measurement(found.minimum - max(0, columns), found.maximum - max(0, columns))


@contextmanager
def progress(name: str, total: float = 1.0, unit: str = "") -> "Iterator[Advance]":
    """A bar with ETA on stderr; the yielded function takes how much more is done. A line where stderr is no terminal."""
    with terminal() as report, report.stage(name, total, unit) as advance:
        yield advance


@contextmanager
def terminal() -> "Iterator[Reporter]":
    """Stages as progress bars with ETA on stderr, until the block ends; plain lines where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    texts = ("description", "fields[detail]", "fields[left]")
    description, detail, left = (TextColumn(f"{{task.{each}}}", markup=False) for each in texts)
    columns = (description, BarColumn(), TaskProgressColumn(), detail, TimeElapsedColumn(), left)
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    with bars:
        yield _Bars(bars)


class _Lines:
    """Stages named as they begin, and once a minute how far they are and what is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> "Iterator[Advance]":
        say(f"{name} ...")
        pace, said = StagePace(total, self._clock), self._clock()

        def advance(amount: float) -> None:
            nonlocal said
            pace.advance(amount)
            if self._clock() - said >= _BETWEEN_LINES and pace.done < total:
                said = self._clock()
                done = _amounts(pace.done, total, unit) or f"{pace.done / total:.0%}"
                say(f"{name}: {', '.join(filter(None, (done, _left(pace))))}")

        yield advance

    def say(self, text: str) -> None:
        say(text)

    def warn(self, text: str) -> None:
        warn(text)


LINES: "Reporter" = _Lines()


class _Bars:
    """Stages as bars of a ``rich`` display, one below the other; each goes when its stage ends."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> "Iterator[Advance]":
        task, pace = self._bars.add_task(streams.visible(name), total=total, detail="", left=""), StagePace(total)
        try:
            yield lambda amount: self._advance(task, pace, amount, unit)
        finally:
            self._bars.remove_task(task)

    def _advance(self, task: "TaskID", pace: StagePace, amount: float, unit: str) -> None:
        pace.advance(amount)
        self._bars.advance(task, amount)
        state = self._bars.tasks[self._bars.task_ids.index(task)]
        self._bars.update(task, detail=_amounts(state.completed, state.total or 1.0, unit), left=_left(pace))

    def say(self, text: str) -> None:
        self._bars.console.print(streams.visible(text), highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")


def _left(pace: StagePace) -> str:
    return "" if pace.left is None else f"about {human_seconds(pace.left)} left"


def _amounts(done: float, total: float, unit: str) -> str:
    """``3/71``, or ``1.20/17.91 GB``; nothing for a share."""
    if unit == "B":
        return f"{human_bytes(done)}/{human_bytes(total)}"
    return f"{done:.0f}/{total:.0f}{unit and ' ' + unit}" if total > 1 else ""
