"""Chunks where a file breaks: found by a rule that the spikes themselves do not move, and that noise does not meet."""

import numpy as np
import pytest

from quantplan.spikes import LEAST_CHUNKS, Spike, find_spikes

USUAL = (0.010, 0.012, 0.009, 0.011, 0.010, 0.013, 0.008, 0.011, 0.010, 0.012)


def test_the_worst_comes_first():
    klds = (*USUAL[:4], 1.5, *USUAL[4:], 0.4)
    found = find_spikes(klds)
    assert [(spike.chunk, spike.kld) for spike in found] == [(5, 1.5), (12, 0.4)]
    assert found[0].ratio == pytest.approx(1.5 / np.median(klds))


def test_many_spikes_do_not_hide_one_another():
    klds = [*USUAL, 0.5, 0.6, 0.7]
    assert {spike.chunk for spike in find_spikes(klds)} == {11, 12, 13}


@pytest.mark.parametrize(
    "klds",
    [
        (),
        (0.0,) * 20,  # a file against itself
        USUAL,
        (*USUAL, 0.029),  # not three times the median
        (*USUAL[: LEAST_CHUNKS - 2], 9.0),  # too few to say what is usual
        (float("inf"),) * 10,
        np.exp(np.linspace(-2, 2, 40)),  # a broad distribution: its largest is no outlier
    ],
)
def test_what_is_no_spike(klds):
    assert find_spikes(klds) == ()


def test_equal_chunks_and_one_that_is_not():
    assert find_spikes([0.01] * 9 + [0.031]) == (Spike(10, 0.031, pytest.approx(3.1)),)
    assert find_spikes([0.01] * 9 + [0.029]) == ()


def test_noise_has_none():
    """Log-normal KLDs as broad as those of real files (0.2 to 0.6): in 100,000 chunks not one."""
    random = np.random.default_rng(0)
    for sigma in (0.2, 0.4, 0.6):
        assert sum(len(find_spikes(random.lognormal(-4, sigma, 100).tolist())) for _ in range(333)) == 0
