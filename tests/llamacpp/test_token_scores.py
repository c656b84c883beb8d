"""Scores of tokens against the textbook formula in extended precision."""

import numpy as np
import pytest

from quantplan.llamacpp import token_scores as scoring
from quantplan.llamacpp.token_scores import base_rows, divergence, token_scores

ROWS, VOCABULARY = 96, 4096


def textbook(base, other):
    """KL(base || other) per row from log-probabilities, in the longest float there is."""
    log_p, log_q = (
        x - x.max(1, keepdims=True) - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True))
        for x in (base.astype(np.longdouble), other.astype(np.longdouble))
    )
    return (np.exp(log_p) * (log_p - log_q)).sum(1).astype(float)


@pytest.fixture(scope="module")
def base():
    return np.random.default_rng(0).normal(0, 3, (ROWS, VOCABULARY)).astype(np.float32)


def disturbed(base, size, shift=0.3):
    """Other logits; a shift of all of them changes no probability."""
    return base + np.random.default_rng(1).normal(shift, size, base.shape).astype(np.float32)


@pytest.mark.parametrize("size", [1e-3, 1e-2, 0.03, 0.1, 0.3, 1, 5, 30])
def test_divergence_of_every_size_is_right_to_one_in_a_million(base, size):
    other = disturbed(base, size)
    expected = textbook(base, other)
    assert divergence(base_rows(base), other) == pytest.approx(expected, rel=1e-6)
    assert divergence(base_rows(base), other).mean() == pytest.approx(expected.mean(), rel=1e-7)


def test_a_ten_billionth_of_a_nat_is_not_lost(base):
    other = disturbed(base, 1e-5, shift=0)
    expected = textbook(base, other)
    assert 1e-11 < expected.mean() < 1e-10
    assert divergence(base_rows(base), other).mean() == pytest.approx(expected.mean(), rel=1e-5)


def test_equal_rows_diverge_by_exactly_nothing(base):
    assert (divergence(base_rows(base), base.copy()) == 0).all()
    assert divergence(base_rows(base), base + 1).max() < 1e-12


def test_differences_beyond_the_range_of_float32_are_still_right(base):
    other = base.copy()
    other[::2, 7] += 120
    expected = textbook(base, other)
    assert expected[0] > 90
    assert divergence(base_rows(base), other)[::2] == pytest.approx(expected[::2], rel=1e-9)
    assert (divergence(base_rows(base), other)[1::2] == 0).all()


def test_tokens_that_cannot_come_in_either_do_not_count(base):
    masked, other = base.copy(), disturbed(base, 0.1)
    masked[:, :5] = other[:, :5] = -np.inf
    found = divergence(base_rows(masked), other)
    assert found == pytest.approx(textbook(masked[:, 5:], other[:, 5:]), rel=1e-6)
    assert (divergence(base_rows(masked), masked.copy()) == 0).all()


def test_broken_logits_are_not_taken_for_numbers(base):
    other = base.copy()
    other[3, 10] = np.nan
    found = divergence(base_rows(base), other)
    assert np.isnan(found[3]) and np.isfinite(np.delete(found, 3)).all()


def test_chunks_that_do_not_lie_together_score_as_rows_do(base):
    """The engine hands out [windows, positions, vocabulary] with a position left out of each window."""
    chunks = disturbed(base, 0.2).reshape(4, ROWS // 4, VOCABULARY)
    rows = chunks[:, :-1].reshape(-1, VOCABULARY)
    own = base_rows(base.reshape(chunks.shape)[:, :-1])
    assert (own.logits == base.reshape(chunks.shape)[:, :-1].reshape(-1, VOCABULARY)).all()
    assert (divergence(own, chunks[:, :-1]) == divergence(own, rows)).all()
    targets = np.arange(len(rows)) % VOCABULARY
    by_chunks, by_rows = (token_scores(own, each, targets) for each in (chunks[:, :-1], rows))
    for name in ("nll", "base_nll", "kld", "delta_p", "same_top"):
        assert (getattr(by_chunks, name) == getattr(by_rows, name)).all()


def test_rows_that_fill_many_blocks(monkeypatch, base):
    expected = divergence(base_rows(base), disturbed(base, 0.1))
    monkeypatch.setattr(scoring, "BLOCK_VALUES", 3 * VOCABULARY)
    assert len(list(scoring.row_blocks(base))) == ROWS // 3
    assert divergence(base_rows(base), disturbed(base, 0.1)) == pytest.approx(expected, rel=1e-6)


def test_token_scores_by_hand(base):
    other = disturbed(base, 0.5)
    targets = np.random.default_rng(2).integers(0, VOCABULARY, ROWS)
    found = token_scores(base_rows(base), other, targets)
    nll, base_nll = (
        np.log(np.exp(x.astype(np.longdouble)).sum(1)) - x[np.arange(ROWS), targets] for x in (other, base)
    )
    assert found.nll == pytest.approx(nll.astype(float), abs=1e-6)
    assert found.base_nll == pytest.approx(base_nll.astype(float), abs=1e-6)
    assert found.delta_p == pytest.approx((np.exp(-nll) - np.exp(-base_nll)).astype(float), abs=1e-6)
    assert (found.same_top == (other.argmax(1) == base.argmax(1))).all()
    assert (found.kld == divergence(base_rows(base), other)).all()


def test_log_sum_exp_of_large_logits():
    rows = np.array([[1000.0, 1000.0], [-1000.0, -1000.0]], np.float32)
    assert base_rows(rows).log_sum == pytest.approx([1000 + np.log(2), -1000 + np.log(2)], rel=1e-9)


def test_base_rows_go_where_they_are_told(base):
    room = np.empty_like(base)
    rows = base_rows(base, room)
    assert rows.logits is room and (room == base).all()
