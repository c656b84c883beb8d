"""Regular expressions of people: the same answers as Python's, in bounded time."""

import random
import re

import pytest

from quantplan.errors import BadUsage
from quantplan.patterns import _Positions, regular_expression
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


def test_positions_answer_as_backtracking_does():
    random_, compared = random.Random(1), 0
    while compared < 3000:
        text = "".join(random_.choice("ab_.01A\n ") for _ in range(random_.randint(1, 8)))
        try:
            pattern = regular_expression(written := pattern_of(random_, random_.randint(1, 4)))
        except ValueError:
            continue
        positions, compared = _Positions(text), compared + 1
        found = positions.reached(pattern._items, pattern._flags, positions.all)
        assert bool(found) == (re.search(written, text) is not None), (written, text)


@pytest.mark.parametrize("text", ENDLESS)
def test_patterns_that_would_take_for_ever(text):
    pattern = regular_expression(text)
    assert not pattern.simple
    for name in ("a" * 62 + "!", "a" * 3000 + "!"):
        assert pattern.search(name) == text.endswith("!")


@pytest.mark.parametrize(
    "text", [r"blk\.([0-9]|[1-5][0-9])\.ffn_(up|down)_exps\.weight", ".*ffn_.*_exps.*", r"^blk\.\d+\.attn_v", "x{1000}"]
)
def test_ordinary_patterns_are_simple(text):
    assert regular_expression(text).simple


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"(a|b)\1", "refers back to a group"),
        ("(((((a+)+)+)+)+)", "repeats in repeats"),
        ("(" * 5000 + ")" * 5000, ""),
        ("a{99999999999}", ""),
        ("[z-a]", "bad character range"),
    ],
)
def test_patterns_that_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        regular_expression(text)
    with pytest.raises(BadUsage, match="is not a regular expression"):
        Selector(f"/{text}/").matches(Tensor("a", (32,), None))


def test_rules_and_selectors_are_searched_in_bounded_time():
    names = ["a" * 62 + "b", *(f"blk.{block}.ffn_gate_exps.weight" for block in range(60))]
    rules = parse_rule_list("(a+)+b$=q4_k (x*)*y=q6_k .*a.*a.*a.*a.*a.*c=q6_k").rules
    assert not all_simple(rules)
    assert set(resolve(rules, names)) == {names[0]}
    assert not Selector(r"/([a-z_.0-9]+)*[^a-z_.0-9]$/").matches(Tensor(names[1], (32,), None))
