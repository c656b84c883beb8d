"""What the commands print with: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

_WIDE = 160  # columns where there is no terminal


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")


def put(text: str) -> None:
    """Data, on stdout."""
    print(text)


def put_json(value: Any) -> None:
    """One JSON document on stdout; ValueError for NaN, which would not be JSON."""
    print(json.dumps(value, indent=1, allow_nan=False))


def put_table(*tables: Table) -> None:
    """rich tables on stdout; full width where it is no terminal, so that pipes lose nothing."""
    from rich.console import Console

    wide = Console(width=_WIDE, highlight=False)
    console = Console(highlight=False) if sys.stdout.isatty() else wide
    for table in tables:
        (console if _fitted(table, console) else wide).print(table)


def _fitted(table: Table, console: Console) -> bool:
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


def _spared(table: Table, console: Console, columns: int) -> Measurement:
    """The widths of the table, less the columns that its names can do without."""
    from rich.measure import Measurement

    found = Measurement.get(console, console.options.update(max_width=_WIDE), table)
    return Measurement(found.minimum - max(0, columns), found.maximum - max(0, columns))


Advance = Callable[[float], None]


@contextmanager
def progress(what: str, total: float) -> Iterator[Advance]:
    """A bar with ETA on stderr; the yielded function takes how much more is done. Silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextmanager
def transfer(what: str, total: float) -> Iterator[Advance]:
    """A bar in bytes with speed and ETA on stderr, as ``progress``."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)
