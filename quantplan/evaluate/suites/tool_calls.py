"""Tools that are offered to a model, and the calls that its answer makes, in the forms in which models write them.

The forms, alone or in a row, between any tags: JSON objects with the keys ``name`` and ``arguments`` (or ``parameters``), also as
``function`` within an object; a tool's name before a JSON object of its arguments; ``{"NAME": {arguments}}``;
``<function=NAME><parameter=KEY>value</parameter>`` and its like with ``<invoke name="NAME">``; ``NAME<arg_key>KEY</arg_key>
<arg_value>value</arg_value>``; and, where it is all of the answer, a Python expression ``[NAME(key="value")]``.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantplan.evaluate.suites.json_schema import typed, whole_numbers


@dataclass(frozen=True)
class Tool:
    """``parameters``: the JSON Schema of its arguments, as JSON text."""

    name: str
    description: str
    parameters: str

    @property
    def offered(self) -> dict[str, Any]:
        """As chat templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": json.loads(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolCall:
    """``arguments``: JSON text of an object."""

    name: str
    arguments: str


@dataclass(frozen=True)
class AnswerCalls:
    """``calls``: names with arguments as values. ``broken``: whether something begins as a call and cannot be read."""

    calls: tuple[tuple[str, Any], ...]
    broken: bool = False


_NAMES, _ARGUMENTS = ("name", "tool_name", "function", "tool"), ("arguments", "parameters", "args", "tool_input")
# between a tool's name and the object of its arguments: tags, [ARGS], :0, a code fence
_BETWEEN = r"(?::\d+)?(?:\s|<[^<>]*>|>|\[[A-Z_]+\]\w*|```\w*|json\b)*$"
_OPEN_CALL = re.compile(r"[\"'](?:name|arguments|parameters)[\"']\s*:|<tool_call>|<function=|\[TOOL_CALLS\]")
_TAGGED = re.compile(r"<function=([^<>\s]+)>(.*?)</function>|<invoke name=\"([^\"]+)\">(.*?)</invoke>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter(?:=| name=\")([^<>\"]+)\"?>\n?(.*?)\n?</parameter>", re.DOTALL)
_ARG_KEYS = re.compile(r"([\w.-]+)\s*((?:<arg_key>[^<]*</arg_key>\s*<arg_value>.*?</arg_value>\s*)+)", re.DOTALL)
_ARG_PAIR = re.compile(r"<arg_key>([^<]*)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_PYTHON_MARKS = re.compile(r"<\|[^<>|]*\|>|```\w*")


def calls_in(answer: str, tools: Sequence[Tool]) -> AnswerCalls:
    """The calls that an answer makes, in their order. Without any it is a text."""
    schemas = {tool.name: json.loads(tool.parameters) for tool in tools}
    for tagged in (_tagged(answer, schemas), _python(answer, schemas)):
        if tagged:
            return AnswerCalls(tuple(tagged))
    calls, rest = _in_json(answer, schemas)
    return AnswerCalls(tuple(calls), bool(_OPEN_CALL.search(rest)))


# --- tags


def _tagged(answer: str, schemas: Mapping[str, Any]) -> list[tuple[str, Any]]:
    calls = []
    for match in _TAGGED.finditer(answer):
        name, body = match[1] or match[3], match[2] or match[4] or ""
        if not body.strip().startswith("{"):
            calls.append((name, _values(_PARAMETER.findall(body), schemas.get(name, {}))))
    for match in _ARG_KEYS.finditer(answer):
        calls.append((match[1], _values(_ARG_PAIR.findall(match[2]), schemas.get(match[1], {}))))
    return calls


def _values(pairs: Sequence[tuple[str, str]], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {key.strip(): typed(value.strip(), properties.get(key.strip(), {})) for key, value in pairs}


# --- JSON


def _in_json(answer: str, schemas: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], str]:
    """(calls, the text without the JSON that was read)."""
    calls: list[tuple[str, Any]] = []
    rest, end, decoder = "", 0, json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"[\[{]", answer)):
        if start < end:
            continue
        try:
            value, stop = decoder.raw_decode(answer, start)
        except ValueError:
            continue
        except RecursionError:  # brackets without end
            break
        before = answer[end:start]
        named = _name_before(before, schemas)
        read = [(named, value)] if named and isinstance(value, dict) else list(_calls_of(value, schemas))
        if read:
            calls += [(name, whole_numbers(arguments)) for name, arguments in read]
            rest, end = rest + _CLOSING.sub("", before if not named else ""), stop
    return calls, rest + answer[end:]


_CLOSING = re.compile(r"<tool_call>|\[TOOL_CALLS\]|<function=[^<>]*>")  # read together with the JSON that follows


def _name_before(text: str, schemas: Mapping[str, Any]) -> str:
    """The tool that is named right before a JSON object."""
    names = "|".join(map(re.escape, sorted(schemas, key=len, reverse=True)))
    match = re.search(rf"(?<![\w-])({names}){_BETWEEN}", text) if names else None
    return match[1] if match else ""


def _calls_of(value: Any, schemas: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _calls_of(item, schemas)
        return
    if not isinstance(value, dict):
        return
    if isinstance(value.get("function"), dict):
        yield from _calls_of(value["function"], schemas)
        return
    if isinstance(value.get("tool_calls"), list):
        yield from _calls_of(value["tool_calls"], schemas)
        return
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    key = next((key for key in _ARGUMENTS if key in value), None)
    if name is not None and (key or name in schemas):
        yield name, _object(value[key]) if key else {}
    elif len(value) == 1 and (only := next(iter(value))) in schemas:
        yield only, value[only]


def _object(arguments: Any) -> Any:
    """Arguments that stand as a text of JSON, as in the messages of OpenAI's API, are read."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


# --- Python


def _python(answer: str, schemas: Mapping[str, Any]) -> list[tuple[str, Any]]:
    text = _PYTHON_MARKS.sub("", answer).strip()
    if not any(f"{name}(" in text for name in schemas):
        return []
    try:
        body = ast.parse(text, mode="eval").body
        nodes = body.elts if isinstance(body, ast.List) else [body]
        return [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _python_call(node: ast.expr) -> tuple[str, Any]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError("no call with named arguments")
    return node.func.id, {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
