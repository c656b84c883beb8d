"""Plans for every kind of architecture against llama-quantize --dry-run with the rules that are emitted."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
from model_parts import imatrix_of, quantized_bytes
from model_shapes import (
    DEEPSEEK_V3,
    GEMMA_3N_E2B,
    GLM_4_5_AIR,
    MAMBA_130M,
    PHI_3_MINI,
    QWEN2_0_5B,
    QWEN3_1_7B,
    QWEN3_5_2B,
    QWEN3_5_35B_A3B,
    QWEN3_30B_A3B,
    QWQ_32B,
)

from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import imatrix_note, make_plan
from quantplan.llamacpp.quantize import Recipe, argv, parse
from quantplan.llamacpp.tools import run
from quantplan.planning.request import PlanRequest, quantizable, types_to_estimate
from quantplan.planning.solving import plan_for
from quantplan.quant_type import BY_NAME, parse_types
from quantplan.recipes.emit import plan_text
from quantplan.recipes.import_plan import import_file
from quantplan.recipes.quantize_command import requantizes
from quantplan.sensitivity.candidates import candidates
from quantplan.sensitivity.rows import prior_table
from quantplan.tensor import padded

pytestmark = pytest.mark.llamacpp
SHAPES = {
    "dense, tied": QWEN3_1_7B,
    "dense, biases": QWQ_32B,
    "rows of 896": QWEN2_0_5B,
    "experts": QWEN3_30B_A3B,
    "experts, rows of 1408": GLM_4_5_AIR,
    "MLA, 671B": DEEPSEEK_V3,
    "attention and SSM": QWEN3_5_2B,
    "attention, SSM and experts": QWEN3_5_35B_A3B,
    "SSM, rows of 48": MAMBA_130M,
    "per-layer embeddings": GEMMA_3N_E2B,
    "fused qkv": PHI_3_MINI,
}
LEAST = {  # budgets at which types that need an imatrix pay
    "experts, rows of 1408": "20%",
    "attention and SSM": "20%",
    "per-layer embeddings": "20%",
    "fused qkv": "20%",
}
DECIDED = {  # roles that a plan decides, besides attention and feed-forward as everybody has them
    "MLA, 671B": {"attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_k_b", "attn_v_b", "ffn_up_exps", "ffn_up_shexp"},
    "attention and SSM": {"attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_out", "attn_q"},
    "SSM, rows of 48": {"ssm_in", "ssm_x", "ssm_out", "token_embd"},
    "per-layer embeddings": {"per_layer_token_embd", "inp_gate", "proj", "token_embd"},
    "fused qkv": {"attn_qkv", "ffn_up", "output"},
    "experts, rows of 1408": {"ffn_down_exps", "nextn.embed_tokens", "nextn.shared_head_head", "nextn.eh_proj"},
}
COPIED = {"ffn_gate_inp", "ffn_gate_inp_shexp", "ssm_conv1d", "ssm_a", "altup_proj", "laurel_l", "per_layer_model_proj"}


@pytest.fixture(scope="module")
def model(request, tmp_path_factory):
    return read_model(SHAPES[request.param].write(tmp_path_factory.mktemp("shape") / "m.gguf"))


every_shape = pytest.mark.parametrize("model", SHAPES, indirect=True)


def check_against_dry_run(plan, model, folder, imatrix=None):
    """Every type, and the bytes of the file added up from the types that llama-quantize names."""
    rules = folder / "rules.txt"
    rules.write_text(plan_text(plan, "tensor-types"))
    recipe = Recipe(plan.base_ftype, rules_file=rules, imatrix=imatrix, allow_requantize=requantizes(plan, model))
    log = run(argv(model.path, recipe)).log
    types = parse(log)
    assert types == plan.types
    stored = sum(tensor.bytes_as(types[tensor.name]) for tensor in model.tensors)
    assert float(re.search(r"quant size += +([\d.]+) MiB", log).group(1)) == pytest.approx(stored / 2**20, abs=0.006)
    data = sum(padded(tensor.bytes_as(types[tensor.name])) for tensor in model.tensors)
    assert plan.metadata_bytes + data == plan.file_bytes
    assert plan.file_bytes == quantized_bytes(model, types, imatrix_note(plan.imatrix))


def planned(model, budget, types="all", imatrix=None, per="tensor"):
    request = PlanRequest(model, imatrix, parse_types(types), budget, per=per)
    table = prior_table(model, quantizable(model), types_to_estimate(request), imatrix)
    plan, _ = plan_for(request, table)
    assert plan.file_bytes <= plan.budget_bytes
    return plan


def any_types(model):
    chance, kinds = random.Random(0), parse_types("any")
    return {tensor.name: chance.choice(candidates(tensor, kinds, None)) for tensor in quantizable(model)}


@every_shape
@pytest.mark.parametrize("budget, types", [("28%", "all"), ("4.8bpw", "k,Q8_0,IQ4_NL,F16"), ("60%", "all")])
def test_planned_types_are_those_of_the_dry_run(model, budget, types, tmp_path):
    check_against_dry_run(planned(model, budget, types), model, tmp_path)


@every_shape
def test_any_types_are_those_of_the_dry_run(model, tmp_path):
    """No solver would plan this: every tensor in a type of its own."""
    check_against_dry_run(make_plan(model, any_types(model)), model, tmp_path)


@pytest.mark.parametrize(
    "shape, stored",
    [
        ("SSM, rows of 48", "F32"),
        ("SSM, rows of 48", "BF16"),
        ("rows of 896", "F32"),
        ("rows of 896", "Q8_0"),
        ("fused qkv", "BF16"),
        ("fused qkv", "Q8_0"),
    ],
)
def test_whatever_the_source_is_stored_in(shape, stored, tmp_path):
    model = read_model(replace(SHAPES[shape], stored=stored).write(tmp_path / "m.gguf"))
    check_against_dry_run(make_plan(model, any_types(model)), model, tmp_path)
    check_against_dry_run(planned(model, "5.5bpw"), model, tmp_path)


@pytest.mark.parametrize("model, budget", LEAST.items(), indirect=["model"])
def test_with_an_imatrix_the_smallest_types_join(model, budget, tmp_path):
    """Its file need not be there for a dry run: that it was used changes no type that a rule names."""
    imatrix = imatrix_of(
        {t.name: np.ones((t.experts, t.columns), np.float32) for t in quantizable(model) if t.role != "token_embd"}
    )
    plan = planned(model, budget, imatrix=imatrix)
    assert any(kind.needs_imatrix for kind in plan.types.values())
    check_against_dry_run(plan, model, tmp_path)


@pytest.mark.parametrize("model", ["attention and SSM", "MLA, 671B", "per-layer embeddings"], indirect=True)
def test_layer_mode(model, tmp_path):
    plan = planned(model, "34%", "k,IQ4_XS,IQ3_S,Q8_0", per="layer")
    assert len(plan.layer_types) == model.blocks
    check_against_dry_run(plan, model, tmp_path)
    (tmp_path / "layers.txt").write_text(plan_text(plan, "layer-types"))
    assert import_file(tmp_path / "layers.txt", model).plan.types == plan.types


@every_shape
def test_what_is_decided_and_what_is_copied(request, model):
    shape = request.node.callspec.params["model"]
    roles = {tensor.role for tensor in quantizable(model)}
    assert DECIDED.get(shape, {"attn_q", "attn_k", "attn_v", "attn_output", "token_embd"}) <= roles
    assert not roles & COPIED and not any(role.endswith(("norm", "bias")) for role in roles)
    assert model.tied == (
        shape in ("dense, tied", "rows of 896", "attention and SSM", "SSM, rows of 48", "per-layer embeddings")
    )


@pytest.mark.parametrize("model", ["SSM, rows of 48"], indirect=True)
def test_rows_that_no_block_divides_stay_f16(model):
    assert "ssm_dt" not in {tensor.role for tensor in quantizable(model)}
    assert planned(model, "32%").types["blk.0.ssm_dt.weight"] is BY_NAME["F16"]


@pytest.mark.parametrize("model", ["rows of 896", "experts, rows of 1408"], indirect=True)
def test_rows_that_256_does_not_divide_take_blocks_of_32(model):
    types = planned(model, "32%", "k").types
    odd = {types[t.name].name for t in quantizable(model) if t.columns % 256}
    assert odd and odd <= {"Q4_0", "Q5_0", "Q5_1", "Q8_0"}
