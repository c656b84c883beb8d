"""Scripts cut into commands, and texts of any characters, which must end."""

import random

import pytest

from quantplan.errors import BadFile, QuantplanError
from quantplan.recipes.rule_texts import parse_rules
from quantplan.recipes.shell_commands import Shell


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("a b | c && d; e & f", [["a", "b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a 'b c' \"d e\" f\\ g h'i'j", [["a", "b c", "d e", "f g", "hij"]]),
        ("a # b\nc#d", [["a"], ["c#d"]]),
        ("a > out 2>&1 < in b", [["a", "b"]]),
        ("a \\\n  b", [["a", "b"]]),
        ("X=1 Y='2 3'\nexport Z=4\na $X ${Y} \"$Z\" '$X' $W", [["a", "1", "2 3", "4", "$X", "$W"]]),
        ("X=$(date)\na $X", [["a", "$X"]]),
        ("(cd x; a)", [["cd", "x"], ["a"]]),
        ("a x.(k|v)=1 (k|v)=2", [["a", "x.(k|v)=1", "(k|v)=2"]]),
        ("cat <<END | b\nc 'd\nEND\ne", [["cat"], ["b"], ["e"]]),
        ("a\x0cb\u2003c", [["a", "b", "c"]]),
    ],
)
def test_commands(script, commands):
    assert Shell().commands(script) == commands


@pytest.mark.parametrize(
    ("script", "words"), [("a\nb 'c", "the ' in line 2"), ('a "b', 'the " in line 1'), ("a $(b", "the [(]")]
)
def test_quotes_without_an_end(script, words):
    with pytest.raises(BadFile, match=words):
        Shell().commands(script)


def test_any_text_ends():
    chance = random.Random(0)
    pieces = [
        *"'\"`\\$(){}[]<>|&;#=+-,.\n\t \r\x0c",
        "<<",
        "<<E",
        "$(",
        "${",
        "llama-quantize ",
        "--tensor-type ",
        "a=q8_0",
        "```\n",
    ]
    for _ in range(300):
        text = "".join(chance.choices(pieces, k=chance.randrange(1, 40)))
        try:
            parse_rules(text)
        except QuantplanError as error:
            assert len(str(error)) < 400
