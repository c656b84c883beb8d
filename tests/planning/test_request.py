"""Requests become plans whose size is that of the file to be built."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from model_parts import quantized_bytes
from tiny_models import arrays_gguf

from quantplan.build.build import stock_plan
from quantplan.errors import BadFile, BadUsage, BudgetImpossible, ModelMismatch, NothingSelected
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.tools import run
from quantplan.planning.kept_tables import keep_table, table_of
from quantplan.planning.request import (
    PlanRequest,
    layer_ftypes,
    parse_budget,
    quantizable,
    types_to_estimate,
)
from quantplan.planning.solving import check, plan_for
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.recipes.import_plan import import_file
from quantplan.recipes.layer_types import write_layer_types
from quantplan.selector import Selector
from quantplan.sensitivity.rows import prior_table
from quantplan.solver.constraints import Constraints

pytestmark = pytest.mark.llamacpp


@pytest.fixture(scope="module")
def request_for(case):
    """A request on the tiny model; without an imatrix unless told otherwise."""

    def make(budget="45%", types="k,Q8_0,F16", **fields):
        return PlanRequest(case.model, fields.pop("imatrix", None), parse_types(types), budget, **fields)

    return make


@pytest.fixture(scope="module")
def table(case):
    return prior_table(case.model, case.tensors, parse_types("all"), None)


def constraints(pins=(), floors=()):
    return Constraints(*(tuple((Selector(name), BY_NAME[kind]) for name, kind in pairs) for pairs in (pins, floors)))


# -- plans


@pytest.mark.parametrize("budget", ["25%", "3bpw", "1.9MB", "45%", "Q4_K_M"])
def test_plans_are_within_the_budget_and_exact(case, request_for, table, budget):
    wanted = request_for(budget)
    plan, everything = plan_for(wanted, table)
    assert not everything
    assert plan.file_bytes <= plan.budget_bytes == parse_budget(wanted).bytes
    assert plan.budget_bytes - plan.file_bytes < 0.02 * plan.file_bytes  # little is left over
    assert plan.file_bytes == quantized_bytes(case.model, plan.types, None)
    assert plan.model_digest == case.model.digest and len(plan.tensors) == len(case.model.tensors)
    assert plan.outcome.status == "optimal" and plan.outcome.bound <= plan.outcome.objective
    quantized = {tensor.name: plan.types[tensor.name].name for tensor in case.tensors}
    assert plan.predicted_kld == pytest.approx(table.predict(quantized)[0]) and not plan.calibrated


def test_a_probed_table(case, priced, request_for):
    plan, _ = plan_for(request_for(imatrix=case.imatrix), priced[0].table)
    assert plan.calibrated and plan.made_from["backend"] == "cpu"
    assert 0 < plan.predicted_kld_err < plan.predicted_kld
    assert plan.imatrix.file == "model.imatrix"
    larger, _ = plan_for(request_for("50%", imatrix=case.imatrix), priced[0].table)
    assert larger.predicted_kld < plan.predicted_kld


def test_as_large_as_a_stock_mix(case, request_for):
    assert parse_budget(request_for("q4_k_m")).bytes == stock_plan(case.model, "Q4_K_M").file_bytes
    with pytest.raises(BadUsage, match="cannot be made without imatrix data"):
        parse_budget(request_for("IQ2_XXS"))


def test_as_large_as_a_model_in_several_files(case, request_for, tmp_path):
    run(["llama-gguf-split", "--split-max-tensors", "9", str(case.model.path), str(tmp_path / "split")])
    shards = sorted(tmp_path.glob("*.gguf"))
    assert len(shards) == 3
    assert parse_budget(request_for(f"={shards[0]}")).bytes == sum(path.stat().st_size for path in shards)
    assert parse_budget(request_for(f"={case.model.path}")).bytes == case.model.file_bytes
    shards[1].unlink()
    with pytest.raises(BadFile, match="1 of 3 shards are missing"):
        parse_budget(request_for(f"={shards[0]}"))


def test_more_than_everything(case, request_for, table):
    plan, everything = plan_for(request_for("20GB"), table)
    assert everything and {plan.types[tensor.name].name for tensor in case.tensors} == {"F16"}
    assert plan.predicted_kld == 0


def test_pins_and_floors_hold(case, request_for, table):
    asked = constraints(
        pins=[("attn_v", "Q5_0"), ("blk.0.attn_v", "Q8_0")],
        floors=[("ffn_*", "Q5_K"), ("token_embd", "Q4_K")],
    )
    plan, _ = plan_for(request_for("45%", constraints=asked), table)
    assert plan.types["blk.0.attn_v.weight"].name == "Q8_0" and plan.types["blk.1.attn_v.weight"].name == "Q5_0"
    assert all(plan.types[t.name].bits >= 5.5 for t in case.tensors if t.role.startswith("ffn"))
    assert plan.types["token_embd.weight"].bits >= 4.5


def test_pinned_types_are_priced_although_no_choice(request_for):
    asked = request_for(types="k", constraints=constraints(pins=[("attn_v", "Q5_1")]))
    assert [kind.name for kind in types_to_estimate(asked)] == ["Q6_K", "Q5_1", "Q5_K", "Q4_K", "Q3_K", "Q2_K"]


def test_all_of_the_size_holds_a_copy(case, request_for, table):
    """A copy is larger than its source by what llama-quantize notes in its header."""
    plan, _ = plan_for(request_for("100%"), table)
    assert plan.types == {tensor.name: tensor.type for tensor in case.model.tensors}
    assert plan.budget_bytes == plan.file_bytes == quantized_bytes(case.model, {}, None) > case.model.file_bytes


# -- layer mode


@pytest.mark.parametrize("budget", ["24%", "33%", "40%"])
def test_layer_mode_there_and_back(case, request_for, table, tmp_path, budget):
    plan, _ = plan_for(request_for(budget, types="all", per="layer"), table)
    assert plan.file_bytes <= plan.budget_bytes and plan.file_bytes == quantized_bytes(case.model, plan.types, None)
    assert [block for block, _ in plan.layer_types] == [0, 1]
    text = tmp_path / "layers.txt"
    text.write_text(write_layer_types(plan.layer_types, plan.flags))
    again = import_file(text, case.model, None, None).plan
    assert (again.types, again.file_bytes) == (plan.types, plan.file_bytes)


def test_layer_mode_takes_no_better_plan_than_tensors(request_for, table):
    by_layer, _ = plan_for(request_for("33%", types="all", per="layer"), table)
    by_tensor, _ = plan_for(request_for("33%", types="all"), table)
    assert by_tensor.outcome.objective <= by_layer.outcome.objective


def test_layer_mode_prices_what_its_mixes_consist_of(request_for):
    names = {kind.name for kind in types_to_estimate(request_for(types="Q4_K", per="layer"))}
    assert {"Q4_K", "Q6_K", "Q5_0"} <= names


def test_wishes_leave_out_mixes_of_layer_mode(request_for, table):
    asked = request_for(
        "60%", types="all", per="layer", constraints=constraints(floors=[("attn_v", "Q5_K"), ("token_embd", "Q6_K")])
    )
    check(asked)
    plan, _ = plan_for(asked, table)
    assert all(kind.bits >= 5.5 for name, kind in plan.types.items() if "attn_v" in name)
    assert plan.types["token_embd.weight"].bits >= 6.5
    assert len(plan.layer_types) == asked.model.blocks


def test_wishes_that_no_mix_keeps(request_for, table):
    asked = request_for(per="layer", constraints=constraints(pins=[("attn_v", "Q5_1")]))
    for refuse in (check, lambda request: plan_for(request, table)):
        with pytest.raises(BadUsage, match="no stock quant and no type that is allowed for block 0"):
            refuse(asked)


@pytest.mark.parametrize("course", ["monotone", "valley"])
def test_a_course_over_the_blocks(request_for, table, course):
    asked = request_for("45%", types="k", per="layer")
    free, _ = plan_for(asked, table)
    plan, _ = plan_for(replace(asked, constraints=Constraints(course=course)), table)
    stock_quants = layer_ftypes(asked)
    size = {
        ftype: sum(t.bytes_as(types[t.name]) for t in quantizable(asked.model)) for ftype, types in stock_quants.items()
    }
    steps = [size[ftype] for _, ftype in plan.layer_types]
    turns = [two - one for one, two in pairwise(steps) if two != one]
    assert all(step > 0 for step in turns) or all(step < 0 for step in turns) or course == "valley"
    assert plan.outcome.objective >= free.outcome.objective * (1 - 1e-6)


def test_the_smallest_file_of_an_expected_kld(request_for, table):
    of_a_size, _ = plan_for(request_for("45%", types="k"), table)
    asked = replace(request_for(None, types="k"), most_kld=of_a_size.predicted_kld)
    check(asked)
    plan, _ = plan_for(asked, table)
    assert plan.file_bytes <= of_a_size.file_bytes and plan.predicted_kld <= of_a_size.predicted_kld * (1 + 1e-9)
    assert plan.budget_bytes is None and plan.outcome.minimised == "bytes"


def test_the_table_of_a_plan_is_found_again(request_for, table, tmp_path):
    plan, _ = plan_for(request_for("45%", types="k"), table)
    with pytest.raises(BadFile, match="no longer in the cache"):
        table_of(plan, tmp_path)
    kept = keep_table(table, tmp_path)
    assert table_of(plan, tmp_path) == table
    kept.write_text(kept.read_text().replace('"unit": "nats/token"', '"unit": "bits/token"'))
    with pytest.raises(BadFile, match="the table was changed"):
        table_of(plan, tmp_path)
    with pytest.raises(BadFile, match="was not made from a sensitivity table"):
        table_of(replace(plan, made_from={}), tmp_path)


def test_layer_mode_without_any_stock_quant(request_for):
    with pytest.raises(BadUsage, match="none of the stock quants"):
        check(request_for(types="Q4_1", per="layer"))


# -- what is refused, all of it before a measurement


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"budget": "1bpw"}, BudgetImpossible, "no file of 1bpw"),
        ({"budget": "abc"}, BadUsage, "cannot read the budget"),
        ({"budget": "=nofile"}, BadFile, "cannot take the budget"),
        ({"types": "F32"}, NothingSelected, "are larger than F16"),
        ({"types": "IQ2_XXS"}, NothingSelected, "they need an imatrix"),
        ({"constraints": constraints(pins=[("attn_w", "Q4_K")])}, NothingSelected, "did you mean attn_"),
        (
            {"constraints": constraints(pins=[("attn_v", "IQ2_XXS")])},
            NothingSelected,
            "blk.0.attn_v.weight cannot be stored as IQ2_XXS",
        ),
        ({"constraints": constraints(pins=[("attn_v", "F32")])}, NothingSelected, "cannot be stored as F32"),
        (
            {"constraints": constraints(floors=[("attn_v", "F32")])},
            NothingSelected,
            "--min-type attn_v=F32: nothing is left for",
        ),
        ({"constraints": constraints(floors=[("*", "Q8_0")])}, BudgetImpossible, "the smallest has"),
    ],
)
def test_refused_by_check_and_by_plan_for(request_for, table, fields, error, message):
    for refuse in (check, lambda request: plan_for(request, table)):
        with pytest.raises(error, match=message):
            refuse(request_for(**fields))


def test_the_smallest_budget_that_check_names_works(request_for, table):
    with pytest.raises(BudgetImpossible) as caught:
        check(request_for("1bpw"))
    smallest = caught.value.smallest
    plan, _ = plan_for(request_for(f"{smallest}B"), table)
    assert plan.file_bytes == smallest
    with pytest.raises(BudgetImpossible):
        plan_for(request_for(f"{smallest - 1}B"), table)


def test_the_table_of_another_model(request_for, table):
    rows = {name: row for name, row in table.rows.items() if "attn_q" not in name}
    with pytest.raises(ModelMismatch, match="no row for blk.0.attn_q.weight and 1 more"):
        plan_for(request_for(), replace(table, rows=rows))


def test_an_imatrix_is_part_of_the_size(case, request_for, table, reference_model):
    plan, _ = plan_for(request_for(), table)
    with_imatrix, _ = plan_for(request_for(imatrix=case.imatrix), table)
    assert with_imatrix.metadata_bytes > plan.metadata_bytes


def test_no_language_model(tmp_path):
    sizes = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
    numbers = dict.fromkeys(sizes, 1) | {"attention.layer_norm_rms_epsilon": 1e-6}
    path = arrays_gguf(tmp_path / "norms.gguf", "qwen3", {"output_norm.weight": np.ones(256, np.float32)}, numbers)
    with pytest.raises(BadUsage, match="would quantize no tensor"):
        check(PlanRequest(read_model(path), None, parse_types("k"), "4bpw"))
