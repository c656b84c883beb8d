"""What the commands print with: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

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
    """Where the terminal is too narrow, the frame is left out and cells are folded between words; False where that is not
    enough: then lines go on in the terminal's next, for what is cut off nobody can read.
    """
    from rich import box

    names = table.columns[0]  # the only column that is folded anyway
    longest = _widths(names, console)[1]
    if _width(table, console) - max(0, longest - (names.min_width or longest)) <= console.width:
        return True
    table.box, table.show_edge, table.pad_edge = box.SIMPLE_HEAD, False, False
    least, folds = {}, names.min_width
    for column in table.columns:
        least[id(column)], column.width = _widths(column, console)
    if folds:  # within words too
        least[id(names)] = min(folds, least[id(names)])
    for column in table.columns:
        column.no_wrap, column.min_width = False, None
    while _width(table, console) > console.width:
        wide = [column for column in table.columns if (column.width or 0) > least[id(column)]]
        if not wide:
            for column in table.columns:
                column.width, column.no_wrap = None, True
            return False
        widest = max(wide, key=lambda column: column.width or 0)
        widest.width = (widest.width or 0) - 1
    return True


def _widths(column: Column, console: Console) -> tuple[int, int]:
    """Of its longest word, and of its longest cell."""
    from rich.measure import Measurement

    options = console.options.update(max_width=_WIDE)
    found = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    return max(each.minimum for each in found), max(each.maximum for each in found)


def _width(table: Table, console: Console) -> int:
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum


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
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextmanager
def transfer(what: str, total: float) -> Iterator[Advance]:
    """A bar in bytes with speed and ETA on stderr, as ``progress``."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)
