"""What a search shows while it runs: how far it is, when it will be done, and the leaderboard as it grows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from quantplan.cli import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from quantplan.surgery.search.leaderboard import Leaderboard
    from quantplan.surgery.search.search import Progress, Tell

_SHOWN = 5  # of the leaderboard: the rest would push the screen about


@contextmanager
def growing() -> Iterator[Tell]:
    """A live table and a bar on stderr; where that is no terminal, a line for each stage and each new best."""
    if sys.stderr.isatty():
        with _live() as tell:
            yield tell
    else:
        yield _Lines()


@contextmanager
def _live() -> Iterator[Tell]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )
    task = bar.add_task("the original", total=None)
    with Live(bar, console=Console(stderr=True), transient=True) as live:

        def tell(progress: Progress) -> None:
            bar.update(task, description=progress.stage, completed=progress.done, total=progress.total)
            live.update(Group(_table(progress.board), bar))

        yield tell


def _table(board: Leaderboard) -> RenderableType:
    from quantplan.report.leaderboard_table import leaderboard_table
    from quantplan.report.table import as_rich

    return as_rich(replace(leaderboard_table(board, _SHOWN), notes=()))  # they speak of a search that is over


class _Lines:
    """Says only what is new."""

    def __init__(self) -> None:
        self._stage, self._best = "", ""

    def __call__(self, progress: Progress) -> None:
        from quantplan.report.leaderboard_table import in_short

        if progress.stage != self._stage:
            self._stage = progress.stage
            console.say(f"{progress.stage} ...")
        best = progress.board.best
        if best and best.edits != self._best:
            self._best = best.edits
            console.say(f"  {progress.done} of {progress.total}: best so far {in_short(best, progress.board.by)}")
