import pytest

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import BY_NAME
from quantplan.selector import Selector, parse_assignment
from quantplan.tensor import Tensor

ROLES = ("attn_q", "attn_v", "ffn_down", "ffn_up_exps")
TENSORS = tuple(
    Tensor(f"blk.{block}.{role}.weight", (256, 256), BY_NAME["F16"]) for block in range(12) for role in ROLES
)
TENSORS += tuple(Tensor(name, (256, 512), BY_NAME["F16"]) for name in ("token_embd.weight", "output.weight"))


def chosen(text):
    return [tensor.name.removesuffix(".weight") for tensor in Selector(text).select(TENSORS)]


@pytest.mark.parametrize(
    "text, count, first",
    [
        ("attn_v", 12, "blk.0.attn_v"),
        ("output.weight", 1, "output"),
        ("output", 1, "output"),
        ("blk.3.attn_v", 1, "blk.3.attn_v"),
        ("blk.3.attn_v.weight", 1, "blk.3.attn_v"),
        ("attn_*", 24, "blk.0.attn_q"),
        ("blk.1[01].ffn_*", 4, "blk.10.ffn_down"),
        ("blk.?.attn_q", 10, "blk.0.attn_q"),
        (r"/^blk\.(3|7)\./", 8, "blk.3.attn_q"),
        ("/exps/", 12, "blk.0.ffn_up_exps"),
        ("*", len(TENSORS), "blk.0.attn_q"),
    ],
)
def test_select(text, count, first):
    found = chosen(text)
    assert (len(found), found[0]) == (count, first)


def test_a_role_is_no_prefix():
    assert chosen("blk.1.attn_v") == ["blk.1.attn_v"]
    with pytest.raises(NothingSelected):
        chosen("attn")


def test_nothing_matches():
    with pytest.raises(NothingSelected, match="no quantizable tensor matches 'ffn_dwon'; did you mean ffn_down"):
        chosen("ffn_dwon")
    with pytest.raises(NothingSelected, match="roles: attn_q, attn_v, ffn_down, ffn_up_exps, output, token_embd"):
        chosen("zzzzzzzz")


def test_regular_expression_that_is_none():
    with pytest.raises(BadUsage, match=r"/\(/ is not a regular expression"):
        chosen("/(/")


def test_parse_assignment():
    assert parse_assignment("attn_v=Q6_K") == (Selector("attn_v"), "Q6_K")
    assert parse_assignment("/a=b/=Q6_K") == (Selector("/a=b/"), "Q6_K")


@pytest.mark.parametrize("text", ["attn_v", "attn_v=", "=Q6_K", ""])
def test_parse_assignment_errors(text):
    with pytest.raises(BadUsage, match="SELECTOR=TYPE"):
        parse_assignment(text)
