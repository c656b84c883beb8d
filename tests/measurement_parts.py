"""Made-up measurements: one of a file, and files of known KLDs per chunk."""

from dataclasses import replace

import numpy as np

from quantplan.measurement import PERCENTILES, Conditions, Estimate, Measurement

SIZE = 6_735_744
CHUNKS = np.random.default_rng(0).lognormal(-5, 0.3, 16)
CONDITIONS = Conditions("a" * 64, 256, 16, "b" * 64, "in-process", "cpu", "llama-cpp-python 0.3.36")
MEASUREMENT = Measurement(
    file="a.gguf",
    model_digest="c" * 64,
    file_bytes=6_735_744,
    bpw=5.11,
    conditions=CONDITIONS,
    ppl=Estimate(37.7, 2.4),
    base_ppl=Estimate(37.4, 2.4),
    ln_ppl_ratio=Estimate(0.0077, 0.0033),
    ppl_correlation=0.998,
    kld=Estimate(0.00895, 0.00019),
    kld_chunk_err=0.0005,
    kld_median=0.0069,
    kld_maximum=0.09,
    kld_percentiles={each: each / 1000 for each in PERCENTILES},
    delta_p=Estimate(-0.13, 0.07),
    rms_dp=Estimate(2.1, 0.1),
    same_top=Estimate(94.0, None),
    per_chunk_kld=(0.009, 0.0089),
    per_chunk_nll=(3.5, 3.6),
    per_chunk_base_nll=(3.4, 3.5),
)


def measured(factor, size=SIZE, noise=0.05, seed=1):
    """A file whose KLD is about ``factor`` times that of the common chunks."""
    chunks = CHUNKS * factor * np.random.default_rng(seed).lognormal(0, noise, len(CHUNKS))
    return replace(
        MEASUREMENT, file_bytes=size, kld=Estimate(chunks.mean(), 0.0001), per_chunk_kld=tuple(chunks.tolist())
    )
