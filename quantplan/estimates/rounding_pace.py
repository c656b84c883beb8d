"""How fast this machine rounds weights and sums second moments, by a moment of each on made-up numbers."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.rounding.compensate import RoundingOptions, compensate
from quantplan.rounding.layouts import CODEBOOK
from quantplan.rounding.metric import prepare
from quantplan.sensitivity.moment_pass import MomentSums

_TIMED = BY_NAME["Q4_K"]
_LEAST, _MOST = 256, 1024  # columns
_ROWS, _INPUTS = 64, 512
# seconds for a weight over those of Q4_K (1,024 columns, with an imatrix); codebooks are searched
_ENCODED = {"float": 0.05, "legacy": 1.0, "k": 1.0, "iq": 3.0}
_CODEBOOK, _OTHER = 3.0, 1.0
_FULL = 2.0  # all sweeps, over the one of an estimate


@dataclass(frozen=True)
class RoundingPace:
    """Seconds: ``encode`` of ggml's encoder for a weight, ``factorize`` of second moments for columns cubed, ``compensate``
    with one sweep for a row and columns squared, ``sum`` of an input's products for columns squared.
    """

    encode: float
    factorize: float
    compensate: float
    sum: float

    def encoding(self, kind: QuantType) -> float:
        """For a weight, by ggml's encoder."""
        return self.encode * _ENCODED.get(kind.family, _OTHER)

    def compensating(self, kind: QuantType, full: bool) -> float:
        """For a row and columns squared; ``full``: as files are built, else as errors are estimated."""
        return self.compensate * (_CODEBOOK if kind.name in CODEBOOK else 1.0) * (_FULL if full else 1.0)


def rounding_pace(columns: int, threads: int) -> RoundingPace:
    """For matrices of about so many columns. Threads as in ``RoundingOptions``."""
    size = min(max(columns, _LEAST), _MOST) // _LEAST * _LEAST
    random = np.random.default_rng(0)
    inputs = random.standard_normal((_INPUTS, size)).astype(np.float32)
    weights = random.standard_normal((_ROWS, size)).astype(np.float32)
    sums = MomentSums(size)
    moments = inputs.T @ inputs / np.float32(_INPUTS)
    options = RoundingOptions(sweeps=1, threads=threads)
    metric = prepare(moments, options.damping, 1, threads)
    importance = np.ascontiguousarray(moments.diagonal())

    def add() -> None:
        sums.add(inputs)
        sums.flush()

    return RoundingPace(
        encode=_seconds(lambda: ggml.quantize(weights, _TIMED, importance)) / weights.size,
        factorize=_seconds(lambda: prepare(moments, options.damping, 1, threads)) / size**3,
        compensate=_seconds(lambda: compensate(weights, metric, _TIMED, options)) / (_ROWS * size**2),
        sum=_seconds(add) / (_INPUTS * size**2),
    )


def _seconds(work: Callable[[], object]) -> float:
    """Of a second call: the first makes tables and starts threads."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
