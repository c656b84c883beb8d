"""Calls of tools: read in every form, and right only with exactly the arguments that are asked for."""

import json

import pytest

from quantplan.evaluate.suites import graders
from quantplan.evaluate.suites.answers import Reply
from quantplan.evaluate.suites.suite import SuiteItem, SuitePart
from quantplan.evaluate.suites.tool_calls import Tool, ToolCall, calls_in

WEATHER = Tool(
    "get_weather",
    "The weather",
    json.dumps(
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            },
            "required": ["city"],
        }
    ),
)
PING = Tool("ping", "Nothing", json.dumps({"type": "object", "properties": {}}))
TOOLS = (WEATHER, PING)
OSLO = ("get_weather", {"city": "Oslo", "days": 3})

FORMS = {
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>',
    "llama": '{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3.0}}',
    "llama tag": '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}',
    "mistral": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}]',
    "mistral args": '[TOOL_CALLS]get_weather[CALL_ID]a1[ARGS]{"city": "Oslo", "days": 3}',
    "qwen coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    "</function>\n</tool_call>",
    "minimax": '<invoke name="get_weather"><parameter name="city">Oslo</parameter><parameter name="days">3</parameter></invoke>',
    "glm": "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
    "<arg_value>3</arg_value>\n</tool_call>",
    "deepseek": '<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Oslo", "days": 3}\n```',
    "harmony": '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo", "days": 3}',
    "kimi": '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Oslo", "days": 3}<|tool_call_end|>',
    "function tag": '<function=get_weather>{"city": "Oslo", "days": 3}</function>',
    "functionary": '>>>get_weather\n{"city": "Oslo", "days": 3}',
    "name as key": '[{"get_weather": {"city": "Oslo", "days": 3}}]',
    "openai": '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\", \\"days\\": 3}"}}',
    "command-r": 'Action: ```json\n[{"tool_name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}]\n```',
    "python": '<|tool_call_start|>[get_weather(city="Oslo", days=3)]<|tool_call_end|>',
    "words before": 'I will look.\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form):
    found = calls_in(FORMS[form], TOOLS)
    assert (found.calls, found.broken) == ((OSLO,), False)


def test_several_calls():
    two = FORMS["hermes"] + '\n<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    assert calls_in(two, TOOLS).calls == (OSLO, ("ping", {}))
    assert calls_in('[get_weather(city="Oslo", days=3), ping()]', TOOLS).calls == (OSLO, ("ping", {}))


@pytest.mark.parametrize(
    "text",
    [
        "The weather in Oslo is fine.",
        'I would call get_weather(city="Oslo") now.',
        'A set is {"a": 1}, a list [1, 2].',
        "get_weather(1) + 2",
        "",
        "[" * 5000,
        "{" * 5000,
    ],
)
def test_texts_without_a_call(text):
    found = calls_in(text, TOOLS)
    assert (found.calls, found.broken) == ((), False)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}',
        "{'name': 'get_weather', 'arguments': {'city': 'Oslo'}}",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": Oslo}}]',
        FORMS["hermes"] + '\n<tool_call>\n{"name": "pi',
    ],
)
def test_calls_that_cannot_be_read(text):
    assert calls_in(text, TOOLS).broken


# --- credits


def graded(said, *calls, marks=()):
    made = tuple(ToolCall(name, json.dumps(arguments)) for name, arguments in calls)
    item = SuiteItem(name="one", text="?", max_tokens=8, tools=TOOLS, calls=made)
    return graders.tools(SuitePart(name="tools", kind="tools", weight=1.0), item, Reply(said, call_marks=marks))


def call(**arguments):
    return json.dumps({"name": "get_weather", "arguments": arguments})


@pytest.mark.parametrize(
    ("said", "value", "remark"),
    [
        (call(city="Oslo", days=3), 1, ""),
        (call(city="oslo ", days=3.0), 1, ""),
        (call(city="Oslo", days=3, unit="celsius"), 1, ""),  # the default
        (call(city="Oslo", days=3, unit="fahrenheit"), 0, "no get_weather with"),
        (call(city="Oslo"), 0, "no get_weather with"),
        (call(city="Oslo", days=4), 0, "no get_weather with"),
        (call(city="Oslo", days="3"), 0, "get_weather: days must be a valid integer"),
        (call(city="Oslo", days=True), 0, "get_weather: days must be a valid integer"),
        (call(city="Oslo", days=8), 0, "get_weather: days must be less than or equal to 7"),
        (call(city="Oslo", days=3, unit="kelvin"), 0, "get_weather: unit must be 'celsius' or 'fahrenheit'"),
        (call(days=3), 0, "get_weather: city is missing"),
        (call(city="Oslo", days=3, place="x"), 0, "get_weather: place is not known"),
        ('{"name": "get_weather", "arguments": [1]}', 0, "get_weather: must be"),
        ('{"name": "weather", "arguments": {"city": "Oslo"}}', 0, "calls weather, which is not offered"),
        (call(city="Oslo", days=3) + call(city="Oslo", days=3), 0, "calls get_weather once more"),
        ('{"name": "get_weather", "arguments": {"city": "Oslo', 0, "a call that is not JSON"),
        ("It is sunny in Oslo.", 0, "no call"),
        ("", 0, "no call"),
    ],
)
def test_one_call(said, value, remark):
    credit = graded(said, OSLO)
    assert credit.value == value and credit.remark.startswith(remark)


def test_calls_in_any_order():
    ping = '{"name": "ping", "arguments": {}}'
    for said in (call(city="Oslo", days=3) + ping, ping + call(city="Oslo", days=3)):
        assert graded(said, OSLO, ("ping", {})).value == 1
    assert graded(ping, OSLO, ("ping", {})).value == 0


def test_no_tool_is_needed():
    assert graded("Hello!").value == 1
    assert graded(call(city="Oslo")) == graders.Credit(0.0, "calls get_weather, no tool is needed")
    assert graded('<tool_call>{"name"').value == 0


def test_the_marks_of_the_template():
    bare = call(city="Oslo", days=3)
    assert graded(bare, OSLO, marks=("<tool_call>",)) == graders.Credit(0.0, "a call without <tool_call>")
    assert graded(f"<tool_call>{bare}</tool_call>", OSLO, marks=("<tool_call>",)).value == 1
