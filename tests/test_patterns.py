"""Regular expressions of people: the same answers as Python's, in bounded time."""

import random
import re

import pytest

from quantplan.errors import BadUsage
from quantplan.patterns import regular_expression
from quantplan.recipes.rule_lists import parse_rule_list
from quantplan.recipes.rules import all_simple, resolve
from quantplan.selector import Selector
from quantplan.tensor import Tensor

ATOMS = [*"ab_.^$", r"\.", "[ab]", "[^a]", r"\d", r"\w", "[0-9_]", r"\b", r"\B", r"\S", r"[^\w]", ".*"]
ATOMS += ["(?=a)", "(?!b)", "(?<=a)", "(?<!b)", "(?i:A)"]
REPEATS = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?"]
ENDLESS = [
    "(a+)+$",
    "(x*)*y",
    "(a|ab|b)*c",
    "(a|a)*b",
    "(a?){40}a{40}b",
    ".*.*.*.*.*.*.*x",
    "(.*)*(.*)*(.*)*x",
    r"([a-z_.0-9]+\s?)*!",
    "(((ab?)+c?)+d?)+e",
    "(a{1,50}){1,50}b",
    "(?=(a+)+$)b",
]


def pattern_of(random_: random.Random, depth: int) -> str:
    choice = random_.random() if depth else 0.0
    if choice < 0.35:
        return random_.choice(ATOMS)
    if choice < 0.6:
        return pattern_of(random_, depth - 1) + pattern_of(random_, depth - 1)
    if choice < 0.75:
        return f"({pattern_of(random_, depth - 1)}|{pattern_of(random_, depth - 1)})"
    return f"(?:{pattern_of(random_, depth - 1)}){random_.choice(REPEATS)}"


def test_answers_are_those_of_python():
    random_, compared = random.Random(1), 0
    while compared < 3000:
        text = "".join(random_.choice("ab_.01A\n ") for _ in range(random_.randint(1, 8)))
        written = pattern_of(random_, random_.randint(1, 4))
        try:
            expected = re.search(written, text) is not None
        except re.error:
            continue
        assert regular_expression(written).search(text) == expected, (written, text)
        compared += 1


@pytest.mark.parametrize("text", ENDLESS)
def test_patterns_that_may_take_for_ever(text, monkeypatch):
    """Found, not found, or given up: but an end."""
    monkeypatch.setattr("quantplan.patterns.SEARCH_SECONDS", 0.05)
    pattern = regular_expression(text)
    assert not pattern.simple
    for name in ("a" * 62 + "!", "a" * 3000 + "!"):
        try:
            assert pattern.search(name) == text.endswith("!")
        except BadUsage as error:
            assert f"the regular expression {text} was searched in" in str(error)


def test_a_search_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr("quantplan.patterns.SEARCH_SECONDS", 0.05)
    with pytest.raises(BadUsage, match="without an end; write it without repeats within repeats"):
        Selector("/(a{1,50}){1,50}b/").matches(Tensor("a" * 63, (32,), None))


@pytest.mark.parametrize(
    "text", [r"blk\.([0-9]|[1-5][0-9])\.ffn_(up|down)_exps\.weight", ".*ffn_.*_exps.*", r"^blk\.\d+\.attn_v", "x{1000}"]
)
def test_ordinary_patterns_are_simple(text):
    assert regular_expression(text).simple


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("((a{1000}){1000}){1000}", "more than 200,000 parts"),
        ("(" * 5000 + ")" * 5000, "nested too deeply"),
        ("a{99999999999}", "more than 200,000 parts"),
        ("[z-a]", "bad character range"),
    ],
)
def test_patterns_that_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        regular_expression(text)
    with pytest.raises(BadUsage, match="is not a regular expression"):
        Selector(f"/{text}/").matches(Tensor("a", (32,), None))


@pytest.mark.parametrize("text", ["x{1000}" * 99, "([0-9]{1,3}_){1,3}" * 60, r"\(\{[(){}]{2}[]{9]{3}" * 99])
def test_large_patterns_that_are_taken(text):
    regular_expression(text)


def test_rules_that_llama_quantize_might_never_end_with():
    assert not all_simple(parse_rule_list("(a+)+b$=q4_k").rules)
    assert not all_simple(parse_rule_list(".*a.*a.*a.*a.*a.*c=q6_k").rules)
    names = ["a" * 62 + "b", *(f"blk.{block}.ffn_gate_exps.weight" for block in range(60))]
    rules = parse_rule_list("(a+)+b$=q4_k (x*)*y=q6_k .*a.*a.*a.*a.*a.*c=q6_k").rules
    assert set(resolve(rules, names)) == {names[0]}
