"""Work on RPC servers: in a process of its own, so that a server that goes away does not take this one along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quantplan.execution import Execution
from quantplan.llamacpp import isolated, rpc
from quantplan.parallel.worker_pool import Lost


def on_servers(
    servers: Sequence[str], function: Callable[..., Any], *arguments: object, **reports: Callable[..., None]
) -> Any:
    """``function(*arguments, **reports)``; Lost, without items, where the servers or the process went away.

    ``reports`` are called here. Raises ToolMissing where llama.cpp has no RPC backend, QuantplanError where a server does
    not answer.
    """
    rpc.check(servers)
    try:
        return isolated.call(function, *arguments, reports=reports)
    except isolated.Died as died:
        raise Lost([], _reason(servers, died)) from None


def _reason(servers: Sequence[str], died: isolated.Died) -> str:
    if silent := rpc.unreachable(servers):
        return f"the RPC server {', '.join(silent)} went away"
    if died.said:
        return f"llama.cpp gave up on {Execution(rpc=tuple(servers)).backend}: {died.said}"
    ended = f"signal {-died.code}" if died.code and died.code < 0 else f"exit code {died.code}"
    return f"the process that drove {Execution(rpc=tuple(servers)).backend} ended with {ended}: was memory short?"
