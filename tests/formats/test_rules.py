import random
import re

import pytest

from quantplan.errors import BadFile, BadUsage, NothingSelected
from quantplan.formats import rules as module
from quantplan.formats.rules import check_all_match, check_rules, parse_rules, resolve, write_rules
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import BY_NAME

Q4, Q6, Q8 = BY_NAME["Q4_K"], BY_NAME["Q6_K"], BY_NAME["Q8_0"]
ROLES = ("attn_q", "attn_v", "ffn_up", "ffn_up_exps", "ffn_up_shexp")


def names(blocks=64):
    inside = [f"blk.{block}.{role}.weight" for block in range(blocks) for role in ROLES]
    return ["token_embd.weight", "output.weight", *inside]


@pytest.mark.parametrize("seed", range(5))
def test_rules_give_any_assignment_whichever_match_wins(seed):
    chance = random.Random(seed)
    assignment = {name: chance.choice([Q4, Q6, Q8]) for name in names()}
    rules = write_rules(assignment, [*names(), "blk.1.attn_norm.weight"])
    for last_match in (False, True):
        assert resolve(rules, names(), last_match) == assignment
    assert len(rules) <= len(ROLES) * 3 + 2
    assert all(rule.pattern == rule.pattern.lower() and " " not in str(rule) for rule in rules)


def test_rules_are_disjoint_and_anchored():
    rules = write_rules({"blk.1.ffn_up.weight": Q6, "blk.11.ffn_up.weight": Q4, "output.weight": Q8})
    assert [str(rule) for rule in rules] == [
        r"^output\.weight$=q8_0",
        r"^blk\.1\.ffn_up\.weight$=q6_k",
        r"^blk\.11\.ffn_up\.weight$=q4_k",
    ]
    assert (
        resolve(
            rules,
            [
                "attn_output.weight",
                "blk.1.ffn_up_exps.weight",
                "blk.111.ffn_up.weight",
                "xblk.1.ffn_up.weight",
            ],
        )
        == {}
    )


def test_blocks_become_an_alternation():
    assignment = {f"blk.{block}.attn_v.weight": Q4 for block in (3, 7, *range(10, 16))}
    (rule,) = write_rules(assignment)
    assert str(rule) == r"^blk\.([37]|1[0-5])\.attn_v\.weight$=q4_k"


@pytest.mark.parametrize(
    "blocks", [[0], [9, 10], range(61), range(128), [0, 7, 100, 101, 110], [5, 15, 25, 99, 100, 199]]
)
def test_numbers_match_exactly_those_blocks(blocks):
    pattern = re.compile(module._numbers(blocks))
    assert [number for number in range(1100) if pattern.fullmatch(str(number))] == list(blocks)


def test_capitals_survive_being_lower_cased():
    assignment = {"blk.0.attn_Q.weight": Q4, "v.Proj(1)+x.weight": Q6}
    rules = write_rules(assignment)
    assert resolve(rules, assignment) == assignment


def test_names_that_no_rule_can_tell_apart_are_an_error():
    with pytest.raises(BadUsage, match="almost the same"):
        write_rules({"blk.0.attn_Q.weight": Q4, "blk.0.attn_q.weight": Q6})
    with pytest.raises(BadUsage, match="almost the same"):
        write_rules({"blk.0.attn_Q.weight": Q4}, ["blk.0.attn_q.weight"])


def test_first_match_wins_or_the_last():
    rules = (Rule("attn_v", Q6), Rule("attn_", Q4))
    assert resolve(rules, ["blk.0.attn_v.weight"])["blk.0.attn_v.weight"] == Q6
    assert resolve(rules, ["blk.0.attn_v.weight"], last_match=True)["blk.0.attn_v.weight"] == Q4
    with pytest.raises(BadUsage):
        check_rules(rules, {"blk.0.attn_v.weight": Q6})


def test_patterns_are_searched_lower_cased_as_the_tool_does():
    assert resolve((Rule(r"ATTN_\D", Q6),), ["blk.0.attn_1.weight", "blk.0.attn_v.weight"]) == {
        "blk.0.attn_1.weight": Q6
    }


def test_a_rule_that_matches_nothing_is_named_with_a_suggestion():
    with pytest.raises(NothingSelected, match="did you mean ffn_up"):
        check_all_match(parse_rules(r"^blk\.3\.ffn_upp\.weight$=q6_k").rules, names())
    with pytest.raises(BadUsage, match="matches no tensor"):
        check_rules((Rule("^output", Q6), Rule("ffn_down", Q4)), {"output.weight": Q6})


def test_rules_file_is_split_at_white_space():
    text = parse_rules("attn_v=Q6_K\n\n  ffn_.*=iq4_xs\toutput=q8_0 ")
    assert [str(rule) for rule in text.rules] == ["attn_v=q6_k", "ffn_.*=iq4_xs", "output=q8_0"]
    assert text.ftype is None


def test_written_rules_read_back():
    assignment = {name: Q6 if "attn" in name else Q4 for name in names(12)}
    rules = write_rules(assignment)
    assert parse_rules("\n".join(map(str, rules))).rules == rules
    assert parse_rules(" ".join(f"--tensor-type '{rule}'" for rule in rules)).rules == rules


def test_command_line():
    text = parse_rules(
        "./llama-quantize --imatrix i.gguf --pure --token-embedding-type q4_k --tensor-type "
        "'attn_(k|v)=q8_0' \\\n"
        '  --tensor-type "ffn_down=q6_k" --output-tensor-type q6_k in-f16.gguf out.gguf Q4_K_M 8'
    )
    assert [str(rule) for rule in text.rules] == ["attn_(k|v)=q8_0", "ffn_down=q6_k"]
    assert (text.ftype, text.pure, text.token_embedding, text.output) == ("Q4_K_M", True, Q4, Q6)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", BadFile, "no rules"),
        ("# mine\nattn_v=q6_k", BadFile, "no comments"),
        ("attn_v:q6_k", BadFile, "PATTERN=TYPE"),
        ("=q6_k", BadFile, "PATTERN=TYPE"),
        ("attn_v=", BadFile, "PATTERN=TYPE"),
        ("attn_v=q6k", NothingSelected, "Q6_K"),
        ("--tensor-type", BadFile, "ends after"),
        ("--tensor-type 'x", BadFile, "split"),
        ("--pure a.gguf Q4_K", BadFile, "no --tensor-type"),
        ("--tensor-type-file r.txt a.gguf Q4_K", BadFile, "r.txt"),
    ],
)
def test_bad_rule_texts(text, error, words):
    with pytest.raises(error, match=words):
        parse_rules(text)


def test_a_broken_expression_is_the_users_mistake():
    with pytest.raises(BadUsage, match="regular expression"):
        resolve((Rule("attn_(v", Q6),), names())
