"""The schema of the items of a suite, by the kind of their part. Scalars come as the text in the file, except JSON."""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from quantplan.evaluate.suites import suite
from quantplan.evaluate.suites.checks import ANY_JSON, Checks, Range
from quantplan.evaluate.suites.json_schema import schema_text, violations, whole_numbers
from quantplan.evaluate.suites.languages import LANGUAGES
from quantplan.evaluate.suites.suite import SuiteItem
from quantplan.evaluate.suites.tool_calls import Tool, ToolCall
from quantplan.patterns import regular_expression

_LARGEST_COUNT = 4096
_LANGUAGES = ("", *LANGUAGES)
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_RANGE = re.compile(r"(\d{0,6})(?:\s*(-)\s*(\d{0,6}))?")


def _regular_expressions(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
            try:
                regular_expression(pattern[1:-1])
            except ValueError as error:
                raise ValueError(f"{pattern} is not a regular expression ({error})") from None
    return patterns


def _number(text: str) -> str:
    if not _is_number(text):
        raise ValueError("must be a number such as 12, -3.5 or 1e6")
    return text


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def check_unique(names: Iterable[str], what: str) -> None:
    """ValueError where a name stands twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two {what} have the name {name!r}; give each its own")
        seen.add(name)


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("at least one entry is needed")
    return values


def _written(text: str) -> str:
    if not text:
        raise ValueError("write a text")
    return text


def _range(value: Any) -> Any:
    if value is None:  # the default
        return None
    match = _RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match or not (match[1] or match[3]):
        raise ValueError("must be a number or a range: 5, 5-20, 5- or -20")
    low, high = int(match[1] or 0), int(match[3]) if match[3] else None
    found = Range(low, low if match[2] is None else high)
    if found.high is not None and found.high < found.low:
        raise ValueError(f"{value} ends before it begins")
    return found


def _expressions(tests: tuple[str, ...]) -> tuple[str, ...]:
    for test in tests:
        try:
            ast.parse(test, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"{test!r} is not an expression in Python, such as `double(2) == 4`") from None
    return tests


def _any_or_schema(value: Any) -> str:
    return value if value in ("", ANY_JSON) else schema_text(value)


Text = Annotated[str, AfterValidator(_written)]
NotEmpty = AfterValidator(_not_empty)
Texts = Annotated[tuple[Text, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Patterns = Annotated[Texts, AfterValidator(_regular_expressions)]
SomePatterns = Annotated[Patterns, NotEmpty]
Count = Annotated[int, Field(ge=1, le=_LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
CountRange = Annotated[Any, BeforeValidator(_range)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True, validate_default=True)


class Item(Strict):
    name: str
    max_tokens: Count


class _Question(Item):
    text: Text = Field(alias="question")


class _Facts(_Question):
    accept: SomePatterns
    reject: Patterns = ()


class _Thinking(_Question):
    accept: Patterns = ()
    reject: Patterns = ()


class _Repetition(_Question):
    at_least: CountOrZero = 30  # words


class _Ending(_Question):
    at_least: CountOrZero = 5  # words


class _Math(_Question):
    answer: Annotated[str, AfterValidator(_number)]


class _Coherence(Item):
    text: Text
    keywords: SomePatterns
    needed: Count = 1
    at_least: CountOrZero = 8  # words

    @model_validator(mode="after")
    def _check_keywords(self) -> "_Coherence":
        if self.needed > len(self.keywords):
            raise ValueError(f"`needed` is {self.needed}, more than the {len(self.keywords)} `keywords`; lower it")
        return self


class _Feelings(Item):
    text: Text = Field(alias="dialogue")
    who: Text
    feelings: Annotated[dict[str, Annotated[FiniteFloat, Field(ge=0, le=10)]], Field(min_length=1)]


class _Reasoning(_Question):
    answer: str = ""
    choices: Texts = ()
    accept: Patterns = ()
    reject: Patterns = ()
    topic: str = ""

    @model_validator(mode="after")
    def _check_answer(self) -> "_Reasoning":
        if bool(self.answer) == bool(self.accept):
            raise ValueError("`answer` or `accept` is needed, and only one of them")
        if self.choices and self.answer not in self.choices:
            raise ValueError(f"`answer` is {self.answer!r}; it must be one of the `choices`, as written there")
        if self.choices and len(set(self.choices)) < 2:
            raise ValueError("`choices` needs at least 2 entries; add what a wrong answer would say")
        if self.answer and not self.choices and not _is_number(self.answer):
            raise ValueError(f"`answer` is {self.answer!r}, not a number; add `choices`, or write `accept` instead")
        return self


class ChecksSchema(Strict):
    words: CountRange = None
    sentences: CountRange = None
    lines: CountRange = None
    paragraphs: CountRange = None
    characters: CountRange = None
    bullets: CountRange = None
    numbered: CountRange = None
    contains: Patterns = ()
    without: Patterns = ()
    no_characters: str = ""
    times: dict[str, CountRange] = {}
    begins: str = ""
    ends: str = ""
    case: Literal["", "upper", "lower"] = ""
    language: Literal[_LANGUAGES] = ""  # type: ignore[valid-type]
    initials: str = ""
    csv: CountOrZero = 0
    json_: Annotated[str, BeforeValidator(_any_or_schema)] = Field("", alias="json")
    exactly: str = ""

    def value(self) -> Checks:
        fields = self.model_dump()
        return Checks(**fields | {"json": fields.pop("json_"), "times": tuple(self.times.items())})


class _Instructions(_Question):
    checks: ChecksSchema

    @model_validator(mode="after")
    def _check_some(self) -> "_Instructions":
        if not self.checks.value().names:
            raise ValueError("`checks` has none that checks anything; add one, such as `words: 5-20`")
        return self


class _Code(_Question):
    tests: Annotated[Texts, NotEmpty, AfterValidator(_expressions)]


# --- tools


def _object_schema(value: Any) -> str:
    text = schema_text(value)
    if json.loads(text)["type"] != "object":
        raise ValueError("must be of the type object, with the arguments as its `properties`")
    return text


def _tool_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be letters, digits, `_`, `-` and `.`, and begin with a letter")
    return name


class ToolSchema(Strict):
    name: Annotated[Text, AfterValidator(_tool_name)]
    description: Text
    parameters: Annotated[Any, AfterValidator(_object_schema)]

    def tool(self) -> Tool:
        return Tool(self.name, self.description, self.parameters)


class CallSchema(Strict):
    name: Text
    arguments: dict[str, Any] = {}


class ToolsItem(_Question):
    """``offer``: names of tools of the part, all of them by default. ``calls``: empty where no tool should be called."""

    offer: Texts = ()
    calls: tuple[CallSchema, ...]

    def resolved(self, tools: Mapping[str, Tool]) -> tuple[tuple[Tool, ...], tuple[ToolCall, ...]]:
        """(the tools that are offered, the calls to make); ValueError for a tool that is not there, and for wrong arguments."""
        offered = self.offer or tuple(tools)
        for name in (*offered, *(call.name for call in self.calls)):
            if name not in tools:
                raise ValueError(f"no tool {name!r}; the `tools` of the part are {', '.join(tools)}")
        for call in self.calls:
            if call.name not in offered:
                raise ValueError(f"calls {call.name!r}, which its `offer` does not list")
            if wrong := violations(whole_numbers(call.arguments), tools[call.name].parameters):
                raise ValueError(f"calls {call.name} with arguments that its `parameters` do not allow: {wrong[0]}")
        calls = (ToolCall(call.name, json.dumps(call.arguments, allow_nan=False)) for call in self.calls)
        return tuple(tools[name] for name in offered), tuple(calls)


ITEMS: dict[str, type[Item]] = {
    suite.FACTS: _Facts,
    suite.COHERENCE: _Coherence,
    suite.REPETITION: _Repetition,
    suite.THINKING: _Thinking,
    suite.DIRECT: _Thinking,
    suite.MATH: _Math,
    suite.FEELINGS: _Feelings,
    suite.REASONING: _Reasoning,
    suite.TOOLS: ToolsItem,
    suite.INSTRUCTIONS: _Instructions,
    suite.CODE: _Code,
    suite.ENDING: _Ending,
}


def suite_item(item: Item, tools: Mapping[str, Tool]) -> SuiteItem:
    """The value of an item, with the tools that it offers."""
    fields = item.model_dump(exclude={"offer", "calls", "checks"})
    if isinstance(item, ToolsItem):
        fields["tools"], fields["calls"] = item.resolved(tools)
    if isinstance(item, _Instructions):
        fields["checks"] = item.checks.value()
    return SuiteItem(**fields | {"feelings": tuple(fields.get("feelings", {}).items())})
