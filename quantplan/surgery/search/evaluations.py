"""What a search measures of a layer map, and from what: PPL and KLD on a text, and the score at a suite."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from quantplan.budget import human_bytes
from quantplan.errors import BadUsage
from quantplan.evaluate.same_tokens import tokenize
from quantplan.evaluate.suites.suite import Suite
from quantplan.execution import Execution
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.measurement import Estimate
from quantplan.tensor import Model
from quantplan.text import Text

VERSION = 1  # of scores in the cache; 1: first
DEFAULT_TOKENS = 8192
_LOGIT_BYTES = 2 << 30  # of the original's logits that are kept in memory, where --chunks does not say how many


@dataclass(frozen=True)
class EvaluationJob:
    """All that an evaluation depends on except the map; the model by path and digest, so that a worker reads the same or refuses.

    ``folder``: for temporary model files. ``suite``: also asked, where there is one.
    """

    model: Path
    model_digest: str
    text: Text
    n_ctx: int
    chunks: int
    folder: Path
    execution: Execution = Execution()
    imatrix: Path | None = None
    suite: Suite | None = None

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(self.n_ctx, self.execution, swappable=True)


@dataclass(frozen=True)
class CandidateScore:
    """Figures of one map. ``nll``: mean negative log likelihood of each chunk. None and empty where logits are NaN or infinite.

    ``score``: out of 100, and ``scores``, credits of the parts from 0 to 1, where there is a suite.
    """

    ppl: Estimate | None
    kld: Estimate | None
    nll: tuple[float, ...] = ()
    score: Estimate | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class SearchTiming:
    """Seconds of all evaluations; ``forward``: in llama.cpp's forward passes; ``load``: in loading models."""

    total: float = 0.0
    forward: float = 0.0
    load: float = 0.0
    evaluations: int = 0

    @property
    def overhead(self) -> float | None:
        """All seconds over those of forward passes and loading; None where nothing was evaluated."""
        needed = self.forward + self.load
        return self.total / needed if needed > 0 else None


def chunks_of(model: Model, text: Text, n_ctx: int, chunks: int | None, jobs: int = 1) -> int:
    """Chunks to evaluate: ``chunks`` as far as the text goes, else ``DEFAULT_TOKENS`` or 2 GiB of logits, whichever is less.

    Raises TextTooShort, and BadUsage where ``jobs`` processes cannot hold the logits: memory must not change the result.
    """
    text_chunks = tokenize(model, text, n_ctx, chunks or max(8, DEFAULT_TOKENS // n_ctx))
    available = len(text_chunks.chunks)
    scored = n_ctx - n_ctx // 2 - 1
    per_chunk = scored * text_chunks.vocabulary * np.dtype(np.float32).itemsize
    count = available if chunks else min(available, max(2, _LOGIT_BYTES // per_chunk))
    room = psutil.virtual_memory().available // 2 // jobs
    if count * per_chunk > room:
        raise BadUsage(
            f"{count} chunks: the original's logits need {human_bytes(count * per_chunk)} in each process, and there is room "
            f"for {human_bytes(room)}; use --chunks {max(2, room // per_chunk)}, or fewer --jobs"
        )
    return count
