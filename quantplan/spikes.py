"""Spikes: chunks of a text where a file breaks, though the mean over all chunks hides it.

KLDs of chunks are about log-normal, so they are looked at as logarithms, and by median and median absolute deviation, which the
spikes themselves do not move.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LEAST_CHUNKS = 8  # of fewer nobody can say what is usual
LEAST_RATIO = 3.0  # of a spike's KLD over the median chunk's
SIGMAS = 6.0  # above the median, of the logarithms; the estimate of one is 12 % off for 100 chunks
_SIGMA = 1.4826  # median absolute deviation to standard deviation, of a normal distribution


@dataclass(frozen=True)
class Spike:
    """``chunk``: its number in the text, from 1. ``kld``: its mean, in nats per token; ``ratio``: over the median chunk's.

    ``line`` and ``words``: where its scored half begins in the text, and how; None and empty where the text is not at hand.
    ``domain``: which text that is, where there are several.
    """

    chunk: int
    kld: float
    ratio: float
    line: int | None = None
    words: str = ""
    domain: str = ""


def find_spikes(per_chunk_kld: Sequence[float]) -> tuple[Spike, ...]:
    """Chunks whose KLD is at least LEAST_RATIO times the median and SIGMAS robust standard deviations of its logarithm above it,
    the worst first. None of fewer than LEAST_CHUNKS chunks.
    """
    usual = median(per_chunk_kld) if len(per_chunk_kld) >= LEAST_CHUNKS else 0.0
    if not 0 < usual < math.inf:
        return ()
    distances = [math.log(max(kld / usual, 1e-9)) for kld in per_chunk_kld]
    sigma = _SIGMA * median(map(abs, distances))
    least = max(math.log(LEAST_RATIO), SIGMAS * sigma)
    found = [
        Spike(number, kld, kld / usual)
        for number, (kld, distance) in enumerate(zip(per_chunk_kld, distances, strict=True), 1)
        if distance >= least
    ]
    return tuple(sorted(found, key=lambda spike: -spike.kld))
