"""Work on RPC servers: in a process of its own, so that a server that goes away does not take this one along."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from quantplan.execution import Execution
from quantplan.llamacpp import isolated, rpc
from quantplan.parallel.worker_pool import Lost
from quantplan.progress import SILENT, Advance, Reporter


def on_servers(
    servers: Sequence[str],
    function: Callable[..., Any],
    *arguments: object,
    report: Reporter = SILENT,
    **callbacks: Callable[..., None],
) -> Any:
    """``function(*arguments, report=report, **callbacks)``; Lost, without items, where the servers or the process went away.

    ``report`` and ``callbacks`` are called here. Raises ToolMissing where llama.cpp has no RPC backend, QuantplanError where a
    server does not answer.
    """
    rpc.check(servers)
    with ExitStack() as stages:
        try:
            return isolated.call(
                _reporting, function, arguments, reports={"send": _Receiver(report, stages), **callbacks}
            )
        except isolated.Died as died:
            raise Lost([], _reason(servers, died)) from None


def _reporting(
    function: Callable[..., Any], arguments: tuple, send: Callable[..., None], **callbacks: Callable[..., None]
) -> Any:
    """What the other process runs."""
    return function(*arguments, report=_Sender(send), **callbacks)


@dataclass(frozen=True)
class _Sender:
    """A reporter whose listener is in the other process."""

    send: Callable[..., None]

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> Iterator[Advance]:
        self.send("begin", name, total, unit)
        yield partial(self.send, "advance")
        self.send("end")

    def say(self, text: str) -> None:
        self.send("say", text)

    def warn(self, text: str) -> None:
        self.send("warn", text)


class _Receiver:
    """Passes on what a ``_Sender`` sends. ``stages`` closes those that were left open."""

    def __init__(self, report: Reporter, stages: ExitStack) -> None:
        self._report, self._stages = report, stages
        self._open: list[tuple[ExitStack, Advance]] = []

    def __call__(self, event: str, *values: Any) -> None:
        if event == "begin":
            stage = ExitStack()
            self._open.append((stage, stage.enter_context(self._report.stage(*values))))
            self._stages.push(stage)
        elif event == "advance":
            self._open[-1][1](*values)
        elif event == "end":
            self._open.pop()[0].close()
        else:
            getattr(self._report, event)(*values)


def _reason(servers: Sequence[str], died: isolated.Died) -> str:
    if silent := rpc.unreachable(servers):
        return f"the RPC server {', '.join(silent)} went away"
    if died.said:
        return f"llama.cpp gave up on {Execution(rpc=tuple(servers)).backend}: {died.said}"
    ended = f"signal {-died.code}" if died.code and died.code < 0 else f"exit code {died.code}"
    return f"the process that drove {Execution(rpc=tuple(servers)).backend} ended with {ended}: was memory short?"
