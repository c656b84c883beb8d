"""A stand-in for a tool of llama.cpp that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from quantplan.llamacpp.tools import Finished


def finished(log: str) -> Finished:
    return Finished("llama-perplexity -m a.gguf", 0, log)


class ScriptedTool:
    """Replaces ``module.run``: its runs say ``logs`` in turn, each in two pieces; the last one again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType, *logs: str) -> None:
        self.logs, self.runs = list(logs), 0
        monkeypatch.setattr(module, "run", self)

    def __call__(
        self, argv: list[str], report: object = None, on_text: Callable[[str], None] | None = None
    ) -> Finished:
        log = self.logs[min(self.runs, len(self.logs) - 1)]
        self.runs += 1
        for piece in (log[: len(log) // 3], log[len(log) // 3 :]) if on_text else ():
            on_text(piece)
        return finished(log)
