"""Suites as people write them: read as meant, and each mistake named by file, place and key."""

import json
import re

import pytest

from quantplan.errors import BadFile, BadUsage
from quantplan.evaluate.suites.suite import KINDS, chosen, joined
from quantplan.evaluate.suites.suite_files import BUNDLED, SHORT, bundled_suite, read_suite

SMALL = """\
format: quantplan-suite
version: 1
name: small
parts:
  - name: facts
    kind: facts
    weight: 2
    max_tokens: 8
    instruction: Be brief.
    items:
      - question: Is it so?
        accept: [yes, no, 1.50, 2024-03-01]
      - name: second
        question: "Where: here or there?"
        accept: here
        max_tokens: 4
  - kind: math
    weight: 0.5
    max_tokens: 8
    items:
      - {question: "1 + 1.50?", answer: 2.50}
"""


def write(folder, text):
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_suite_is_read_as_it_stands(tmp_path):
    suite = read_suite(write(tmp_path, SMALL))
    facts, math = suite.parts
    assert (suite.name, suite.items, suite.total_weight) == ("small", 3, 2.5)
    assert (facts.instruction, facts.weight, math.name) == ("Be brief.", 2.0, "math")
    assert facts.items[0].accept == ("yes", "no", "1.50", "2024-03-01")  # nothing turned into truths, floats or dates
    assert [(item.name, item.max_tokens) for item in facts.items] == [("1", 8), ("second", 4)]
    assert facts.items[1].accept == ("here",)
    assert math.items[0].answer == "2.50"  # three significant digits


def test_the_digest_is_of_what_is_asked(tmp_path):
    first = read_suite(write(tmp_path, SMALL)).digest
    assert read_suite(write(tmp_path, SMALL.replace("name: small", "name: other # renamed"))).digest == first
    for old, new in (
        ("weight: 2", "weight: 3"),
        ("1.50?", "1.5?"),
        ("max_tokens: 4", "max_tokens: 5"),
        ("[yes", "[yeah"),
    ):
        assert read_suite(write(tmp_path, SMALL.replace(old, new))).digest != first


def test_the_suite_short():
    suite = read_suite(SHORT)
    assert suite == read_suite(bundled_suite(SHORT))
    count = {part.kind: len(part.items) for part in suite.parts}
    assert set(count) | {part.kind for part in read_suite("assistant").parts} == set(KINDS)
    assert count["facts"] == 17
    assert count["coherence"] >= 4 and count["math"] == 12 and count["feelings"] == 8 and count["reasoning"] == 20
    assert suite.total_weight == 100
    topics = [item.topic for part in suite.parts if part.kind == "reasoning" for item in part.items]
    assert {topic: topics.count(topic) for topic in topics} == dict.fromkeys(
        ("causal", "date", "logic", "navigation", "arithmetic"), 4
    )


def test_reference_answers_of_the_suite_short_are_right():
    """Computed anew: a wrong key would punish the models that are right."""
    import datetime
    import math

    by_name = {item.name: item for part in read_suite(SHORT).parts for item in part.items}
    right = {
        "sum": 48 + 76,
        "difference": 903 - 457,
        "product": 17 * 23,
        "quotient": 1092 / 7,
        "percent": 0.35 * 2460,
        "square": 27**2,
        "root": round(math.sqrt(7), 4),
        "power": 2**15,
        "long sum": 4821 + 3694,
        "long product": 318 * 7,
        "fraction": 7 / 16,
        "area": 12.5 * 8.4,
        "eggs": 3 * (12 - 5),
        "train": 90 * 40 / 60,
        "stamps": 60 / 5,
        "shirt": 60 * 0.75 - 5,
        "back": 9 - 5,
        "age": 2020 - 1990 - 1,
        "closed": (datetime.date(2025, 1, 3) - datetime.date(2024, 12, 28)).days + 1,
    }
    for name, value in right.items():
        assert float(by_name[name].answer) == pytest.approx(value), name
    assert datetime.date(2025, 3, 15) + datetime.timedelta(30) == datetime.date(2025, 4, 14)
    wednesday = datetime.date(2025, 1, 1)
    assert (wednesday + datetime.timedelta(10)).strftime("%A") == by_name["ten days"].answer


@pytest.mark.parametrize("name", BUNDLED)
def test_the_wheel_has_the_bundled_suites(name):
    """Hatch takes the package's folder as it is, less what git ignores."""
    import subprocess

    path = bundled_suite(name)
    assert path.parents[2].name == "quantplan"
    found = subprocess.run(["git", "check-ignore", str(path)], cwd=path.parent, capture_output=True, check=False)
    if found.returncode == 128:
        pytest.skip("not a git checkout")
    assert found.returncode == 1


# what is changed in SMALL, into what, and the message: line, part, item, key, what is allowed
MISTAKES = [
    ("format: quantplan-suite\n", "", "not a suite; a suite begins with `format: quantplan-suite`"),
    ("quantplan-suite", "other", "not a suite; a suite begins with"),
    ("version: 1", "version: 9", r"version 9 is unknown \(1 to 2\); update quantplan"),
    ("accept: here", "accepts: here", r"line 13: part 1 \(facts\), item 2 \(second\): `accept` is missing"),
    (
        "accept: here",
        "accept: here\n        hint: x",
        "line 16: .*`hint` is unknown here; the keys are accept, max_tokens",
    ),
    (
        "- kind: math",
        "- kind: math\n    hints: x",
        "line 18: part 2: `hints` is unknown here; the keys are at_least",
    ),
    ("name: small", "name: small\nhint: x", "line 4: `hint` is unknown here; the keys are about, format"),
    ("kind: facts", "kind: fact", "line 5: part 1 .*`kind` is 'fact'; the kinds are tools, instructions"),
    ("    kind: facts\n", "", "line 5: part 1 .*`kind` is missing"),
    ("weight: 0.5", "weight: heavy", "line 18: part 2: `weight` is 'heavy'; must be a number"),
    ("weight: 2", "weight: 0", "line 7: .*`weight` is '0'; must be greater than 0"),
    ("weight: 2", "weight: inf", "line 7: .*`weight` is 'inf'; must be a finite number"),
    ("answer: 2.50", "answer: two", "line 21: part 2, item 1: `answer` is 'two'; must be a number such as"),
    ("max_tokens: 4", "max_tokens: -4", "line 16: .*`max_tokens` is '-4'; must be greater than or equal to 1"),
    ("max_tokens: 4", "max_tokens: few", "line 16: .*`max_tokens` is 'few'; must be a whole number"),
    ("    max_tokens: 8\n    items:\n      - {", "    items:\n      - {", "item 1: `max_tokens` is missing"),
    ("weight: 2", "weight: 2\n    thinking: often", "line 8: .*`thinking` is 'often'; must be 'true' or 'false'"),
    ("question: Is it so?", "question:", "line 11: .*item 1: `question` is empty; write a text"),
    ("[yes, no, 1.50, 2024-03-01]", "[]", "line 12: .*`accept` is a list of 0; at least one entry is needed"),
    ("[yes, no, 1.50, 2024-03-01]", "{a: b}", r"`accept` is a mapping of 1; must be a list, such as \[this, that\]"),
    ("accept: here", "accept: /he(re/", r"line 15: .*/he\(re/ is not a regular expression"),
    (
        '- {question: "1 + 1.50?", answer: 2.50}',
        "- just text",
        "line 21: part 2, item 1: this is 'just text'; keys with",
    ),
    ("kind: math", "kind: math\n    name: facts", "two parts have the name 'facts'; give each its own"),
    ("name: second", 'name: "1"', "line 5: part 1 .*two items have the name '1'"),
    ("weight: 2", "weight: 2\n    weight: 3", "line 8, column 5: not YAML .*the key 'weight' twice"),
    ('"Where: here or there?"', "Where: here or there?", "line 14, column 24: not YAML .*need quotes"),
    (SMALL[SMALL.index("parts") :], "parts: []", "line 4: `parts` is a list of 0; at least one entry is needed"),
    (SMALL, "- a\n- b\n", "not a suite"),
    (SMALL, "? [a, b]\n: c\n", "line 1, column 3: not YAML .*a key that is not text"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[message[:30] for _, _, message in MISTAKES])
def test_mistakes_are_named_with_their_place(old, new, message, tmp_path):
    assert old in SMALL
    with pytest.raises(BadFile, match=message) as caught:
        read_suite(write(tmp_path, SMALL.replace(old, new, 1)))
    assert str(caught.value).startswith(str(tmp_path / "suite.yaml"))
    assert not re.search(r"  |, ,| :", str(caught.value).removeprefix(str(tmp_path)))


def test_all_mistakes_are_named_at_once(tmp_path):
    text = SMALL.replace("weight: 2", "weight: 0").replace("accept: here", "accept: /(/").replace("2.50", "two")
    with pytest.raises(BadFile) as caught:
        read_suite(write(tmp_path, text))
    lines = str(caught.value).splitlines()
    assert [re.search(r"line \d+", line)[0] for line in lines] == ["line 7", "line 15", "line 21"]


PART = """\
format: quantplan-suite
version: 1
parts:
  - kind: {kind}
    weight: 1
    max_tokens: 8
    items:
      - {item}
"""
ITEM_MISTAKES = [
    (
        "reasoning",
        '{question: "Who?", choices: [a, b], answer: c}',
        "line 9: part 1, item 1: `answer` is 'c'; it must be one of the `choices`",
    ),
    ("reasoning", '{question: "Who?", choices: [a], answer: a}', "`choices` needs at least 2 entries"),
    ("reasoning", '{question: "Who?"}', "`answer` or `accept` is needed, and only one of them"),
    ("reasoning", '{question: "Who?", answer: Ann}', "`answer` is 'Ann', not a number; add `choices`"),
    (
        "feelings",
        "{dialogue: Oh!, who: Ann, feelings: {joy: 11}}",
        "`feelings.joy` is '11'; must be less than or equal to 10",
    ),
    (
        "feelings",
        "{dialogue: Oh!, who: Ann, feelings: [joy]}",
        "`feelings` is a list of 1; keys with values are needed",
    ),
    ("feelings", "{dialogue: Oh!, who: '', feelings: {joy: 1}}", "`who` is empty; write a text"),
    ("coherence", "{text: Once, keywords: [a], needed: 2}", "`needed` is 2, more than the 1 `keywords`; lower it"),
    ("coherence", "{text: Once, keywords: [a]}", "line 4: part 1: `common_words` is missing"),
    ("ending", '{question: "Who?", at_least: many}', "`at_least` is 'many'; must be a whole number"),
    ("code", '{question: "Who?", tests: [f(2) =]}', "`tests` is a list of 1; 'f(2) =' is not an expression in Python"),
    ("code", '{question: "Who?", tests: []}', "`tests` is a list of 0; at least one entry is needed"),
    (
        "instructions",
        '{question: "Who?", checks: {}}',
        "`checks` has none that checks anything; add one, such as `words: 5-20`",
    ),
    ("instructions", '{question: "Who?", checks: {word: 3}}', "`checks.word` is unknown here; the keys are"),
    (
        "instructions",
        '{question: "Who?", checks: {words: few}}',
        "`checks.words` is 'few'; must be a number or a range: 5, 5-20",
    ),
    ("instructions", '{question: "Who?", checks: {words: 9-5}}', "`checks.words` is '9-5'; 9-5 ends before it begins"),
    ("instructions", '{question: "Who?", checks: {language: xx}}', "`checks.language` is 'xx'; must be '', 'ar', 'de'"),
    (
        "instructions",
        '{question: "Who?", checks: {json: {type: text}}}',
        "`checks.json` is a mapping of 1; type must be",
    ),
    ("instructions", '{question: "Who?", checks: {contains: /he(re/}}', "/he(re/ is not a regular expression"),
    ("tools", '{question: "Who?", calls: []}', "part 1: `tools` is missing; add those that its items offer"),
    ("perplexity", "{text: Once}", "perplexity is measured on a text; leave `items` and `generate` out"),
]


@pytest.mark.parametrize(("kind", "item", "message"), ITEM_MISTAKES)
def test_mistakes_in_items(kind, item, message, tmp_path):
    text = PART.replace("{kind}", kind).replace("{item}", item)
    if "common_words" not in message:
        text = text.replace("    weight: 1\n", "    weight: 1\n    common_words: [the of]\n")
    with pytest.raises(BadFile, match=re.escape(message)):
        read_suite(write(tmp_path, text))


TOOLS = """\
format: quantplan-suite
version: 2
parts:
  - kind: tools
    weight: 1
    max_tokens: 8
    tools:
      - name: get_weather
        description: Get the weather
        parameters: {type: object, properties: {city: {type: string}, days: {type: integer, maximum: 7}}, required: [city]}
      - {name: ping, description: Nothing, parameters: {type: object, properties: {}}}
    items:
      - {question: "Weather?", calls: [{name: get_weather, arguments: {city: "1", days: 3}}], offer: get_weather}
      - {name: hello, question: "Hello!", calls: []}
"""


def test_tools_and_their_json(tmp_path):
    part = read_suite(write(tmp_path, TOOLS)).parts[0]
    first, second = part.items
    assert [tool.name for tool in first.tools] == ["get_weather"] and [tool.name for tool in second.tools] == [
        "get_weather",
        "ping",
    ]
    assert json.loads(first.calls[0].arguments) == {"city": "1", "days": 3}  # quoted: a text, not quoted: a number
    assert second.calls == () and json.loads(first.tools[0].parameters)["properties"]["days"]["maximum"] == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "days: 3",
            "days: three",
            "item 1 calls get_weather with arguments that its `parameters` do not allow: days must be",
        ),
        ("days: 3", "days: 9", "days must be less than or equal to 7"),
        ('city: "1", days', "days", "city is missing"),
        (
            "{name: get_weather, arg",
            "{name: get_rain, arg",
            "item 1 no tool 'get_rain'; the `tools` of the part are get_w",
        ),
        ("offer: get_weather", "offer: ping", "item 1 calls 'get_weather', which its `offer` does not list"),
        ("name: ping", "name: get_weather", "part 1: two tools have the name 'get_weather'; give each its own"),
        (
            "name: ping",
            "name: two words",
            "line 11: part 1, tool 2 (two words): `name` is 'two words'; must be letters, digits",
        ),
        ("name: hello", "name: '1'", "part 1: two items have the name '1'; give each its own"),
        (
            "type: integer, maximum",
            "type: whole, maximum",
            "line 10: part 1, tool 1 (get_weather): `parameters` is a mapping of 3; properties.days",
        ),
        ("parameters: {type: object, properties: {}}", "parameters: {type: string}", "must be of the type object"),
        (
            "parameters: {type: object, properties: {}}",
            "parameters: object",
            "`parameters` is 'object'; must be an object",
        ),
        (
            "description: Nothing",
            "description: Nothing, hint: x",
            "tool 2 (ping): `hint` is unknown here; the keys are",
        ),
        (
            "{name: get_weather, arg",
            "{of: x, name: get_weather, arg",
            "`calls.of` is unknown here; the keys are arguments, name",
        ),
        (", calls: []", "", "item 2 (hello): `calls` is missing"),
        ("kind: tools", "kind: facts", "`calls` is unknown here"),
        ('{city: "1", days: 3}', "&a [*a]", "not YAML (found unconstructable recursive node)"),
    ],
)
def test_mistakes_in_tools(old, new, message, tmp_path):
    assert old in TOOLS
    with pytest.raises(BadFile, match=re.escape(message)):
        read_suite(write(tmp_path, TOOLS.replace(old, new, 1)))


GENERATED = """\
format: quantplan-suite
version: 2
parts:
  - kind: reasoning
    weight: 1
    max_tokens: 8
    generate: {name: arithmetic, count: 3, seed: 5}
"""


def test_generated_items(tmp_path):
    part = read_suite(write(tmp_path, GENERATED)).parts[0]
    assert len(part.items) == 3 and all(item.max_tokens == 8 and item.answer for item in part.items)
    listed = GENERATED + '    items:\n      - {question: "1 + 1?", answer: 2}\n'
    both = read_suite(write(tmp_path, listed)).parts[0]
    assert [item.answer for item in both.items] == ["2", *(item.answer for item in part.items)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arithmetic", "algebra", "`generate.name` is 'algebra'; must be 'arithmetic', 'instructions'"),
        ("name: arithmetic", "name: code", "`generate: code` makes items of the kind code"),
        ("count: 3", "count: 0", "`generate.count` is '0'; must be greater than or equal to 1"),
        ("    max_tokens: 8\n", "", "`max_tokens` is missing; add `max_tokens: ...` for the items that are generated"),
        (
            "    generate: {name: arithmetic, count: 3, seed: 5}\n",
            "",
            "`items` is missing; add `items: ...`, or `generate: ...`",
        ),
        (
            "seed: 5}",
            'seed: 5}\n    items: [{name: sum 1, question: "?", answer: 1}]',
            "two items have the name 'sum 1'",
        ),
    ],
)
def test_mistakes_in_generated_parts(old, new, message, tmp_path):
    with pytest.raises(BadFile, match=re.escape(message)):
        read_suite(write(tmp_path, GENERATED.replace(old, new, 1)))


def test_parts_that_are_chosen(tmp_path):
    suite = read_suite(write(tmp_path, SMALL))
    assert [part.name for part in chosen(suite, ["math"]).parts] == ["math"]
    assert [part.name for part in chosen(suite, ["-math"]).parts] == ["facts"] and chosen(suite, []) == suite
    with pytest.raises(BadUsage, match="--parts maths: the suite small has the parts facts, math"):
        chosen(suite, ["maths"])
    with pytest.raises(BadUsage, match="no part of the suite small is left"):
        chosen(suite, ["-math", "-facts"])


def test_files_that_are_none(tmp_path):
    with pytest.raises(
        BadFile, match="cannot read the suite .*none.yaml: No such file.*a bundled one: assistant or short"
    ):
        read_suite(tmp_path / "none.yaml")
    (tmp_path / "suite.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="not UTF-8 text; a suite is a YAML file, see docs/suites.md"):
        read_suite(tmp_path / "suite.yaml")


def test_suites_side_by_side(tmp_path):
    small = read_suite(write(tmp_path, SMALL))
    both = joined([read_suite(SHORT), small])
    assert both.name == "short+small"
    assert [part.name for part in both.parts][-2:] == ["small:facts", "small:math"]
    assert both.items == read_suite(SHORT).items + small.items
    with pytest.raises(BadUsage, match="two suites have the name small and a part facts"):
        joined([small, small, small])
