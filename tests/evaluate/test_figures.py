"""Figures and their errors as llama-perplexity defines them, by hand on few tokens."""

import math

import numpy as np
import pytest

from quantplan.evaluate.figures import figures, mean
from quantplan.llamacpp.token_scores import TokenScores

NLL = np.array([1.0, 2.0, 3.0, 6.0])
BASE = np.array([1.0, 1.5, 3.5, 5.0])
KLD = np.array([0.1, 0.2, 0.3, 0.8])
DELTA = np.array([0.1, -0.1, 0.0, 0.2])
SCORES = TokenScores(NLL, BASE, KLD, DELTA, np.array([1.0, 1.0, 0.0, 1.0]))


def tool_error(values):
    """sqrt((E[x^2] - E[x]^2) / (n - 1)), the tool's mean_and_uncertainty."""
    return math.sqrt((np.mean(values**2) - np.mean(values) ** 2) / (len(values) - 1))


def test_every_figure():
    found = figures(SCORES, chunks=2)
    assert (found.ppl.value, found.ppl.stderr) == pytest.approx((math.exp(3), math.exp(3) * tool_error(NLL)))
    assert found.base_ppl.value == pytest.approx(math.exp(2.75))
    assert (found.ln_ppl_ratio.value, found.ln_ppl_ratio.stderr) == pytest.approx((0.25, tool_error(NLL - BASE)))
    assert found.ppl_correlation == pytest.approx(np.cov(NLL, BASE)[0, 1] / NLL.std(ddof=1) / BASE.std(ddof=1))
    assert (found.kld.value, found.kld.stderr) == pytest.approx((0.35, tool_error(KLD)))
    assert (found.kld_median, found.kld_maximum) == pytest.approx((0.25, 0.8))
    assert found.kld_percentiles[90.0] == pytest.approx(0.3 + 0.7 * 0.5)  # at position 0.9 * (4 - 1) = 2.7
    assert (found.delta_p.value, found.delta_p.stderr) == pytest.approx((5, 100 * tool_error(DELTA)))
    root = math.sqrt(np.mean((100 * DELTA) ** 2))
    assert found.rms_dp.value == pytest.approx(root)
    assert found.rms_dp.stderr == pytest.approx(0.5 / root * tool_error((100 * DELTA) ** 2))
    assert (found.same_top.value, found.same_top.stderr) == pytest.approx((75, 100 * math.sqrt(0.75 * 0.25 / 3)))


def test_the_error_over_chunks_is_that_of_their_means():
    found = figures(SCORES, chunks=2)
    assert found.per_chunk_kld == pytest.approx((0.15, 0.55))
    assert found.per_chunk_nll == pytest.approx((1.5, 4.5))
    assert found.kld_chunk_err == pytest.approx(np.std([0.15, 0.55], ddof=1) / math.sqrt(2))


def test_one_chunk_has_no_error_over_chunks():
    assert figures(SCORES, chunks=1).kld_chunk_err is None
    assert mean(np.array([3.0])).stderr is None


def test_nothing_changed():
    zero = np.zeros(4)
    found = figures(TokenScores(NLL, NLL, zero, zero, np.ones(4)), chunks=2)
    assert (found.rms_dp.value, found.rms_dp.stderr) == (0, 0)
    assert (found.same_top.value, found.same_top.stderr) == (100, 0)
    assert found.ppl_correlation == pytest.approx(1)


def test_chunks_that_depend_on_one_another_show_in_the_error_over_chunks():
    """Tokens of a window alike: the error over tokens is too small by the root of the tokens of a window."""
    kld = np.repeat(np.random.default_rng(0).lognormal(0, 1, 50), 100)
    found = figures(TokenScores(kld, kld, kld, kld, kld), chunks=50)
    assert found.kld_chunk_err / found.kld.stderr == pytest.approx(10, rel=0.02)
