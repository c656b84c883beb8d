"""From logits to figures per token: negative log likelihood, KL divergence, difference of probabilities, same top.

All in float32 with one exception to the textbook: the divergence is taken from the *difference* d of the two rows of
logits, KL(p||q) = log1p(sum p expm1(d)) - sum p d, so that two equal rows give exactly 0 and small divergences
(1e-9 nats) are not lost in the rounding of large log-probabilities.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from quantplan.llamacpp.ggml import cores

_ROWS_AT_ONCE = 32  # 32 rows of 32k logits are 4 MiB: they stay in cache between the passes over them


@dataclass(frozen=True)
class BaseRows:
    """The reference: ``logits`` float32 [rows, vocabulary] and ``log_sum`` float64 [rows], log of the sum of exponentials."""

    logits: np.ndarray
    log_sum: np.ndarray


@dataclass(frozen=True)
class TokenScores:
    """Per scored token, each float64 [rows]: nll and base nll of the true token, KLD, change of its probability, same top."""

    nll: np.ndarray
    base_nll: np.ndarray
    kld: np.ndarray
    delta_p: np.ndarray
    same_top: np.ndarray


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="scoring")


def _spans(rows: int) -> list[slice]:
    return [slice(start, min(start + _ROWS_AT_ONCE, rows)) for start in range(0, rows, _ROWS_AT_ONCE)]


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """float64 [rows] of float32 logits [rows, vocabulary]."""
    out = np.empty(len(logits))

    def work(span: slice) -> None:
        rows = logits[span]
        top = rows.max(axis=1)
        out[span] = top + np.log(np.exp(rows - top[:, None]).sum(axis=1, dtype=np.float64))

    list(_pool().map(work, _spans(len(logits))))
    return out


def base_rows(logits: np.ndarray) -> BaseRows:
    """A copy of the rows with their normalisation."""
    rows = np.array(logits, np.float32).reshape(-1, logits.shape[-1])
    return BaseRows(rows, log_sum_exp(rows))


def divergence(base: BaseRows, logits: np.ndarray) -> np.ndarray:
    """float64 [rows]: KL(base || other) in nats; exactly 0 for equal rows."""
    logits = logits.reshape(-1, logits.shape[-1])
    out = np.empty(len(logits))
    log_sum = base.log_sum.astype(np.float32)

    def work(span: slice) -> None:
        own = base.logits[span]
        p = np.exp(own - log_sum[span, None])
        d = logits[span] - own
        linear = np.einsum("ij,ij->i", p, d)
        curved = np.einsum("ij,ij->i", p, np.expm1(d))
        out[span] = np.log1p(curved.astype(np.float64)) - linear

    list(_pool().map(work, _spans(len(logits))))
    return np.maximum(out, 0.0)


def token_scores(base: BaseRows, logits: np.ndarray, targets: np.ndarray) -> TokenScores:
    """All figures of the rows; ``targets``: int [rows], the token that really came."""
    logits = logits.reshape(-1, logits.shape[-1])
    rows = np.arange(len(logits))
    nll = log_sum_exp(logits) - logits[rows, targets]
    base_nll = base.log_sum - base.logits[rows, targets]
    return TokenScores(
        nll=nll,
        base_nll=base_nll,
        kld=divergence(base, logits),
        delta_p=np.exp(-nll) - np.exp(-base_nll),
        same_top=(logits.argmax(axis=1) == base.logits.argmax(axis=1)).astype(float),
    )
