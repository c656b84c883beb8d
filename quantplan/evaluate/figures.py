"""From scores of tokens to the figures of a measurement, with llama-perplexity's definitions.

Source: ``kl_divergence`` in tools/perplexity/perplexity.cpp. Standard error of a mean: over all n scored tokens; of exp(x) and
sqrt(x): that times the derivative.
"""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from scipy import stats

from quantplan.llamacpp.token_scores import TokenScores
from quantplan.measurement import PERCENTILES, DomainFigures, Estimate, Figures


def figures(scores: TokenScores, chunks: int) -> Figures:
    """The figures of a text of ``chunks`` equal chunks; ``scores`` hold its tokens in the order of the text."""
    ppl, base_ppl = _exponential(scores.nll), _exponential(scores.base_nll)
    per_chunk = {name: getattr(scores, name).reshape(chunks, -1).mean(axis=1) for name in ("kld", "nll", "base_nll")}
    return Figures(
        ppl=ppl,
        base_ppl=base_ppl,
        ln_ppl_ratio=mean(scores.nll - scores.base_nll),
        ppl_correlation=_correlation(scores.nll, scores.base_nll),
        kld=mean(scores.kld),
        kld_chunk_err=mean(per_chunk["kld"]).stderr,
        kld_median=float(np.median(scores.kld)),
        kld_maximum=float(scores.kld.max()),
        kld_percentiles=dict(zip(PERCENTILES, np.percentile(scores.kld, PERCENTILES).tolist(), strict=True)),
        delta_p=mean(100 * scores.delta_p),
        rms_dp=_root_mean_square(100 * scores.delta_p),
        same_top=_share(scores.same_top),
        per_chunk_kld=tuple(per_chunk["kld"].tolist()),
        per_chunk_nll=tuple(per_chunk["nll"].tolist()),
        per_chunk_base_nll=tuple(per_chunk["base_nll"].tolist()),
    )


def domain_figures(scores: TokenScores, domains: Sequence[tuple[str, int]]) -> tuple[DomainFigures, ...]:
    """The figures of each domain; ``domains``: their names and numbers of chunks, in the order of the scores."""
    total = sum(count for _, count in domains)
    per_chunk = len(scores.kld) // max(total, 1)
    found, first = [], 0
    for name, count in domains:
        rows = slice(first * per_chunk, (first + count) * per_chunk)
        part = TokenScores(*(getattr(scores, field.name)[rows] for field in fields(TokenScores)))
        own = replace(figures(part, count), per_chunk_kld=(), per_chunk_nll=(), per_chunk_base_nll=())
        found.append(DomainFigures(**vars(own), name=name, chunks=count))
        first += count
    return tuple(found)


def mean(values: np.ndarray) -> Estimate:
    """Mean of [n] values and its standard error, None for a single one."""
    if len(values) < 2:
        return Estimate(float(values.mean()), None)
    return Estimate(float(values.mean()), float(stats.sem(values)))


def _exponential(nll: np.ndarray) -> Estimate:
    """Perplexity: exp of the mean negative log likelihood."""
    logarithm = mean(nll)
    value = float(np.exp(logarithm.value))
    return Estimate(value, None if logarithm.stderr is None else value * logarithm.stderr)


def _root_mean_square(values: np.ndarray) -> Estimate:
    square = mean(values**2)
    root = float(np.sqrt(square.value))
    if root == 0 or square.stderr is None:  # no token changed: there is no spread either
        return Estimate(root, None if square.stderr is None else 0.0)
    return Estimate(root, 0.5 / root * square.stderr)


def _share(hits: np.ndarray) -> Estimate:
    """Percent of ones, with the binomial standard error."""
    share = mean(hits)
    return Estimate(100 * share.value, None if share.stderr is None else 100 * share.stderr)


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's; None where one of them does not vary."""
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
