from dataclasses import replace

import pytest
from model_parts import model_of

from quantplan.quant_type import BY_NAME
from quantplan.tensor import block_of, role_of

NEXTN = "nextn_predict_layers"


def model(blocks=4, architecture="qwen3", further=(), **metadata):
    names = [f"blk.{block}.attn_q.weight" for block in range(blocks)]
    bare = model_of({name: (256, 8) for name in [*names, "output.weight", *further]}, blocks=blocks)
    keys = {f"{architecture}.{key}": value for key, value in metadata.items()}
    return replace(bare, architecture=architecture, metadata=keys)


@pytest.mark.parametrize(("count", "main"), [(None, 4), (0, 4), (1, 3), (3, 1), (4, 4), (9, 4), (-1, 4), ("1", 4)])
def test_blocks_that_predict_further_tokens_do_not_run(count, main):
    """A number that leaves no block to run is not believed."""
    found = model(**({} if count is None else {NEXTN: count}))
    assert (found.main_blocks, found.mtp_blocks) == (main, 4 - main)


def test_deepseek4_may_lack_the_blocks_that_it_counts():
    assert model(architecture="deepseek4", **{NEXTN: 1}).mtp_blocks == 0
    further = ["blk.3.nextn.eh_proj.weight"]
    assert model(architecture="deepseek4", further=further, **{NEXTN: 1}).mtp_blocks == 1


def test_a_hyperparameter_or_its_default():
    found = model(expert_count=8, rope_theta=1e6, name="text")
    assert found.hyperparameter("expert_count", 1) == 8 and found.hyperparameter("rope_theta", 1.0) == 1e6
    assert found.hyperparameter("missing", 3) == 3 and found.hyperparameter("name", 2) == 2


def test_bits_per_weight():
    found = model(blocks=1)
    assert found.bits_per_weight() == 8 * sum(tensor.bytes for tensor in found.tensors) / found.elements
    both = dict.fromkeys(found.by_name, BY_NAME["Q8_0"])
    assert found.bits_per_weight(both) == 8.5
    assert 8.5 < found.bits_per_weight({"output.weight": BY_NAME["Q8_0"]}) < found.bits_per_weight()


def test_bytes_that_a_token_reads():
    """Whole matrices, a row of the embeddings, two of eight experts, nothing of blocks that predict further tokens."""
    shapes = {
        "token_embd.weight": (256, 100),
        "output.weight": (256, 100),
        "blk.0.attn_k_b.weight": (32, 64, 8),
        "blk.0.ffn_up_exps.weight": (256, 64, 8),
        "blk.0.ffn_up_shexp.weight": (256, 64),
        "blk.1.attn_q.weight": (256, 256),
    }
    keys = {"qwen3.expert_used_count": 2, "qwen3.nextn_predict_layers": 1}
    mixture = replace(model_of(shapes, blocks=2), architecture="qwen3", metadata=keys)
    matrices = 256 * 100 + 32 * 64 * 8 + 2 * 256 * 64 + 256 * 64
    assert mixture.bytes_per_token() == 2 * (matrices + 256)
    q8 = {name: BY_NAME["Q8_0"] for name in ("output.weight", "blk.1.attn_q.weight")}
    assert mixture.bytes_per_token(q8) == 2 * (matrices + 256) - 256 * 100 * 15 // 16
    tied = replace(mixture, tensors=tuple(tensor for tensor in mixture.tensors if tensor.role != "output"))
    assert tied.bytes_per_token() == 2 * matrices
    assert replace(mixture, metadata={}).bytes_per_token() is None
    assert replace(mixture, metadata={"qwen3.expert_used_count": 9}).bytes_per_token() is None


@pytest.mark.parametrize(
    ("name", "block", "role"),
    [
        ("blk.12.ffn_down_exps.weight", 12, "ffn_down_exps"),
        ("enc.blk.0.attn_q.weight", 0, "attn_q"),
        ("token_embd.weight", None, "token_embd"),
        ("blk.3.attn_q.bias", 3, "attn_q.bias"),
    ],
)
def test_places_of_names(name, block, role):
    assert (block_of(name), role_of(name)) == (block, role)
