"""A plan, whoever made it, scored in a damage table."""

from dataclasses import replace

import pytest

from quantplan.build.build import build_stock_quant, stock_plan
from quantplan.errors import ModelMismatch, NothingSelected
from quantplan.gguf.reader import read_model
from quantplan.planning.score import score, scored
from quantplan.recipes.import_plan import import_file
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable

pytestmark = pytest.mark.llamacpp
DAMAGE = {"Q4_K": 0.002, "Q6_K": 0.0005, "Q5_0": 0.001}


@pytest.fixture(scope="module")
def reference(reference_model):
    return read_model(reference_model)


@pytest.fixture(scope="module")
def stock_quant(reference, tmp_path_factory):
    return build_stock_quant(reference, "Q4_K_M", tmp_path_factory.mktemp("mix") / "q4.gguf", threads=1)


def table_of(plan, **fields):
    rows = {
        each.name: SensitivityRow(each.name, dict(DAMAGE), relative_error=0.1) for each in plan.tensors if each.rule
    }
    return SensitivityTable(
        **({"model_digest": plan.model_digest, "rows": rows, "interaction": Interaction(0.9, 1.0)} | fields)
    )


def test_a_file_of_anyones_is_scored_by_its_types(reference, stock_quant):
    plan = import_file(stock_quant.path, reference).plan
    table = table_of(plan)
    ruled = [each for each in plan.tensors if each.rule]
    total = sum(DAMAGE[each.type.name] for each in ruled)
    kld, error = score(plan, table)
    assert kld == pytest.approx(0.9 * total * (1 + total))
    assert 0 < error < kld
    found = scored(plan, table)
    assert (found.predicted_kld, found.predicted_kld_err, found.calibrated) == (kld, error, False)
    assert replace(found, predicted_kld=None, predicted_kld_err=None) == plan


def test_what_keeps_its_type_costs_nothing(reference, tmp_path):
    (tmp_path / "r.txt").write_text("output=f32 .*=f16")
    plan = import_file(tmp_path / "r.txt", reference).plan
    assert score(plan, table_of(plan), reference) == (0.0, 0.0)
    with pytest.raises(NothingSelected, match="as F16"):
        score(plan, table_of(plan))


def test_types_that_the_table_does_not_price(reference):
    plan = stock_plan(reference, "Q5_K_M")
    with pytest.raises(
        NothingSelected, match=r"no value for .* as Q5_K, .* and \d+ more; for .* has Q5_0 and Q4_K nearest"
    ):
        score(plan, table_of(plan))


def test_tables_of_other_models(reference):
    plan = stock_plan(reference, "Q4_K_M")
    table = table_of(plan)
    with pytest.raises(ModelMismatch, match="digest abc, .* same names"):
        score(plan, replace(table, model_digest="abc"))
    fewer = {name: row for name, row in table.rows.items() if "attn_v" not in name}
    with pytest.raises(ModelMismatch, match=r"10 tensors differ, blk.0.attn_v.weight is not in the table"):
        score(plan, replace(table, model_digest="abc", rows=fewer))
    with pytest.raises(
        ModelMismatch, match=r"no row for 10 tensors of prose-10m: blk.0.attn_v.weight, .*another model"
    ):
        score(plan, replace(table, model_digest="", rows=fewer))
