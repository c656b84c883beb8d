"""How fast this machine runs a model over text, by a few seconds of it."""

import time
from dataclasses import dataclass

import numpy as np

from quantplan.execution import Execution
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import base_rows, token_scores
from quantplan.sensitivity.matrix_inputs import MatrixInput, read_graph
from quantplan.tensor import Model

_TIMED_TOKENS = 256


@dataclass(frozen=True)
class Pace:
    """Seconds to load a model, and for each token of a chunk that runs and is scored. ``inputs``: of its matrices, where they
    were asked for.
    """

    load: float
    per_token: float
    inputs: tuple[MatrixInput, ...] = ()


def forward_pace(model: Model, n_ctx: int, execution: Execution, with_inputs: bool = False) -> Pace:
    """Of one process on this machine. The first pass reads the weights and counts as loading; the second is the pace."""
    n_ctx = min(n_ctx, _TIMED_TOKENS)
    started = time.perf_counter()
    with Engine(model, EngineOptions(n_ctx, execution)) as engine:
        chunks = np.arange(n_ctx, dtype=np.int32)[None] % engine.vocabulary
        _scored(engine, chunks)
        loaded = time.perf_counter()
        _scored(engine, chunks)
        ended = time.perf_counter()
        inputs = read_graph(engine, model).inputs if with_inputs else ()
    per_token = (ended - loaded) / n_ctx
    return Pace(max(loaded - started - (ended - loaded), 0.0), per_token, inputs)


def _scored(engine: Engine, chunks: np.ndarray) -> None:
    (logits,) = (rows.copy() for rows in engine.logits(chunks))
    targets = chunks[:, engine.first_scored + 1 :].reshape(-1)
    token_scores(base_rows(logits), logits, targets)
