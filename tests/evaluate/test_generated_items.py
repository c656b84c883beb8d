"""Items that a program makes: always the same, all different, and with right answers."""

import json
import re

import pytest

from quantplan.evaluate.suites.checks import failures
from quantplan.evaluate.suites.generated.generators import GENERATORS, generate, with_items
from quantplan.evaluate.suites.json_schema import schema_text, violations
from quantplan.evaluate.suites.suite import Generated
from quantplan.evaluate.suites.suite_files import ASSISTANT, read_suite


@pytest.fixture(scope="module", params=GENERATORS)
def generated(request):
    return Generated(request.param, 60, 1, 64)


def test_fewer_are_the_first_of_more(generated):
    many = generate(generated)
    assert len(many) == 60 and generate(generated, 7) == many[:7]
    assert len({item.text for item in many}) == len({item.name for item in many}) == 60
    others = {item.text for item in generate(Generated(generated.name, 60, 2, 64))}
    assert len(others - {item.text for item in many}) > 20


def test_every_python_makes_the_same_items():
    """The digest of the bundled suite: scores from before a change of it do not compare with those after it."""
    suite = read_suite(ASSISTANT)
    assert suite.digest[:16] == "0770ce92390403df"
    assert suite.items == 320 and suite.total_weight == 100
    assert {part.name: len(part.items) for part in suite.parts} == {
        "tools": 60,
        "instructions": 60,
        "code": 40,
        "arithmetic": 60,
        "facts": 60,
        "ending": 40,
    }


def test_sums_are_right():
    for item in generate(Generated("arithmetic", 300, 3, 8)):
        asked = re.fullmatch(r"What is ([\d +x()-]+)\?", item.text)
        if asked:
            assert eval(asked[1].replace("x", "*")) == int(item.answer)
        assert re.fullmatch(r"-?\d+(\.\d*[1-9])?", item.answer)


def test_calls_are_allowed_by_their_schemas():
    items = generate(Generated("tools", 300, 3, 8))
    for item in items:
        schemas = {tool.name: tool.parameters for tool in item.tools}
        assert all(schema_text(json.loads(schema)) for schema in schemas.values())
        assert all(violations(json.loads(call.arguments), schemas[call.name]) == [] for call in item.calls)
        assert len(schemas) == len(item.tools)
    assert {len(item.calls) for item in items} == {0, 1, 2}


def test_tests_of_programs_are_expressions():
    items = generate(Generated("code", 100, 3, 8))
    for item in items:
        name = re.search(r"`(\w+)\(", item.text)[1]
        assert item.tests and all(test.startswith(f"{name}(") and compile(test, "t", "eval") for test in item.tests)


def test_instructions_are_checked():
    for item in generate(Generated("instructions", 200, 3, 8)):
        assert item.checks.names
        assert failures("Zebra", item.checks) or item.text.startswith("Name ")


def test_instructions_can_be_followed():
    """One right answer to one of each."""
    by_name = {re.sub(r" \d+$", "", item.name): item for item in generate(Generated("instructions", 30, 1, 8))}
    said = {
        "sort": "\n".join(sorted(re.search(r": (.*)", by_name["sort"].text)[1].split(", "))),
        "repeat": by_name["repeat"].text.partition(": ")[2],
        "json list": json.dumps(["a"] * 6),
        "one word": "Iron.",
        "brackets": "[The garden is small but green.]",
        "question": "How dry is it?",
        "capitals": "IT SMELLS OF BREAD.",
    }
    assert {name: failures(text, by_name[name].checks) for name, text in said.items()} == dict.fromkeys(said, [])


def test_more_and_fewer_items():
    suite = read_suite(ASSISTANT)
    few, many = with_items(suite, 5), with_items(suite, 70)
    assert [len(part.items) for part in few.parts] == [5] * 6
    assert [len(part.items) for part in many.parts] == [70, 70, 70, 70, 60, 40]
    assert all(part.items[:5] == other.items for part, other in zip(suite.parts, few.parts, strict=True))
    assert len({suite.digest, few.digest, many.digest}) == 3
    assert with_items(many, 60).parts[0].items == suite.parts[0].items
