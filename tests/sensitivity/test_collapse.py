"""Columns of an imatrix that are extreme: the importance-weighted encoding spoils all others."""

from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of
from reporters import Recorder

from quantplan.build.build import build
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.imatrix import coverage_notes
from quantplan.llamacpp import quantize
from quantplan.planning.explain import explain_plan, explain_tensor
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.recipes.quantize_command import build_command
from quantplan.records.formats import SENSITIVITY_TABLES
from quantplan.report.explanation import importance_line
from quantplan.sensitivity.collapse import SampledErrors, suspects
from quantplan.sensitivity.encodings import DISAGREE, Encodings, with_choice
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.rows import prior_table
from quantplan.sensitivity.tensor_swap import relative_error
from quantplan.sensitivity_table import SensitivityRow

NAME = "blk.0.attn_output.weight"
TYPES = parse_types("Q3_K,Q4_K,Q5_K,IQ2_S")
pytestmark = pytest.mark.llamacpp


@pytest.fixture(scope="module")
def spiked(case, tmp_path_factory):
    """The case's imatrix, columns of one tensor ten orders of magnitude apart."""
    sums = {name: np.array(entry.sum2) for name, entry in case.imatrix.entries.items()}
    sums[NAME] = np.where(np.arange(256) % 128 == 7, 1e10, 1.0)[None]
    path = tmp_path_factory.mktemp("spiked") / "spiked.gguf"
    write_imatrix(imatrix_of(sums), path)
    return read_imatrix(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def table_of(case, imatrix, cache, report):
    """Of ggml's own rounding of three tensors."""
    options = SensitivityOptions(TYPES, case.options, sample_elements=1 << 14, compensate=False)
    tensors = tuple(case.model.by_name[f"blk.0.{role}.weight"] for role in ("attn_output", "attn_v", "ffn_gate"))
    return price(case.model, tensors, imatrix, case.text, options, cache, report).table


@pytest.fixture(scope="module")
def probed(case, spiked, cache):
    """The table, and what the probe said."""
    report = Recorder()
    return table_of(case, spiked, cache, report), report.said


def test_the_tensor_is_found_and_no_other(case, spiked):
    found = suspects(case.model, case.tensors, spiked)
    assert list(found) == [NAME]
    assert found[NAME].spoilt > 3 and found[NAME].spread > 10
    assert suspects(case.model, case.tensors, case.imatrix) == {}
    (note,) = (note for note in coverage_notes(spiked) if "times the median" in note)
    assert NAME in note


def test_the_reference_model_has_none(reference_model, reference_imatrix):
    model = read_model(reference_model)
    assert suspects(model, quantize.quantizable(model), read_imatrix(reference_imatrix)) == {}


def test_two_types_disagree_about_the_scale(probed):
    table, said = probed
    (name,) = table.made_from["encodings"]
    measured = table.made_from["encodings"][name]
    assert name == NAME and measured["disagreement"] > DISAGREE
    (line,) = (line for line in said if "the better of both encodings" in line)
    assert NAME in line and "without" in line and "times apart" in line
    assert [name for name, row in table.rows.items() if row.without_importance] == [NAME]
    assert "IQ2_S" in table.rows[NAME].weights and "IQ2_S" not in table.rows[NAME].without_importance


def test_a_plan_takes_the_better_encoding_of_its_types(case, spiked, probed, tmp_path):
    others = prior_table(case.model, case.tensors, TYPES, spiked).rows
    table = replace(probed[0], rows=others | probed[0].rows)
    request = PlanRequest(case.model, spiked, TYPES, "5.5bpw")
    plan, _ = plan_for(request, table)
    better = plan.types[NAME].name in table.rows[NAME].without_importance
    assert better and plan.imatrix.excluded == (NAME,) and plan.imatrix.digest == spiked.digest
    assert f"--exclude-weights {NAME}" in build_command(plan, case.model, tmp_path / "q.gguf")
    built = build(plan, case.model, tmp_path / "q.gguf", threads=1)
    before, after = (tensor_rows(model, model.by_name[NAME]) for model in (case.model, built))
    assert relative_error(before, after, None) < 0.03
    explained = explain_tensor(explain_plan(request, plan, table), case.model.by_name[NAME])
    assert importance_line(explained).startswith("importance, whose columns are extreme, is left out for ")
    pinned = table.without_importance({NAME: BY_NAME["IQ2_S"]})
    assert pinned == ()
    SENSITIVITY_TABLES.write(table, tmp_path / "t.json")
    assert SENSITIVITY_TABLES.read(tmp_path / "t.json") == table


def test_other_tensors_and_models_are_priced_as_ever(case, cache, probed, spiked):
    """Another imatrix of one tensor changes its row alone."""
    plain = table_of(case, case.imatrix, cache, Recorder())
    assert "encodings" not in plain.made_from
    for name, row in plain.rows.items():
        if name != NAME:
            assert probed[0].rows[name].weights == pytest.approx(row.weights, rel=1e-3)


def test_where_nothing_can_be_swapped_the_plain_error_decides(case, spiked, cache):
    options = SensitivityOptions(TYPES, case.options, sample_elements=1 << 14)
    report = Recorder()
    table = price(case.model, case.tensors, spiked, None, options, cache, report).table
    assert table.without_importance(dict.fromkeys(table.rows, BY_NAME["Q4_K"])) == (NAME,)
    assert "IQ2_S" not in table.rows[NAME].weights and "IQ2_S" in table.rows["blk.0.attn_q.weight"].weights
    assert any(NAME in line and "times the error" in line for line in report.said)


def test_compensated_types_stay_where_they_lose_less():
    kinds = {name: BY_NAME[name] for name in ("Q3_K", "Q4_K", "Q5_K")}
    errors = {
        kinds["Q3_K"]: SampledErrors(1e-2, 2e-2, 2e-2),
        kinds["Q4_K"]: SampledErrors(1e-4, 2e-2, 5e-3),
        kinds["Q5_K"]: SampledErrors(3e-5, 6e-3, 1e-3),
    }
    measured = Encodings(
        {"Q3_K": 0.2, "Q5_K": 0.06}, {"Q3_K": 0.2, "Q5_K": 0.01}, {"Q3_K": 20, "Q5_K": 2000}, {"Q3_K": 10, "Q5_K": 10}
    )
    row = SensitivityRow("a", {"Q3_K": 1.0, "Q4_K": 0.04, "Q5_K": 0.2}, stock={"Q4_K": 1.0, "Q5_K": 1.0})
    changed = with_choice(row, measured, errors)
    assert changed.weights == pytest.approx({"Q3_K": 0.2, "Q4_K": 0.04, "Q5_K": 0.01})
    assert changed.stock == pytest.approx({"Q4_K": 0.05}) and changed.without_importance == ("Q4_K", "Q5_K")
