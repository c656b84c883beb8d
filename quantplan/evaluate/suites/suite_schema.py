"""The schema of suite files: what a suite, its parts and their items may say. Scalars come as the text in the file."""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    create_model,
    model_validator,
)

from quantplan.evaluate.suites.suite import COHERENCE, KINDS, PERPLEXITY, Suite, SuiteItem, SuitePart
from quantplan.patterns import regular_expression

SUITE_FORMAT, SUITE_VERSION = "quantplan-suite", 1  # 1: first
_LARGEST_COUNT = 4096


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


def _check_unique(names: Iterable[str], what: str) -> None:
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


Text = Annotated[str, AfterValidator(_written)]
NotEmpty = AfterValidator(_not_empty)
Texts = Annotated[tuple[Text, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Patterns = Annotated[Texts, AfterValidator(_regular_expressions)]
SomePatterns = Annotated[Patterns, NotEmpty]
Count = Annotated[int, Field(ge=1, le=_LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=_LARGEST_COUNT)]
Truth = Annotated[Literal["true", "false"], AfterValidator(lambda text: text == "true")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True, validate_default=True)


# --- items, by the kind of their part


class _Item(_Strict):
    name: str
    max_tokens: Count


class _Question(_Item):
    text: Text = Field(alias="question")


class _Facts(_Question):
    accept: SomePatterns
    reject: Patterns = ()


class _Thinking(_Question):
    accept: Patterns = ()
    reject: Patterns = ()


class _Repetition(_Question):
    at_least: CountOrZero = 30  # words


class _Math(_Question):
    answer: Annotated[str, AfterValidator(_number)]


class _Coherence(_Item):
    text: Text
    keywords: SomePatterns
    needed: Count = 1
    at_least: CountOrZero = 8  # words

    @model_validator(mode="after")
    def _check_keywords(self) -> "_Coherence":
        if self.needed > len(self.keywords):
            raise ValueError(f"`needed` is {self.needed}, more than the {len(self.keywords)} `keywords`; lower it")
        return self


class _Feelings(_Item):
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


ITEMS: dict[str, type[_Item]] = {
    "facts": _Facts,
    "coherence": _Coherence,
    "repetition": _Repetition,
    "thinking": _Thinking,
    "direct": _Thinking,
    "math": _Math,
    "feelings": _Feelings,
    "reasoning": _Reasoning,
}


# --- parts and suites


class PartSchema(_Strict):
    """``max_tokens`` and ``at_least``: for the items that do not say otherwise."""

    name: str = ""
    kind: str
    weight: Annotated[FiniteFloat, Field(gt=0)]
    max_tokens: Count | None = None
    at_least: CountOrZero | None = None
    instruction: str = ""
    thinking: Truth = "false"
    common_words: Texts = ()
    items: tuple[Any, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _give_items_their_defaults(cls, fields: Any) -> Any:
        items = fields.get("items") if isinstance(fields, dict) else None
        if not isinstance(items, list) or fields.get("kind") not in ITEMS:
            return fields
        known = ITEMS[fields["kind"]].model_fields
        defaults = {key: fields[key] for key in ("max_tokens", "at_least") if key in fields and key in known}
        numbered = [
            defaults | item | {"name": item.get("name") or str(number)} if isinstance(item, dict) else item
            for number, item in enumerate(items, 1)
        ]
        return fields | {"items": numbered}

    @model_validator(mode="after")
    def _check_items(self) -> "PartSchema":
        if self.kind == PERPLEXITY and self.items:
            raise ValueError("perplexity is measured on a text; leave `items` out")
        if self.kind == COHERENCE and not self.common_words:
            raise ValueError("`common_words` is missing; list the most frequent words of the texts' language")
        _check_unique((item.name for item in self.items), "items")
        return self

    def part(self) -> SuitePart:
        return SuitePart(
            name=self.name or self.kind,
            kind=self.kind,
            weight=self.weight,
            instruction=self.instruction,
            thinking=bool(self.thinking),
            common_words=tuple(word.casefold() for text in self.common_words for word in text.split()),
            items=tuple(_suite_item(item) for item in self.items),
        )


def _suite_item(item: _Item) -> SuiteItem:
    fields = item.model_dump()
    return SuiteItem(**fields | {"feelings": tuple(fields.get("feelings", {}).items())})


def _part_schema(kind: str) -> type[PartSchema]:
    """Of one kind: parts of items have at least one, perplexity has none."""
    fields: dict[str, Any] = {"kind": (Literal[kind], ...)}
    if kind in ITEMS:
        items: Any = tuple[ITEMS[kind], ...]  # type: ignore[valid-type]
        fields["items"] = (Annotated[items, NotEmpty], ...)
    return create_model(f"{kind}Part", __base__=PartSchema, **fields)


if TYPE_CHECKING:
    Part = PartSchema
else:
    Part = Annotated[Union[tuple(map(_part_schema, KINDS))], Field(discriminator="kind")]  # noqa: UP007


class SuiteSchema(_Strict):
    format: str
    version: str
    name: str = ""
    about: str = ""
    thinking_tokens: CountOrZero = 0
    parts: Annotated[tuple[Part, ...], NotEmpty]

    @model_validator(mode="after")
    def _check_names(self) -> "SuiteSchema":
        _check_unique((part.name or part.kind for part in self.parts), "parts")
        return self

    def suite(self, default_name: str) -> Suite:
        parts = tuple(part.part() for part in self.parts)
        return Suite(name=self.name or default_name, parts=parts, thinking_tokens=self.thinking_tokens)
