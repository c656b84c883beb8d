"""Verdicts on measurements with known windows."""

from dataclasses import replace

import pytest
from measurement_parts import MEASUREMENT, SIZE, measured

from quantplan.errors import BadUsage, ConditionsDiffer
from quantplan.evaluate.compare import MeasureOptions, check_options, compare_measurements
from quantplan.measurement import Estimate
from quantplan.records.formats import COMPARISONS


def test_a_plan_that_is_better():
    found = compare_measurements(["plan", "Q4_K_M"], [measured(0.64), measured(1, seed=2)])
    plan, rival = found.rows
    assert (plan.kld_ratio, plan.low, plan.high, plan.significant) == (1, 1, 1, False)
    assert rival.kld_ratio == pytest.approx(0.64, abs=0.05)
    assert rival.low < rival.kld_ratio < rival.high < 1 and rival.significant
    assert rival.chunks_needed is None
    percent = round(100 * (1 - rival.kld_ratio))
    assert found.verdict.startswith(f"At 6.74 MB the plan loses {percent} % less (KLD 0.00")
    assert "of Q4_K_M, 95 % interval" in found.verdict
    assert found.verdict.endswith("Measured on 16 chunks of 256 tokens.")


def test_a_plan_that_is_worse_is_said_to_be_worse():
    found = compare_measurements(["plan", "Q4_K_M"], [measured(1.2), measured(1, seed=2)])
    assert "the plan is WORSE than Q4_K_M: it loses" in found.verdict and "use Q4_K_M" in found.verdict
    assert found.rows[1].kld_ratio > 1


def test_files_that_are_not_significantly_different():
    found = compare_measurements(["plan", "Q4_K_M"], [measured(0.99, noise=0.2), measured(1, noise=0.2, seed=2)])
    rival = found.rows[1]
    assert not rival.significant and rival.low < 1 < rival.high and rival.chunks_needed > 16
    assert "the plan and Q4_K_M are not significantly different (KLD 0.00" in found.verdict
    assert f"about {rival.chunks_needed:,} chunks ({256 * rival.chunks_needed:,} tokens) of such text" in found.verdict
    assert "would decide, this text has 16)" in found.verdict


def test_the_same_file_twice():
    found = compare_measurements(["plan", "copy"], [measured(1), measured(1)])
    assert "the plan and copy have exactly the same KLD" in found.verdict


def test_the_best_of_those_that_fit_is_the_rival():
    others = [measured(1.5, size=SIZE - 100_000), measured(1.2), measured(0.3, size=SIZE + 100_000)]
    found = compare_measurements(["plan", "small", "same", "large"], [measured(1), *others])
    assert [row.larger for row in found.rows] == [False, False, False, True]
    assert "of same, 95 %" in found.verdict and "less" in found.verdict


def test_a_smaller_rival_is_said_to_be_smaller():
    found = compare_measurements(["plan", "Q4_K_S"], [measured(0.5), measured(1, size=round(SIZE * 0.95))])
    assert "of Q4_K_S, which is 5.0 % smaller" in found.verdict


def test_a_tenth_of_a_percent_more_is_still_the_same_size():
    found = compare_measurements(
        ["plan", "a", "b"], [measured(0.5), *(measured(1, size=round(SIZE * f)) for f in (1.0009, 1.0011))]
    )
    assert [row.larger for row in found.rows] == [False, False, True]


def test_only_larger_files():
    found = compare_measurements(["plan", "Q5_K_M"], [measured(1), measured(0.3, size=round(SIZE * 1.13))])
    assert found.verdict.startswith("No other file is as small as the plan's 6.74 MB.")
    assert "which is 13.0 % larger" in found.verdict


def test_a_rival_that_loses_nothing():
    nothing = replace(measured(1), kld=Estimate(0.0, 0.0), per_chunk_kld=(0.0,) * 16)
    found = compare_measurements(["plan", "copy"], [measured(1), nothing])
    assert "WORSE than copy, whose KLD is 0" in found.verdict
    assert COMPARISONS.encode(found)["rows"][1]["kld_ratio"] is None


def test_a_plan_alone():
    assert "measured alone" in compare_measurements(["plan"], [measured(1)]).verdict


def test_measurements_of_other_conditions_are_refused():
    other = replace(MEASUREMENT.conditions, engine="llama-perplexity")
    with pytest.raises(ConditionsDiffer, match="in-process / llama-perplexity"):
        compare_measurements(["plan", "other"], [measured(1), replace(measured(1), conditions=other)])


def test_one_chunk_is_refused_before_anything_runs():
    with pytest.raises(BadUsage, match="at least two chunks"):
        check_options(MeasureOptions(chunks=1))


def test_json_rows_carry_ratio_interval_and_all_figures():
    found = COMPARISONS.encode(compare_measurements(["plan", "Q4_K_M"], [measured(0.64), measured(1, seed=2)]))
    row = found["rows"][1]
    assert {"name", "file_bytes", "ppl", "kld", "kld_err", "kld_ratio", "rms_dp", "same_top"} <= row.keys()
    assert row["name"] == "Q4_K_M" and row["kld_ratio_low"] < row["kld_ratio"] < row["kld_ratio_high"]
    assert found["rows"][0]["kld_ratio"] == 1
