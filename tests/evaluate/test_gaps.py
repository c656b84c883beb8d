"""Differences and whether chance explains them, on data whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from quantplan.evaluate.gaps import average_gap, chunks_gap, speed_gap, tasks_gap


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


def test_chance_alone_decides_seldom():
    """Two files that answer by tossing the same coin: at most 5 in 100 are told apart (the exact test is careful)."""
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
