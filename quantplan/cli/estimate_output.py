"""How commands print what their work is expected to take."""

from collections.abc import Sequence
from typing import Any

from quantplan.cli import console
from quantplan.estimates.work import WorkEstimate, joined


def put_estimate(stages: Sequence[WorkEstimate]) -> None:
    """The whole in a line, then each stage."""
    console.put(f"expected: {joined(stages)}")
    for stage in stages if len(stages) > 1 else ():
        console.put(f"  {stage.name + ':':24s}{'done before' if stage.seconds == 0 else stage.time}")


def estimate_fields(stages: Sequence[WorkEstimate]) -> dict[str, Any]:
    """For --json; ``seconds`` null where it is not known."""
    parts = [{"name": stage.name} | _figures(stage) for stage in stages]
    return _figures(joined(stages)) | {"stages": parts}


def _figures(work: WorkEstimate) -> dict[str, Any]:
    return {
        "seconds": work.seconds,
        "memory_bytes": work.memory_bytes,
        "disk_bytes": work.disk_bytes,
        "unknown": work.unknown or None,
    }
