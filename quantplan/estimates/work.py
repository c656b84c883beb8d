"""Time, memory and disk of measurements and probes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantplan.budget import human_bytes
from quantplan.devices.memory_formulas import vocabulary_size
from quantplan.estimates.pace import Pace
from quantplan.evaluate.base_logits import chunk_groups
from quantplan.evaluate.same_tokens import TokenizedText
from quantplan.execution import Execution
from quantplan.llamacpp.engine import chunks_per_batch
from quantplan.llamacpp.perplexity import base_file_bytes
from quantplan.progress import human_seconds
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model

# besides the swaps of single tensors: four that find the noise floor, and everything at once in three types on more text
_FLOOR_SWAPS, _UNIFORM_TOKENS = 4, 3 * 16384
_MORE_TEXT = 1.25  # of the probe, where the error decides


@dataclass(frozen=True)
class WorkEstimate:
    """``seconds`` None: not known, for the reason ``unknown``. Memory in addition to what the system itself needs. ``name``: of
    a stage.
    """

    seconds: float | None
    memory_bytes: int
    disk_bytes: int = 0
    unknown: str = ""
    name: str = ""

    def __str__(self) -> str:
        disk = f", {human_bytes(self.disk_bytes)} of disk" if self.disk_bytes else ""
        return f"{self.time}, {human_bytes(self.memory_bytes)} of memory{disk}"

    @property
    def time(self) -> str:
        """``about 12 min``, or why that is not known."""
        return f"about {human_seconds(self.seconds)}" if self.seconds is not None else f"unknown time ({self.unknown})"

    def times(self, count: float) -> "WorkEstimate":
        """The same work several times over, one after the other, in the same place."""
        return self if self.seconds is None else replace(self, seconds=count * self.seconds)


def joined(stages: Sequence[WorkEstimate]) -> WorkEstimate:
    """Of stages one after the other: what they write stays, memory is given back. Unknown where one is."""
    unknown = next((stage.unknown for stage in stages if stage.seconds is None), "")
    seconds = None if unknown else sum(stage.seconds or 0.0 for stage in stages)
    memory = max((stage.memory_bytes for stage in stages), default=0)
    return WorkEstimate(seconds, memory, sum(stage.disk_bytes for stage in stages), unknown)


def of_measuring(
    models: Sequence[Model],
    tokens: TokenizedText,
    memory_bytes: int,
    pace: Pace | None,
    by_tool: bool = False,
    unknown: str = "",
) -> WorkEstimate:
    """Of running ``models``, the base first, over all chunks; ``memory_bytes``: for the base's logits.

    All models are taken to be as fast as the one that was timed.
    """
    chunks, n_ctx = tokens.chunks.shape
    groups = chunk_groups(tokens, memory_bytes)
    logits = max(group.stop - group.start for group in groups) * _logits_bytes(n_ctx, tokens.vocabulary)
    seconds = None
    if pace is not None:
        loads = len(models) * (1 if by_tool else len(groups))
        seconds = loads * pace.load + len(models) * chunks * n_ctx * pace.per_token
    disk = base_file_bytes(tokens.vocabulary, n_ctx, chunks) if by_tool else 0
    held = chunks_per_batch(n_ctx) * _logits_bytes(n_ctx, tokens.vocabulary) if by_tool else logits
    return WorkEstimate(seconds, max(model.file_bytes for model in models) + held, disk, unknown, "measuring")


def of_probe(
    model: Model,
    tensors: int,
    options: ProbeOptions,
    pace: Pace | None,
    unknown: str = "",
    available: int = sys.maxsize,
) -> WorkEstimate:
    """Of a probe of so many tensors; their rounding errors come on top. ``available``: chunks that the text has."""
    chunks, n_ctx = options.base_chunks(available), options.n_ctx
    swaps = (tensors * _MORE_TEXT + _FLOOR_SWAPS + 1) * chunks * n_ctx + _UNIFORM_TOKENS
    seconds = pace.load + swaps * pace.per_token if pace else None
    logits = max(chunks, _UNIFORM_TOKENS // 3 // n_ctx) * _logits_bytes(n_ctx, vocabulary_size(model))
    return WorkEstimate(seconds, model.file_bytes + logits, unknown=unknown, name="probe")


def why_not_timed(model: Model, execution: Execution) -> str:
    """Why no pace of this process tells how long work takes; empty where one does."""
    if execution.many or execution.rpc:
        return "it runs in other processes"
    return "the file has no weights" if model.header_only else ""


def _logits_bytes(n_ctx: int, vocabulary: int) -> int:
    """Of the scored half of a chunk, in float32."""
    return (n_ctx - n_ctx // 2) * vocabulary * np.dtype(np.float32).itemsize
