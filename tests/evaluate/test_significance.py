"""Differences and whether they are significant: against theory, and by how often intervals hold a known truth."""

from dataclasses import replace

import numpy as np
import pytest
from measurement_parts import MEASUREMENT
from scipy import stats

from quantplan.evaluate.significance import (
    average_gap,
    chunks_gap,
    chunks_needed,
    kld_gap,
    outcomes_gap,
    paired_difference,
    ratio_interval,
    speed_gap,
    tasks_gap,
)


def pair(seed, chunks=16, change=0.9, noise=0.2):
    """KLDs of two files on the same chunks: hard chunks are hard for both."""
    random = np.random.default_rng(seed)
    common = random.lognormal(0, 0.5, chunks)
    return tuple(common * factor * random.lognormal(-(noise**2) / 2, noise, chunks) for factor in (change, 1.0))


def test_pairing_takes_out_what_both_share():
    a, b = pair(0, chunks=200)
    assert paired_difference(a, b).stderr < 0.6 * np.hypot(stats.sem(a), stats.sem(b))


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
        difference, ratio = paired_difference(a, b), ratio_interval(a, b)
        held += difference.low <= truth <= difference.high
        held_ratio += ratio.low <= 0.9 <= ratio.high
    assert 0.91 <= held / trials <= 0.985
    assert 0.91 <= held_ratio / trials <= 0.985


def test_p_is_small_exactly_where_the_interval_leaves_out_zero():
    clear, unclear = paired_difference(*pair(3, 64, change=0.5)), paired_difference(*pair(3, 8, change=1.0))
    assert clear.significant and clear.p < 1e-6
    assert not unclear.significant and unclear.p > 0.05


def test_the_interval_of_the_ratio_holds_1_where_the_difference_is_not_significant():
    for seed in range(200):
        a, b = pair(seed, 12, change=0.95)
        ratio = ratio_interval(a, b)
        assert paired_difference(a, b).significant == (not ratio.low <= 1 <= ratio.high)


def test_two_chunks_may_leave_a_ratio_open():
    ratio = ratio_interval([1.0, 2.0], [0.5, 3.0])
    assert (ratio.low, ratio.high) == (0, np.inf)


def test_measurements_that_do_not_compare():
    other = replace(MEASUREMENT, conditions=replace(MEASUREMENT.conditions, n_ctx=512))
    assert kld_gap(MEASUREMENT, other) is None
    assert kld_gap(MEASUREMENT, replace(MEASUREMENT, per_chunk_kld=())) is None
    assert kld_gap(MEASUREMENT, MEASUREMENT).difference == 0


def test_files_that_are_alike():
    a, _ = pair(4)
    same = paired_difference(a, a)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1) and not same.significant
    assert ratio_interval(a, a) == ratio_interval(a, a.copy())
    assert (ratio_interval(a, a).low, ratio_interval(a, a).high) == (1, 1)
    assert chunks_needed(a, a) is None


def test_a_file_that_loses_nothing():
    a, _ = pair(5)
    assert ratio_interval(np.zeros(16), a).ratio == 0
    assert ratio_interval(a, np.zeros(16)).low == np.inf


def test_as_many_chunks_as_are_said_to_be_needed_decide():
    """Of many texts with that number of chunks, about half are significant: the gap is then two errors wide."""
    needed = chunks_needed(*pair(6, 5000, change=0.98))
    decided = [paired_difference(*pair(seed, needed, change=0.98)).significant for seed in range(100, 200)]
    assert 20 < needed < 5000
    assert 0.3 < np.mean(decided) < 0.75
    more = [paired_difference(*pair(seed, 4 * needed, change=0.98)).significant for seed in range(50)]
    assert np.mean(more) > 0.9


@pytest.mark.parametrize("values", [[1.0], [[1.0, 2.0]], []])
def test_one_chunk_tells_nothing(values):
    with pytest.raises(ValueError, match="at least two chunks"):
        paired_difference(np.array(values), np.array(values))


def test_chunks_must_be_the_same():
    with pytest.raises(ValueError, match="16 and 15 chunks cannot be paired"):
        paired_difference(np.ones(16), np.ones(15))


def outcomes(count, share, seed):
    return tuple(bool(each) for each in np.random.default_rng(seed).random(count) < share)


def test_chunks():
    random = np.random.default_rng(0)
    common, more = random.lognormal(-5, 0.5, 40), random.normal(0.001, 0.0005, 40)
    gap = chunks_gap(common + more, common)
    assert gap.difference == pytest.approx(more.mean()) and gap.decided and gap.needed is None
    assert gap.low < gap.difference < gap.high
    open_ = chunks_gap(common + random.normal(0.00002, 0.0005, 40), common)
    assert not open_.decided and open_.low < 0 < open_.high and open_.needed > 40


def test_the_same_chunks():
    values = np.random.default_rng(0).lognormal(-5, 0.5, 8)
    assert chunks_gap(values, values).needed is None and not chunks_gap(values, values).decided


def test_tasks_are_paired():
    """Two files at 60 %: which of the tasks they solved tells what their percentages cannot."""
    base = outcomes(750, 0.6, 1)
    better = tuple(each or index % 40 == 0 for index, each in enumerate(base))
    gained = sum(better) - sum(base)
    gap = tasks_gap(better, base)
    assert gap.difference == pytest.approx(100 * gained / 750) and 0 < gained < 15
    assert gap.decided == (2 * 0.5**gained < 0.05)  # McNemar: so many heads in a row
    alone = 1.96 * 100 * (0.24 * 2 / 750) ** 0.5
    assert gap.difference < alone  # unpaired, nobody could tell


def test_mcnemar_by_hand():
    base, other = (True,) * 5 + (False,) * 7, (False,) * 5 + (True,) * 7
    assert not tasks_gap(other, base).decided and stats.binomtest(7, 12).pvalue > 0.05
    assert tasks_gap((True,) * 6, (False,) * 6).decided and not tasks_gap((True,) * 5, (False,) * 5).decided
    alike = tasks_gap(base, base)
    assert (alike.difference, alike.decided, alike.needed) == (0, False, None)


@pytest.mark.parametrize(
    ("won", "lost", "count", "low", "high"),
    [
        (0, 0, 40, -0.0876, 0.0876),
        (40, 0, 40, 0.8248, 1.0),
        (15, 7, 85, -0.0149, 0.2053),
        (300, 200, 1000, 0.0564, 0.1432),
    ],
)
def test_the_interval_of_paired_outcomes(won, lost, count, low, high):
    """Of no task that differs z^2 / (n + z^2); else where the score statistic is z."""
    file = (True,) * won + (False,) * (count - won)
    other = (False,) * won + (True,) * lost + (False,) * (count - won - lost)
    gap = outcomes_gap(file, other)
    assert (gap.low, gap.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    mirrored = outcomes_gap(other, file)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-high, abs=1e-4), pytest.approx(-low, abs=1e-4))


def test_the_interval_holds_0_where_the_exact_test_does_not_reject_it():
    gap = outcomes_gap((True,) * 5 + (False,) * 35, (False,) * 40)
    assert not gap.decided and gap.low == 0 and gap.high > 0.2


def test_intervals_of_outcomes_hold_the_truth():
    random, held = np.random.default_rng(1), 0
    for _ in range(400):
        drawn = random.choice(3, 60, p=[0.15, 0.05, 0.8])
        gap = outcomes_gap(drawn == 0, drawn == 1)
        held += gap.low <= 0.1 <= gap.high
    assert held >= 0.92 * 400


def test_chance_alone_decides_seldom():
    """Two files that answer by tossing the same coin: at most 5 in 100 differ significantly (the exact test is careful)."""
    found = [tasks_gap(outcomes(100, 0.5, seed), outcomes(100, 0.5, seed + 1000)).decided for seed in range(300)]
    assert sum(found) <= 0.07 * len(found)


def test_average_of_kinds():
    pairs = [(outcomes(400, 0.7, 1), outcomes(400, 0.5, 2)), (outcomes(400, 0.6, 3), outcomes(400, 0.6, 4))]
    gap = average_gap(pairs)
    each = [100 * (np.mean(own) - np.mean(other)) for own, other in pairs]
    assert gap.difference == pytest.approx(np.mean(each))
    errors = [np.std(100.0 * np.array(a) - 100.0 * np.array(b), ddof=1) / 20 for a, b in pairs]
    assert gap.high - gap.difference == pytest.approx(1.96 * np.hypot(*errors) / 2, rel=1e-3)
    assert gap.decided == (abs(gap.difference) > 1.96 * np.hypot(*errors) / 2)


def test_a_single_kind_is_its_own_average():
    pair = outcomes(100, 0.7, 1), outcomes(100, 0.5, 2)
    assert average_gap([pair]) == tasks_gap(*pair)


def test_one_task_of_a_kind_decides_nothing():
    assert not average_gap([((True,), (False,))]).decided and not tasks_gap((True,), (False,)).decided


def test_speeds():
    fast, slow = [103.0, 103.2, 102.9, 103.1, 103.0], [100.0, 100.1, 99.9, 100.0, 100.1]
    gap = speed_gap(fast, slow)
    assert gap.decided and gap.difference == pytest.approx(3.02)
    assert not speed_gap([each + 2 for each in slow], slow).decided  # 2 %: a minute later it may be the other way round
    welch = stats.ttest_ind(fast, slow, equal_var=False).confidence_interval()
    assert gap.low < welch.low < welch.high < gap.high


def test_speeds_measured_once():
    assert speed_gap([110.0], [100.0]).decided and not speed_gap([102.0], [100.0]).decided


@pytest.mark.parametrize("chunks", [2, 3])
def test_too_few_chunks_have_no_interval(chunks):
    a, b = (1.0, 1.1, 1.2)[:chunks], (0.5, 0.55, 0.52)[:chunks]
    gap, ratio = chunks_gap(a, b), ratio_interval(a, b)
    assert (gap.low, gap.high, gap.decided, gap.needed) == (-np.inf, np.inf, False, 4)
    assert (ratio.low, ratio.high) == (0.0, np.inf) and ratio.ratio == pytest.approx(sum(a) / sum(b))
    assert chunks_gap(a, a).needed is None and ratio_interval(a, a).low == 1  # nothing to be uncertain about
    four = chunks_gap((1.0, 1.1, 1.2, 1.1), (0.5, 0.55, 0.52, 0.5))
    assert four.decided and np.isfinite((four.low, four.high)).all()
