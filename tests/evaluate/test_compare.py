"""Verdicts on measurements with known windows."""

from dataclasses import replace

import numpy as np
import pytest
from test_measurement import MEASUREMENT

from quantplan.errors import BadUsage, ConditionsDiffer
from quantplan.evaluate.compare import MeasureOptions, check_options, judge
from quantplan.measurement import Estimate
from quantplan.records.comparison_files import comparison_fields

SIZE = 6_735_744
CHUNKS = np.random.default_rng(0).lognormal(-5, 0.3, 16)


def measured(factor, size=SIZE, noise=0.05, seed=1):
    """A file that loses ``factor`` times as much as the common windows."""
    chunks = CHUNKS * factor * np.random.default_rng(seed).lognormal(0, noise, len(CHUNKS))
    return replace(
        MEASUREMENT,
        file_bytes=size,
        kld=Estimate(chunks.mean(), 0.0001),
        per_chunk_kld=tuple(chunks.tolist()),
    )


def test_a_plan_that_is_better():
    found = judge(["plan", "Q4_K_M"], [measured(0.64), measured(1, seed=2)])
    plan, rival = found.rows
    assert (plan.kld_ratio, plan.low, plan.high, plan.significant) == (1, 1, 1, False)
    assert rival.kld_ratio == pytest.approx(0.64, abs=0.05)
    assert rival.low < rival.kld_ratio < rival.high < 1 and rival.significant
    assert rival.chunks_needed is None
    percent = round(100 * (1 - rival.kld_ratio))
    assert found.verdict.startswith(f"At 6.74 MB the plan loses {percent} % less (KLD 0.00")
    assert "of Q4_K_M, 95 % interval" in found.verdict
    assert found.verdict.endswith("Judged on 16 windows of 256 tokens.")


def test_a_plan_that_is_worse_is_said_to_be_worse():
    found = judge(["plan", "Q4_K_M"], [measured(1.2), measured(1, seed=2)])
    assert "the plan is WORSE than Q4_K_M: it loses" in found.verdict and "use Q4_K_M" in found.verdict
    assert found.rows[1].kld_ratio > 1


def test_files_that_cannot_be_told_apart():
    found = judge(["plan", "Q4_K_M"], [measured(0.99, noise=0.2), measured(1, noise=0.2, seed=2)])
    rival = found.rows[1]
    assert not rival.significant and rival.low < 1 < rival.high and rival.chunks_needed > 16
    assert "the plan and Q4_K_M cannot be told apart (KLD 0.00" in found.verdict
    assert f"about {rival.chunks_needed:,} windows ({256 * rival.chunks_needed:,} tokens) of such text" in found.verdict
    assert "would decide, this text gave 16)" in found.verdict


def test_the_same_file_twice():
    found = judge(["plan", "copy"], [measured(1), measured(1)])
    assert "the plan and copy lose exactly the same" in found.verdict


def test_the_best_of_those_that_fit_is_the_rival():
    others = [measured(1.5, size=SIZE - 100_000), measured(1.2), measured(0.3, size=SIZE + 100_000)]
    found = judge(["plan", "small", "same", "large"], [measured(1), *others])
    assert [row.larger for row in found.rows] == [False, False, False, True]
    assert "of same, 95 %" in found.verdict and "less" in found.verdict


def test_a_smaller_rival_is_said_to_be_smaller():
    found = judge(["plan", "Q4_K_S"], [measured(0.5), measured(1, size=round(SIZE * 0.95))])
    assert "of Q4_K_S, which is 5.0 % smaller" in found.verdict


def test_a_tenth_of_a_percent_more_is_still_the_same_size():
    found = judge(["plan", "a", "b"], [measured(0.5), *(measured(1, size=round(SIZE * f)) for f in (1.0009, 1.0011))])
    assert [row.larger for row in found.rows] == [False, False, True]


def test_only_larger_files():
    found = judge(["plan", "Q5_K_M"], [measured(1), measured(0.3, size=round(SIZE * 1.13))])
    assert found.verdict.startswith("No other file is as small as the plan's 6.74 MB.")
    assert "which is 13.0 % larger" in found.verdict


def test_a_rival_that_loses_nothing():
    nothing = replace(measured(1), kld=Estimate(0.0, 0.0), per_chunk_kld=(0.0,) * 16)
    found = judge(["plan", "copy"], [measured(1), nothing])
    assert "WORSE than copy, which loses nothing" in found.verdict
    assert comparison_fields(found)["rows"][1]["kld_ratio"] is None


def test_a_plan_alone():
    assert "stands alone" in judge(["plan"], [measured(1)]).verdict


def test_measurements_of_other_conditions_are_refused():
    other = replace(MEASUREMENT.conditions, engine="llama-perplexity")
    with pytest.raises(ConditionsDiffer, match="in-process / llama-perplexity"):
        judge(["plan", "other"], [measured(1), replace(measured(1), conditions=other)])


def test_one_chunk_is_refused_before_anything_runs():
    with pytest.raises(BadUsage, match="at least two windows"):
        check_options(MeasureOptions(chunks=1))


def test_json_rows_carry_ratio_interval_and_all_figures():
    found = comparison_fields(judge(["plan", "Q4_K_M"], [measured(0.64), measured(1, seed=2)]))
    row = found["rows"][1]
    assert {"name", "file_bytes", "ppl", "kld", "kld_err", "kld_ratio", "rms_dp", "same_top"} <= row.keys()
    assert row["name"] == "Q4_K_M" and row["kld_ratio_low"] < row["kld_ratio"] < row["kld_ratio_high"]
    assert found["rows"][0]["kld_ratio"] == 1
