"""How fast this machine runs a model over text and rounds its weights, by a few seconds of each."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantplan.execution import Execution
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import base_rows, token_scores
from quantplan.quant_type import QuantType
from quantplan.sensitivity.candidates import candidates
from quantplan.sensitivity.round_trip import round_trips
from quantplan.tensor import Model, Tensor

_TIMED_TOKENS = 256
_TIMED_WEIGHTS = 1 << 16


@dataclass(frozen=True)
class Pace:
    """Seconds to load a model, and for each token of a chunk that runs and is scored."""

    load: float
    per_token: float


def forward_pace(model: Model, n_ctx: int, execution: Execution) -> Pace:
    """Of one process on this machine. The first pass reads the weights and counts as loading; the second is the pace."""
    n_ctx = min(n_ctx, _TIMED_TOKENS)
    started = time.perf_counter()
    with Engine(model, EngineOptions(n_ctx, execution)) as engine:
        chunks = np.arange(n_ctx, dtype=np.int32)[None] % engine.vocabulary
        _scored(engine, chunks)
        loaded = time.perf_counter()
        _scored(engine, chunks)
        ended = time.perf_counter()
    per_token = (ended - loaded) / n_ctx
    return Pace(max(loaded - started - (ended - loaded), 0.0), per_token)


def _scored(engine: Engine, chunks: np.ndarray) -> None:
    (logits,) = (rows.copy() for rows in engine.logits(chunks))
    targets = chunks[:, engine.first_scored + 1 :].reshape(-1)
    token_scores(base_rows(logits), logits, targets)


def rounding_seconds(
    model: Model,
    tensors: Sequence[Tensor],
    types: Sequence[QuantType],
    imatrix: Imatrix | None,
    sample_elements: int | None,
    threads: int,
) -> float:
    """Seconds to round samples of all tensors to all types, by a small sample of the middle one."""
    middle = sorted(tensors, key=lambda tensor: tensor.elements)[len(tensors) // 2]
    timed = min(_TIMED_WEIGHTS, middle.elements)
    started = time.perf_counter()
    list(round_trips(model, [(middle, candidates(middle, tuple(types), imatrix))], imatrix, timed, threads))
    per_weight = (time.perf_counter() - started) / timed
    return per_weight * sum(min(sample_elements or tensor.elements, tensor.elements) for tensor in tensors)
