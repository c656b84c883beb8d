"""Errors and intervals from drawing windows anew: against theory, and by how often they hold the truth."""

import numpy as np
import pytest

from quantplan.evaluate.bootstrap import chunks_needed, mean_error, paired_difference, ratio_interval


def pair(seed, chunks=16, change=0.9, noise=0.2):
    """Losses of two files on the same windows: hard windows are hard for both."""
    random = np.random.default_rng(seed)
    common = random.lognormal(0, 0.5, chunks)
    return tuple(common * factor * random.lognormal(-(noise**2) / 2, noise, chunks) for factor in (change, 1.0))


def test_the_error_of_a_mean_is_the_one_of_theory():
    values = np.random.default_rng(0).lognormal(0, 1, 40)
    assert mean_error(values) == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=0.03)


def test_pairing_takes_out_what_both_share():
    a, b = pair(0, chunks=200)
    assert paired_difference(a, b).stderr < 0.6 * np.hypot(mean_error(a), mean_error(b))


def test_the_same_chunks_give_the_same_answer():
    assert paired_difference(*pair(1)) == paired_difference(*pair(1))
    assert ratio_interval(*pair(1)) == ratio_interval(*pair(1))


def test_swapping_the_files_turns_the_answer_round():
    a, b = pair(2)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.difference, there.p) == (-back.difference, back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    ratio, inverse = ratio_interval(a, b), ratio_interval(b, a)
    assert (ratio.low, ratio.high) == pytest.approx((1 / inverse.high, 1 / inverse.low))


@pytest.mark.parametrize("chunks", [8, 32])
def test_intervals_hold_the_truth_about_95_times_of_100(chunks):
    held, held_ratio, trials = 0, 0, 400
    truth = np.exp(0.5**2 / 2) * (0.9 - 1)
    for seed in range(trials):
        a, b = pair(seed, chunks)
        difference, ratio = paired_difference(a, b, 600), ratio_interval(a, b, 600)
        held += difference.low <= truth <= difference.high
        held_ratio += ratio.low <= 0.9 <= ratio.high
    assert 0.91 <= held / trials <= 0.985
    assert 0.91 <= held_ratio / trials <= 0.985


def test_p_is_small_exactly_where_the_interval_leaves_out_nothing():
    clear, unclear = paired_difference(*pair(3, 64, change=0.5)), paired_difference(*pair(3, 8, change=1.0))
    assert clear.decided and clear.p < 1e-6
    assert not unclear.decided and unclear.p > 0.05


def test_files_that_are_alike():
    a, _ = pair(4)
    same = paired_difference(a, a)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1) and not same.decided
    assert ratio_interval(a, a) == ratio_interval(a, a.copy())
    assert (ratio_interval(a, a).low, ratio_interval(a, a).high) == (1, 1)
    assert chunks_needed(a, a) is None


def test_a_file_that_loses_nothing():
    a, _ = pair(5)
    assert ratio_interval(np.zeros(16), a).ratio == 0
    assert ratio_interval(a, np.zeros(16)).low == np.inf


def test_as_many_chunks_as_are_said_to_be_needed_decide():
    """Of many texts with that number of windows, about half decide: the gap is then two errors wide."""
    needed = chunks_needed(*pair(6, 5000, change=0.98))
    decided = [paired_difference(*pair(seed, needed, change=0.98), 400).decided for seed in range(100, 200)]
    assert 20 < needed < 5000
    assert 0.3 < np.mean(decided) < 0.75
    more = [paired_difference(*pair(seed, 4 * needed, change=0.98), 400).decided for seed in range(50)]
    assert np.mean(more) > 0.9


@pytest.mark.parametrize("values", [[1.0], [[1.0, 2.0]], []])
def test_one_chunk_tells_nothing(values):
    with pytest.raises(ValueError, match="at least two windows"):
        mean_error(np.array(values))


def test_chunks_must_be_the_same():
    with pytest.raises(ValueError, match="16 and 15 windows cannot be paired"):
        paired_difference(np.ones(16), np.ones(15))
