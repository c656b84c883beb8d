"""Recipes by tensor category: what they say, and that they mean what llama-quantize's own mixes mean."""

import pytest
from model_parts import model_of
from model_shapes import QWEN3_8B, QWEN3_30B_A3B, QWQ_32B

from quantplan.build.build import stock_plan
from quantplan.errors import BadFile, NothingSelected
from quantplan.gguf.reader import read_model
from quantplan.recipes.category_recipes import (
    category_of,
    looks_like_category_recipe,
    parse_category_recipe,
    resolve_recipe,
)
from quantplan.recipes.importing import import_file

Q4_K_M = """# the mix of that name, in words
default Q4_K
[output]
  * : q6_k
[attn_v]
  model_type=70B : Q5_K
  more_bits : Q6_K
  n_expert=8 : Q8_0
[attn_k]
  n_expert=8 : Q8_0
[attn_output]
  n_expert=8 : Q5_K
[attn_qkv]
  : Q5_K
[ffn_down]
  layer=more_bits : Q6_K
"""
Q4_K_S = """name small
default Q4_K
[output]
  * : Q6_K
[attn_v]
  index<4 : Q5_K
[ffn_down]
  category<1/8 : Q5_K
"""


@pytest.mark.tools
@pytest.mark.parametrize(("ftype", "recipe"), [("Q4_K_M", Q4_K_M), ("Q4_K_S", Q4_K_S)])
@pytest.mark.parametrize("shapes", [QWEN3_8B, QWQ_32B, QWEN3_30B_A3B], ids=["qwen3-8b", "qwq-32b", "qwen3-30b-a3b"])
def test_a_stock_mix_in_words_is_the_stock_mix(shapes, ftype, recipe, tmp_path):
    model = read_model(shapes.write(tmp_path / "m.gguf"))
    (tmp_path / "r.recipe").write_text(recipe)
    imported = import_file(tmp_path / "r.recipe", model)
    assert imported.plan.types == stock_plan(model, ftype).types
    assert ["model_type" in warning for warning in imported.warnings] == [True] * ("model_type" in recipe)


def test_the_last_rule_that_holds_wins():
    model = model_of(
        {f"blk.{block}.attn_v.weight": (256, 8) for block in range(16)} | {"token_embd.weight": (256, 9)}, blocks=16
    )
    recipe = parse_category_recipe(
        "default Q2_K\n[output]\n* : Q8_0\n[attn_v]\n* : Q3_K\nlayer>=3/4, arch=QWEN3 : Q5_K\nlayer>=7/8, arch!=qwen3 : Q4_K\n"
        "index<2, !has_imatrix : Q6_K\nn_gqa>1 : Q8_0\n"
    )
    types = resolve_recipe(recipe, model, model.tensors, has_imatrix=False)
    assert [types[f"blk.{block}.attn_v.weight"].name for block in range(16)] == ["Q6_K"] * 2 + ["Q3_K"] * 10 + [
        "Q5_K"
    ] * 4
    assert types["token_embd.weight"].name == "Q8_0"  # it is the output too
    assert resolve_recipe(recipe, model, model.tensors, True)["blk.0.attn_v.weight"].name == "Q3_K"


def test_categories():
    assert category_of("token_embd.weight", tied=False) == "token_embd"
    assert category_of("blk.3.ffn_down_exps.weight", tied=False) == "ffn_down"
    assert category_of("blk.3.attn_q.weight", tied=False) == "attn_q"
    assert category_of("blk.3.attn_qkv.weight", tied=False) == "attn_qkv"
    assert category_of("blk.3.attn_q_a.weight", tied=False) is category_of("blk.3.ssm_out.weight", tied=False) is None
    assert looks_like_category_recipe(Q4_K_S) and not looks_like_category_recipe('[[0, "Q4_K"]]\nname = 3')


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[attn_v]\n* : Q4_K", BadFile, "no line `default TYPE`"),
        ("default Q4_K\n[attn_w]\n* : Q4_K", BadFile, "line 2 .* no category attn_w"),
        ("default Q4_K\n* : Q4_K\n[attn_v]", BadFile, "line 2 .* before any"),
        ("default Q4_K\n[attn_v]\n* Q4_K", BadFile, "line 3 .*CONDITIONS : TYPE"),
        ("default Q4_K\n[attn_v]\nlayer<3 : Q4_K", BadFile, "needs a fraction"),
        ("default Q4_K\n[attn_v]\nindex<x : Q4_K", BadFile, "needs a number"),
        ("default Q4_K\n[attn_v]\ncolour=red : Q4_K", BadFile, "'colour=red' is no condition"),
        ("default Q4_K\n[attn_v]\n* : Q4K", NothingSelected, "Q4_K"),
    ],
)
def test_bad_recipes(text, error, words):
    with pytest.raises(error, match=words):
        parse_category_recipe(text)
