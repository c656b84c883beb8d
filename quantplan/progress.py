"""How long work says what it is doing: one ``Reporter``, whoever listens.

Library functions take ``report: Reporter = SILENT`` and write

    with report.stage("probe", len(tensors)) as advance:
        for tensor in tensors:
            ...
            advance(1)

``quantplan.cli.console`` shows stages as progress bars on stderr; a program may pass an object of its own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]  # takes how many more units of the stage are done
_AT_ONCE = 1.0  # seconds: what is reported earlier was done before
_MINUTE, _HOUR = 60, 3600


class Reporter(Protocol):
    """Stages may lie within each other; the calls come from one thread at a time."""

    def stage(self, name: str, total: float = 1.0, unit: str = "") -> AbstractContextManager[Advance]:
        """A stage of ``total`` units, by default the share 1 of the work. ``unit`` "B": bytes, shown as a transfer."""
        ...

    def say(self, text: str) -> None:
        """One line for whoever watches."""
        ...

    def warn(self, text: str) -> None:
        """One line about something that may make the result worse or wrong."""
        ...


class Silent:
    """A reporter that tells nobody."""

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> Iterator[Advance]:
        yield lambda amount: None

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


SILENT: Reporter = Silent()


def absolute(advance: Advance) -> Advance:
    """Takes how much is done in all, where the work counts so: ``absolute(advance)(0.25)``, then ``(0.5)``."""
    done = 0.0

    def reached(amount: float) -> None:
        nonlocal done
        advance(amount - done)
        done = amount

    return reached


class StagePace:
    """How long the rest of a stage takes by its own pace so far; what it reports at once, of an earlier run, does not count."""

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._began = total, clock, clock()
        self._before, self.done = 0.0, 0.0
        self.left: float | None = None  # seconds, at the last step; None while nothing is known

    def advance(self, amount: float) -> None:
        elapsed = self._clock() - self._began
        self.done += amount
        if elapsed < _AT_ONCE:
            self._before = self.done
        elif self.done > self._before:
            self.left = max(self._total - self.done, 0.0) * elapsed / (self.done - self._before)


def human_seconds(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 2 * _MINUTE:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
