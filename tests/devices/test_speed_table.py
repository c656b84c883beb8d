"""The noun: which tensors are products, what a token meets of them, and sums against hand-computed cases."""

from dataclasses import replace
from math import hypot

import pytest
from model_parts import model_of
from speed_parts import DENSE, MIXTURE, MIXTURE_KEYS, Q4, Q8, dense_table, speed, table_of, types_of

from quantplan.devices.speed.table import GENERATION, PROMPT, Product, Shape, products
from quantplan.errors import ModelMismatch, QuantplanError
from quantplan.quant_type import BY_NAME


def test_lookup_is_no_product_unless_it_is_the_output():
    untied = products(model_of(DENSE), model_of(DENSE).tensors)
    assert "token_embd.weight" not in untied
    tied = model_of({name: shape for name, shape in DENSE.items() if name != "output.weight"})
    assert products(tied, tied.tensors)["token_embd.weight"] == Product(Shape(64, 1000), last_only=True)


def test_only_the_last_token_of_a_prompt_meets_the_output_and_the_last_feed_forward_part():
    found = products(model_of(DENSE), model_of(DENSE).tensors)
    assert {name for name, product in found.items() if product.last_only} == {"output.weight", "blk.1.ffn_up.weight"}


def test_experts_that_a_token_meets():
    model = replace(model_of(MIXTURE), metadata=MIXTURE_KEYS)
    product = products(model, model.tensors)["blk.0.ffn_up_exps.weight"]
    assert product.shape == Shape(64, 32, 8, 2)
    assert product.shape.active == 2 * 64 * 32


@pytest.mark.parametrize("used", [0, 9, "two"])
def test_number_of_used_experts_must_be_known(used):
    model = replace(model_of(MIXTURE), metadata={"qwen3.expert_used_count": used})
    with pytest.raises(QuantplanError, match="expert_used_count"):
        products(model, model.tensors)


def test_heads_stacked_in_a_tensor_are_all_multiplied():
    model = model_of({"token_embd.weight": (64, 100), "blk.0.attn_k_b.weight": (64, 32, 4)})
    assert products(model, model.tensors)["blk.0.attn_k_b.weight"].shape == Shape(64, 128)


def test_blocks_that_only_predict_further_tokens_are_not_run():
    model = replace(model_of(DENSE), metadata={"qwen3.nextn_predict_layers": 1})
    assert model.main_blocks == 1
    found = products(model, model.tensors)
    assert set(found) == {"blk.0.attn_q.weight", "blk.0.ffn_up.weight", "output.weight"}
    assert found["blk.0.ffn_up.weight"].last_only


def test_generated_token_by_hand():
    table = dense_table(fixed=100.0, per_block=50.0)
    weights = 2 * 64 * 64 + 2 * 64 * 128 + 64 * 1000
    ns = table.token_ns(types_of(Q4), GENERATION)
    assert ns.value == pytest.approx(1.0 * weights + 100 + 2 * 50)
    assert table.tokens_per_second(types_of(Q4), GENERATION).value == pytest.approx(1e9 / ns.value)
    assert table.tensor_ns("output.weight", Q8, GENERATION) == pytest.approx(2.0 * 64 * 1000)
    assert table.tensor_ns("token_embd.weight", Q8, GENERATION) == 0


def test_prompt_by_hand():
    table = dense_table()
    every_token = 2 * 64 * 64 + 64 * 128
    last_token = 64 * 128 + 64 * 1000
    assert table.token_ns(types_of(Q4), PROMPT).value == pytest.approx(0.25 * every_token + 1.0 * last_token / 512)


def test_errors_join_shared_within_a_shape_and_independent_between():
    table = dense_table(stderr=500.0)
    attention, output = 2 * 64 * 64 * 0.1, 64 * 1000 * 0.1
    # the last block's feed-forward part is a product of its own only in prompts; both are independent here
    forward = 64 * 128 * 0.1
    ns = table.token_ns(types_of(Q4), GENERATION)
    assert ns.stderr == pytest.approx(hypot(500, attention, output, forward, forward))
    rate = table.tokens_per_second(types_of(Q4), GENERATION)
    assert rate.stderr / rate.value == pytest.approx(ns.stderr / ns.value)


def test_tensors_that_are_not_named_stay_as_they_are_stored():
    model = model_of(DENSE, kind="Q8_0")
    shapes = (Shape(64, 64), Shape(64, 128), Shape(64, 1000))
    table = table_of(model, *(speed(kind, shape, ns, ns) for kind, ns in ((Q4, 1.0), (Q8, 2.0)) for shape in shapes))
    change = table.token_ns({}, GENERATION).value - table.token_ns({"output.weight": Q4}, GENERATION).value
    assert change == pytest.approx(64 * 1000 * (2.0 - 1.0))


def test_missing_speed_says_what_to_measure():
    with pytest.raises(QuantplanError, match=r"Q6_K in matrices of 64x64 .* `quantplan speed` with Q6_K"):
        dense_table().token_ns(types_of(BY_NAME["Q6_K"]), GENERATION)


def test_table_belongs_to_one_model():
    table = dense_table()
    table.check_belongs_to(model_of(DENSE))
    with pytest.raises(ModelMismatch, match="another model"):
        table.check_belongs_to(replace(model_of(DENSE), digest="other"))
