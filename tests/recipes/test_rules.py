import random
import re

import numpy as np
import pytest

from quantplan.errors import BadUsage
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import BY_NAME
from quantplan.recipes.rule_texts import parse_rules
from quantplan.recipes.rules import check_rules, near_roles, resolve, role_rules, write_rules

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


def rank(assignment, kind):
    """Of the table of blocks by roles that have the type: no disjoint cover by rectangles has fewer."""
    table = [[assignment[f"blk.{block}.{role}.weight"] == kind for role in ROLES] for block in range(64)]
    return np.linalg.matrix_rank(np.array(table, float))


@pytest.mark.parametrize("seed", range(5))
def test_no_cover_of_a_random_plan_is_smaller(seed):
    chance = random.Random(seed)
    assignment = {name: chance.choice([Q4, Q6, Q8]) for name in names()}
    rules = [rule for rule in write_rules(assignment) if "blk" in rule.pattern]
    assert len(rules) == sum(rank(assignment, kind) for kind in (Q4, Q6, Q8))


@pytest.mark.parametrize("seed", range(5))
def test_layers_of_one_kind_take_a_rule_for_each_kind(seed):
    """Blocks that are alike in all roles, and one role apart: one rule a type instead of one a role and type."""
    chance = random.Random(seed)
    kinds = [chance.choice([Q4, Q6, Q8]) for _ in range(64)]
    assignment = {name: Q8 if "attn_v" in name else kinds[int(name.split(".")[1])] for name in names() if "blk" in name}
    rules = write_rules(assignment, names())
    assert len(rules) == 4
    assert len(role_rules(assignment, names())) == 3 * 4 + 1
    assert rules[0].pattern == r"^blk\.[0-9]+\.attn_v\.weight$"


def test_blocks_that_lack_a_role_do_not_part_rules():
    """Two kinds of attention in turn, as in Qwen3.5: neither role is in all blocks, together they are one rule."""
    assignment = {f"blk.{block}.{'attn_q' if block % 4 == 3 else 'attn_qkv'}.weight": Q4 for block in range(24)}
    (rule,) = write_rules(assignment, ["blk.0.attn_norm.weight"])
    assert str(rule) == r"^blk\.[0-9]+\.attn_q(kv|)\.weight$=q4_k"
    odd = assignment | {"blk.0.attn_qkv.weight": Q6, "blk.1.attn_qkv.weight": Q6}
    assert len(write_rules(odd)) == 2 + 1  # the rest of attn_qkv, all of attn_q, the two
    assert resolve(write_rules(odd), odd, last_match=True) == odd


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
    (rule,) = write_rules(assignment, ["blk.0.attn_v.weight"])
    assert str(rule) == r"^blk\.([37]|1[0-5])\.attn_v\.weight$=q4_k"
    assert str(write_rules(assignment)[0]) == r"^blk\.[0-9]+\.attn_v\.weight$=q4_k"


@pytest.mark.parametrize(
    "blocks", [[0], [9, 10], range(61), range(128), [0, 7, 100, 101, 110], [5, 15, 25, 99, 100, 199]]
)
def test_rules_match_exactly_those_blocks(blocks):
    every = [f"blk.{number}.attn_v.weight" for number in range(1100)]
    (rule,) = write_rules({every[block]: Q4 for block in blocks}, every)
    pattern = re.compile(rule.pattern)
    assert [number for number in range(1100) if pattern.search(every[number])] == list(blocks)


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


def test_classes_of_std_regex_are_read():
    rules = (Rule(r"^blk\.[[:digit:]]+\.attn_[[:alpha:]]\.weight$", Q6),)
    assert list(resolve(rules, ["blk.12.attn_v.weight", "blk.x.attn_v.weight", "blk.1.attn_1.weight"])) == [
        "blk.12.attn_v.weight"
    ]


def test_a_rule_that_matches_nothing_has_a_suggestion():
    (rule,) = parse_rules(r"^blk\.3\.ffn_upp\.weight$=q6_k").rules
    assert near_roles(rule, names()).startswith("did you mean ffn_up")
    with pytest.raises(BadUsage, match="matches no tensor"):
        check_rules((Rule("^output", Q6), Rule("ffn_down", Q4)), {"output.weight": Q6})


def test_1100_tensors_and_300_rules_are_checked_in_one_pass(monkeypatch):
    searched = 0

    class Counting:
        def __init__(self, pattern):
            self.pattern = re.compile(pattern)

        def search(self, name):
            nonlocal searched
            searched += 1
            return self.pattern.search(name)

    monkeypatch.setattr("quantplan.recipes.rules.compiled", lambda rule, keep_case=False: Counting(rule.pattern))
    assignment = {f"blk.{block}.{role}.weight": Q4 for block in range(220) for role in ROLES}
    rules = [Rule(f"^{name}$".replace(".", r"\."), Q4) for name in list(assignment)[:300]]
    check_rules(rules, dict(list(assignment.items())[:300]), list(assignment)[300:])
    assert searched == 1100 * 300


def test_case_is_kept_where_it_is_asked_for():
    rules = (Rule("Attn_v", Q6),)
    assert resolve(rules, ["blk.0.attn_v.weight"]) and not resolve(rules, ["blk.0.attn_v.weight"], keep_case=True)


def test_one_role_and_type_a_rule_in_the_models_order():
    assignment = {name: Q6 if "attn" in name else Q4 for name in names(12)} | {"output.weight": Q8}
    rules = role_rules(assignment, names(12))
    assert [str(rule) for rule in rules[:3]] == [
        r"^token_embd\.weight$=q4_k",
        r"^output\.weight$=q8_0",
        r"^blk\.([0-9]|1[01])\.attn_q\.weight$=q6_k",
    ]
    assert len(rules) == 2 + len(ROLES)


def test_a_broken_expression_is_the_users_mistake():
    with pytest.raises(BadUsage, match="regular expression"):
        resolve((Rule("attn_(v", Q6),), names())
