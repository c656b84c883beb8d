import math

import pytest
from model_parts import model_of

from quantplan.errors import BadFile, ModelMismatch, NothingSelected
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable

ROWS = {
    "a": SensitivityRow("a", {"Q4_K": 0.01, "Q8_0": 0.001}, {"Q4_K": 0.002}, 0.1, "probed"),
    "b": SensitivityRow("b", {"Q4_K": 0.03}, {}, 0.2, "borrowed"),
}


def test_a_sum_with_independent_errors():
    table = SensitivityTable("digest", ROWS)
    kld, error = table.predict({"a": "Q4_K", "b": "Q4_K"})
    assert kld == pytest.approx(0.01 + 0.03 + 0.002)
    assert error == pytest.approx(math.hypot(0.1 * 0.012, 0.2 * 0.03))
    assert table.predict({}) == (0.0, 0.0)
    assert table.predict({"a": "Q8_0"})[0] == pytest.approx(0.001)  # no kernel figure is no rounding


def test_a_type_that_was_not_measured_is_no_zero():
    with pytest.raises(KeyError):
        SensitivityTable("digest", ROWS).predict({"b": "Q8_0"})
    with pytest.raises(KeyError):
        SensitivityTable("digest", ROWS).predict({"c": "Q4_K"})


def test_interaction_bends_the_weights_part_and_levels_both():
    table = SensitivityTable("digest", ROWS, Interaction(0.9, 2.0, 0.05))
    kld, error = table.predict({"a": "Q4_K", "b": "Q4_K"})
    bent = 0.9 * 0.04 * (1 + 2 * 0.04)
    assert kld == pytest.approx(bent + 0.9 * 0.002)
    rows = math.hypot(0.1 * 0.012, 0.2 * 0.03) * kld / 0.042
    assert error == pytest.approx(math.hypot(rows, 0.05 * kld))
    assert Interaction().total(0.7) == 0.7


def test_check_belongs_to():
    table = SensitivityTable("digest", ROWS)
    model = model_of({"a": (256, 2), "b": (256, 2), "c": (256, 2), "d": (256, 2)})
    table.check_belongs_to(model, ["a", "b"])
    with pytest.raises(ModelMismatch, match="no row for c and 1 more tensors of model.gguf"):
        table.check_belongs_to(model, ["a", "c", "d"])


def test_file_round_trip(tmp_path):
    table = SensitivityTable("digest", ROWS, Interaction(0.9, 2.0, 0.05), "cpu", True, {"ctx": 512})
    SENSITIVITY_TABLES.write(table, tmp_path / "d.json")
    assert SENSITIVITY_TABLES.read(tmp_path / "d.json") == table


@pytest.mark.parametrize(
    "old, new, error, message",
    [
        ("0.03", "-0.03", BadFile, "b as Q4_K has damage -0.03"),
        ("0.03", "NaN", BadFile, "the number NaN is NaN or infinite"),
        ("0.03", "Infinity", BadFile, "the number Infinity is NaN or infinite"),
        ("0.03", '"x"', BadFile, "'x' where a number is expected"),
        ('"Q8_0"', '"Q9_0"', NothingSelected, "no quantization type 'Q9_0'"),
        ('"weights"', '"wights"', BadFile, "damaged sensitivity table"),
        ('"rows"', '"rwos"', BadFile, "damaged sensitivity table"),
        ('"version": 3', '"version": 99', BadFile, "version 99 of quantplan-damage is unknown"),
        ("quantplan-damage", "quantplan-plan", BadFile, "a quantplan-damage file is needed"),
        ("{", "", BadFile, "not JSON"),
    ],
)
def test_damaged_files(tmp_path, old, new, error, message):
    path = tmp_path / "d.json"
    SENSITIVITY_TABLES.write(SensitivityTable("digest", ROWS), path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(error, match=message):
        SENSITIVITY_TABLES.read(path)
