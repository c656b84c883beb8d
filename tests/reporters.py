"""A reporter for tests: it remembers everything, and passes every advance on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Recorder:
    """``events``: (stage, done in all, total) of each advance; ``then`` gets them as they come. ``said``: lines."""

    def __init__(self, then: Callable[[str, float, float], None] = lambda *_: None) -> None:
        self.events: list[tuple[str, float, float]] = []
        self.said: list[str] = []
        self._then = then

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> Iterator[Callable[[float], None]]:
        done = 0.0

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            self.events.append((name, done, total))
            self._then(name, done, total)

        yield advance

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say
