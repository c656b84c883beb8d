"""The correction of a damage table on made-up files whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from quantplan.quant_type import BY_NAME
from quantplan.run.correction import BITS, LEVEL, Observed, corrected, correction, uncertainty
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable

TYPES = ("Q2_K", "IQ3_S", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
ROLES = ("attn_q", "attn_v", "ffn_down", "ffn_up")
NAMES = [f"blk.{block}.{role}.weight" for block in range(12) for role in ROLES]


def table_of(relative_error=0.1, interaction_error=0.05, seed=0) -> SensitivityTable:
    random = np.random.default_rng(seed)
    rows = {}
    for name, scale in zip(NAMES, random.lognormal(-3, 1, len(NAMES)), strict=True):
        weights = {kind: float(scale * 4.0 ** -BY_NAME[kind].bits) for kind in TYPES}
        kernel = {kind: float(scale * 2e-5) for kind in TYPES}
        rows[name] = SensitivityRow(name, weights, kernel, relative_error, "probed")
    return SensitivityTable("digest", rows, Interaction(1.0, 0.5, interaction_error), "cpu", True)


def files(count, seed=1):
    """Assignments around 3 to 5 bits, each its own mixture."""
    random = np.random.default_rng(seed)
    chances = [random.dirichlet(np.ones(len(TYPES))) for _ in range(count)]
    return [dict(zip(NAMES, random.choice(TYPES, len(NAMES), p=each), strict=True)) for each in chances]


def observed(truth: SensitivityTable, assignments, noise=0.0, chunks=64, seed=2):
    """What files lose by the true table, on windows that are hard or easy for all alike; ``noise``: of each by itself."""
    random = np.random.default_rng(seed)
    common = random.lognormal(0, 0.5, chunks)
    found = []
    for types in assignments:
        own = common * random.lognormal(0, noise, chunks)
        found.append(Observed(types, tuple(truth.predict(types)[0] * own)))
    return found


def with_factor(table: SensitivityTable, factor) -> SensitivityTable:
    """``factor(tensor, type)`` on the weights' part."""
    rows = {
        name: replace(row, weights={kind: value * factor(name, kind) for kind, value in row.weights.items()})
        for name, row in table.rows.items()
    }
    return replace(table, rows=rows)


def test_without_files_the_table_stays_as_it_is():
    table = table_of()
    found = correction(table, [])
    assert corrected(table, found).rows == table.rows
    assert corrected(table, found).interaction == table.interaction
    assert not any(found.types.values()) and not any(found.rows.values())


def test_what_was_predicted_changes_nothing():
    table = table_of()
    found = correction(table, observed(table, files(6)))
    level = np.log(np.random.default_rng(2).lognormal(0, 0.5, 64).mean())
    assert found.types[LEVEL] == pytest.approx(level, abs=0.02)
    others = [value for name, value in found.types.items() if name != LEVEL]
    assert np.abs([*others, *found.rows.values()]).max() < 0.01


def test_a_text_that_is_harder_for_all_moves_the_level_only():
    table = table_of()
    harder = replace(table, interaction=replace(table.interaction, factor=1.2))
    plain, found = (correction(table, observed(truth, files(6))) for truth in (table, harder))
    assert found.types[LEVEL] - plain.types[LEVEL] == pytest.approx(np.log(1.2), abs=0.02)
    assert found.types[BITS] == pytest.approx(plain.types[BITS], abs=0.005)


def test_measurements_that_say_little_change_little():
    table = table_of()
    truth = with_factor(table, lambda _, kind: float(np.exp(-0.2 * (BY_NAME[kind].bits - 4))))
    sure = correction(table, observed(truth, files(4), noise=0.01))
    unsure = correction(table, observed(truth, files(4), noise=1.0, chunks=8))
    assert abs(sure.types[BITS]) > 0.05
    assert abs(unsure.types[BITS]) < 0.3 * abs(sure.types[BITS])
    assert unsure.type_errors[BITS] > 0.9 * uncertainty(table)


@pytest.mark.parametrize("slope", [-0.15, 0.1])
def test_super_and_sub_additivity_by_bits_is_recovered(slope):
    table = table_of(relative_error=0.02, interaction_error=0.15)
    truth = with_factor(table, lambda _, kind: float(np.exp(slope * (BY_NAME[kind].bits - 4))))
    found = correction(table, observed(truth, files(12), noise=0.02))
    assert found.types[BITS] == pytest.approx(slope, rel=0.35)
    assert abs(found.types[BITS] - slope) < 3 * found.type_errors[BITS]
    assert found.type_errors[BITS] < 0.5 * uncertainty(table)


def test_a_family_that_costs_more_is_found_and_shrunk():
    table = table_of(relative_error=0.02, interaction_error=0.1)
    truth = with_factor(table, lambda _, kind: 1.3 if BY_NAME[kind].family == "iq" else 1.0)
    found = correction(table, observed(truth, files(12), noise=0.02))
    assert 0.05 < found.types["iq"] < np.log(1.3)
    assert found.weights_factor(NAMES[0], "IQ3_S") > 1.05 * found.weights_factor(NAMES[0], "Q3_K")


def test_rows_that_cost_more_than_probed_are_told_by_who_leans_on_them():
    """The first six tensors cost half as much again: the files that spare them lose less than predicted."""
    table = table_of(relative_error=0.3)
    dear = set(NAMES[:6])
    truth = with_factor(table, lambda name, _: 1.5 if name in dear else 1.0)
    lean = {name: "Q2_K" if name in dear else "Q5_K" for name in NAMES}
    spare = {name: "Q6_K" if name in dear else "Q4_K" for name in NAMES}
    found = correction(table, observed(truth, [lean, spare], noise=0.01))
    dears, others = ([found.rows[name] for name in NAMES if (name in dear) == wanted] for wanted in (True, False))
    assert max(dears) > 0.03 and np.mean(dears) > np.mean(others) + 0.02
    assert max(dears) < np.log(1.5)
    assert all(found.row_errors[name] <= 0.3 + 1e-9 for name in NAMES)


def test_corrected_predictions_are_nearer_to_what_is_measured():
    table = table_of(relative_error=0.2, interaction_error=0.1)
    random = np.random.default_rng(5)
    drawn = dict(zip(NAMES, random.lognormal(0, 0.2, len(NAMES)), strict=True))
    truth = with_factor(table, lambda name, kind: drawn[name] * float(np.exp(-0.1 * (BY_NAME[kind].bits - 4))))
    seen, unseen = files(8), files(6, seed=9)
    better = corrected(table, correction(table, observed(truth, seen, noise=0.02)))
    level = [np.log(truth.predict(types)[0]) for types in unseen]

    def spread(one):
        """Of the errors in the logarithm, their common level aside."""
        return np.std(np.array([np.log(one.predict(types)[0]) for types in unseen]) - level)

    assert spread(better) < 0.7 * spread(table)
    assert "corrected_by" in better.made_from


def test_files_of_other_chunks_are_refused():
    table = table_of()
    (one,) = observed(table, files(1))
    with pytest.raises(ValueError, match="different chunks"):
        correction(table, [one, replace(one, klds=one.klds[:-1])])
    with pytest.raises(ValueError, match="fewer than two"):
        correction(table, [replace(one, klds=one.klds[:1])])
