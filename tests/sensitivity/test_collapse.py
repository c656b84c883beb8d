"""Columns of an imatrix that are extreme: the importance-weighted encoding spoils all others."""

import numpy as np
import pytest
from model_parts import imatrix_of
from reporters import Recorder

from quantplan.build.build import build
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.imatrix import coverage_notes
from quantplan.llamacpp import quantize
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.quant_type import parse_types
from quantplan.recipes.quantize_command import build_command
from quantplan.sensitivity.collapse import suspects, without_importance
from quantplan.sensitivity.estimate import SensitivityOptions, price
from quantplan.sensitivity.tensor_swap import relative_error

NAME = "blk.0.attn_output.weight"
pytestmark = pytest.mark.llamacpp


@pytest.fixture(scope="module")
def spiked(case, tmp_path_factory):
    """The case's imatrix, columns of one tensor ten orders of magnitude apart."""
    sums = {name: np.array(entry.sum2) for name, entry in case.imatrix.entries.items()}
    sums[NAME] = np.where(np.arange(256) % 128 == 7, 1e10, 1.0)[None]
    path = tmp_path_factory.mktemp("spiked") / "spiked.gguf"
    write_imatrix(imatrix_of(sums), path)
    return read_imatrix(path)


def test_the_tensor_is_found_and_no_other(case, spiked):
    found = suspects(case.model, case.tensors, spiked)
    assert list(found) == [NAME]
    assert found[NAME][0].name == "Q5_K" and found[NAME][1] > 3
    assert suspects(case.model, case.tensors, case.imatrix) == {}
    (note,) = (note for note in coverage_notes(spiked) if "times the median" in note)
    assert NAME in note


def test_the_reference_model_has_none(reference_model, reference_imatrix):
    model = read_model(reference_model)
    assert suspects(model, quantize.quantizable(model), read_imatrix(reference_imatrix)) == {}


def test_both_encodings_are_swapped_and_the_better_one_is_taken(case, spiked, tmp_path):
    report = Recorder()
    left = without_importance(case.model, case.tensors, spiked, case.text, case.options, tmp_path, report)
    assert left.excluded == {NAME} and NAME not in left.entries and left.digest == spiked.digest
    assert any(NAME in line and "KLD" in line for line in report.said)
    untested = without_importance(case.model, case.tensors, spiked, None, case.options, tmp_path / "none")
    assert untested.excluded == {NAME}
    assert without_importance(case.model, case.tensors, case.imatrix, case.text, case.options, tmp_path) is case.imatrix


def test_a_plan_is_built_without_the_importance_that_spoils(case, spiked, tmp_path):
    options = SensitivityOptions(parse_types("Q4_K,Q5_K,IQ2_S"), case.options, sample_elements=1 << 14)
    table = price(case.model, case.tensors, spiked, None, options, tmp_path).table
    assert table.without_importance == (NAME,)
    assert "IQ2_S" not in table.rows[NAME].weights and "IQ2_S" in table.rows["blk.0.attn_q.weight"].weights
    plan, _ = plan_for(PlanRequest(case.model, spiked, options.types, "6bpw"), table)
    assert plan.imatrix.excluded == (NAME,) and plan.imatrix.digest == spiked.digest
    assert f"--exclude-weights {NAME}" in build_command(plan, case.model, tmp_path / "q.gguf")
    built = build(plan, case.model, tmp_path / "q.gguf", threads=1)
    before, after = (tensor_rows(model, model.by_name[NAME]) for model in (case.model, built))
    assert relative_error(before, after, None) < 0.01
