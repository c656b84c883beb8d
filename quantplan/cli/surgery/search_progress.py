"""What a search shows while it runs: how far it is, when it will be done, and the leaderboard as it grows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quantplan.cli import console, streams
from quantplan.progress import Advance, Reporter
from quantplan.report.leaderboard_table import in_short, leaderboard_table
from quantplan.report.table import as_rich
from quantplan.surgery.search.leaderboard import Leaderboard
from quantplan.surgery.search.search import OnResult

_SHOWN = 5  # of the leaderboard: the rest would push the screen about


@contextmanager
def growing() -> Iterator[tuple[Reporter, OnResult]]:
    """A live table and a bar on stderr; where that is no terminal, a line for each stage and each new best."""
    if not sys.stderr.isatty():
        with console.terminal() as report:
            yield report, _Lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with Live(bars, console=Console(stderr=True), transient=True) as live:
        view = _View(live, bars)
        yield view, view.show


class _View:
    """The leaderboard above the bar of the stage that runs."""

    def __init__(self, live: Live, bars: Progress) -> None:
        self._live, self._bars = live, bars

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> Iterator[Advance]:
        task = self._bars.add_task(streams.visible(name), total=total)
        yield lambda amount: self._bars.advance(task, amount)
        self._bars.remove_task(task)

    def say(self, text: str) -> None:
        self._live.console.print(streams.visible(text), highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def show(self, board: Leaderboard) -> None:
        table = as_rich(replace(leaderboard_table(board, _SHOWN), notes=()))  # notes are for a search that is over
        self._live.update(Group(table, self._bars))


class _Lines:
    """Says each new best."""

    def __init__(self) -> None:
        self._best = ""

    def __call__(self, board: Leaderboard) -> None:
        best, done = board.best, len(board.standings)
        if best and best.edits != self._best:
            self._best = best.edits
            console.say(f"  {done} of {done + board.left_out}: best so far {in_short(best, board.by)}")
