"""A few probes that tell whether another model's sensitivity table holds."""

import math
from dataclasses import replace

import pytest
from model_parts import model_of
from reporters import Recorder
from tiny_models import fine_tuned

from quantplan.gguf.reader import read_model
from quantplan.planning.sensitivities import sensitivities
from quantplan.quant_type import parse_types
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity.sibling import SiblingCheck, SiblingProbe, check_sibling, spread_over_costs
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable


def check_of(*factors, error=0.0):
    """Tensors whose KLD in the table is so many times that measured."""
    pairs = ((factor * 2.0**-index, 2.0**-index) for index, factor in enumerate(factors))
    return SiblingCheck(tuple(SiblingProbe(f"t{index}", "Q4_K", *pair, error) for index, pair in enumerate(pairs)))


@pytest.mark.parametrize(
    "check, verdict",
    [
        (check_of(1, 1, 1, 1), "holds"),
        (check_of(3, 3, 3, 3), "holds"),  # the level is wrong, the order of tensors is not
        (check_of(1, 1.4, 1, 1.4), "holds"),
        (check_of(1, 2, 1, 2), "rough"),
        (check_of(1, 8, 1, 8), "fails"),
        (check_of(1, 2.5, 1, 2.5, error=0.5), "holds"),  # no more than the probes' own errors
        (check_of(1, 1), "unknown"),
        (check_of(), "unknown"),
    ],
)
def test_the_verdict(check, verdict):
    assert check.verdict == verdict
    assert check.fields()["verdict"] == verdict


def test_the_figures_in_words():
    check = check_of(2, 2, 2)
    assert check.ratio == 2 and check.spread == 0 and check.correlation == pytest.approx(1)
    assert "correlation of log KLD 1.000, table / measured 2.00 in sum, 1.00 times up or down" in check.in_words()
    assert math.isnan(check_of().ratio) and check_of().fields()["ratio"] is None
    assert "leave out --sensitivity" in check_of(1, 8, 1, 8).in_words()


def test_activation_quantization_that_shifted_is_said():
    probes = check_of(2, 2, 2).probes
    shifted = SiblingCheck(tuple(replace(probe, kernel=(0.01, 0.01)) for probe in probes))
    assert shifted.kernel_shift == pytest.approx(0.5) and shifted.verdict == "holds"
    assert "which the table has 2.0 times too small against the weights: for such files probe" in shifted.in_words()
    level = SiblingCheck(tuple(replace(probe, kernel=(0.02, 0.01)) for probe in probes))
    assert level.kernel_shift == pytest.approx(1) and "activation" not in level.in_words()
    assert math.isnan(check_of(2, 2, 2).kernel_shift)


def test_tensors_are_spread_over_the_costs():
    shapes = {f"blk.{block}.ffn_up.weight": (256, 256) for block in range(9)}
    model = model_of(shapes, blocks=9)
    rows = {name: SensitivityRow(name, {"Q4_K": 0.5**at, "Q8_0": 1e-6}) for at, name in enumerate(shapes)}
    rows["blk.8.ffn_up.weight"] = SensitivityRow("blk.8.ffn_up.weight", {"Q4_K": 0.0})  # costs nothing: tells nothing
    chosen = spread_over_costs(SensitivityTable("", rows), model, None, 3)
    assert [tensor.block for tensor in chosen] == [0, 4, 7]
    assert {kind.name for kind in chosen.values()} == {"Q4_K"}
    assert len(spread_over_costs(SensitivityTable("", rows), model, None, 100)) == 8


@pytest.fixture(scope="module")
def sibling(case, tmp_path_factory):
    return read_model(fine_tuned(case.model.path, tmp_path_factory.mktemp("sibling") / "tuned.gguf"))


def test_a_table_holds_for_a_sibling_and_a_wrong_one_does_not(case, priced, sibling, tmp_path):
    """The same swaps as a probe of the sibling makes, and nothing of it is mistaken for a whole probe."""
    options = SensitivityOptions(parse_types("k"), case.options, sample_elements=1 << 16, compensate=False)
    table, given = priced[0].table, (sibling, case.imatrix, case.text, options, 5, tmp_path)
    check = check_sibling(table, *given)
    assert len(check.probes) == 5 and check.verdict == "holds" and check.correlation > 0.97
    assert 0.7 < check.ratio < 1.4
    rows = {
        name: replace(row, weights={kind: value * 9 ** (at % 2) for kind, value in row.weights.items()})
        for at, (name, row) in enumerate(table.rows.items())
    }
    assert check_sibling(replace(table, rows=rows), *given).verdict == "fails"


def test_sensitivities_from_the_table_of_a_sibling(case, priced, sibling, tmp_path):
    SENSITIVITY_TABLES.write(priced[0].table, tmp_path / "base.json")
    options = SensitivityOptions(parse_types("k"), case.options, 1 << 16, compensate=False, sibling_probes=4)
    told, given = Recorder(), {"imatrix": case.imatrix, "options": options, "cache": tmp_path / "cache"}
    table = sensitivities(sibling, tmp_path / "base.json", calibration=case.text, report=told, **given)
    assert table.model_digest == sibling.digest and table.made_from["sibling"]["check"]["verdict"] == "holds"
    assert any(
        "measured on tied.gguf, a model of the same names" in text and "table holds" in text for text in told.said
    )
    unchecked = sensitivities(sibling, tmp_path / "base.json", report=told, **given)
    assert "check" not in unchecked.made_from["sibling"] and "not checked on this one: give" in told.said[-1]
