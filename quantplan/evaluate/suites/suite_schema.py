"""The schema of suite files: what a suite and its parts may say. Scalars come as the text in the file, except JSON."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, Field, FiniteFloat, create_model, model_validator

from quantplan.evaluate.suites.generated.generators import GENERATORS, generate
from quantplan.evaluate.suites.item_schema import (
    ITEMS,
    Count,
    CountOrZero,
    NotEmpty,
    Strict,
    Texts,
    ToolSchema,
    check_unique,
    suite_item,
)
from quantplan.evaluate.suites.suite import COHERENCE, KINDS, PERPLEXITY, TOOLS, Generated, Suite, SuiteItem, SuitePart
from quantplan.evaluate.suites.tool_calls import Tool

SUITE_FORMAT = "quantplan-suite"
SUITE_VERSION = 2  # 2: kinds tools, instructions, code, ending; items that are generated; 1: first
Truth = Annotated[Literal["true", "false"], AfterValidator(lambda text: text == "true")]


class GeneratedSchema(Strict):
    """Items that a program makes: ``count`` of them by the generator ``name``, others with another ``seed``."""

    name: Literal[tuple(GENERATORS)]  # type: ignore[valid-type]
    count: Count
    seed: CountOrZero = 1


class PartSchema(Strict):
    """``max_tokens`` and ``at_least``: for the items that do not say otherwise."""

    name: str = ""
    kind: str
    weight: Annotated[FiniteFloat, Field(gt=0)]
    max_tokens: Count | None = None
    at_least: CountOrZero | None = None
    instruction: str = ""
    thinking: Truth = "false"
    common_words: Texts = ()
    tools: tuple[ToolSchema, ...] = ()
    generate: GeneratedSchema | None = None
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
        if self.kind == PERPLEXITY and (self.items or self.generate):
            raise ValueError("perplexity is measured on a text; leave `items` and `generate` out")
        if self.kind != PERPLEXITY and not (self.items or self.generate):
            raise ValueError("`items` is missing; add `items: ...`, or `generate: ...`")
        if self.kind == COHERENCE and not self.common_words:
            raise ValueError("`common_words` is missing; list the most frequent words of the texts' language")
        self._check_tools()
        self._check_generated()
        check_unique((item.name for item in self.items), "items")
        return self

    def _check_tools(self) -> None:
        if self.kind != TOOLS:
            if self.tools:
                raise ValueError(f"`tools` are offered by parts of the kind {TOOLS} only; leave them out")
            return
        if self.items and not self.tools:
            raise ValueError("`tools` is missing; add those that its items offer")
        check_unique((tool.name for tool in self.tools), "tools")
        for item in self.items:
            try:
                item.resolved(self._offered())
            except ValueError as error:
                raise ValueError(f"item {item.name} {error}") from None

    def _check_generated(self) -> None:
        if self.generate is None:
            return
        kinds = GENERATORS[self.generate.name].kinds
        if self.kind not in kinds:
            raise ValueError(f"`generate: {self.generate.name}` makes items of the kind {' or '.join(kinds)}")
        if self.max_tokens is None:
            raise ValueError("`max_tokens` is missing; add `max_tokens: ...` for the items that are generated")
        check_unique((item.name for item in (*self.items, *self._made())), "items")

    def _offered(self) -> dict[str, Tool]:
        return {tool.name: tool.tool() for tool in self.tools}

    def _generated(self, schema: GeneratedSchema) -> Generated:
        return Generated(schema.name, schema.count, schema.seed, self.max_tokens or 1)

    def _made(self) -> tuple[SuiteItem, ...]:
        return generate(self._generated(self.generate)) if self.generate else ()

    def part(self) -> SuitePart:
        listed = tuple(suite_item(item, self._offered()) for item in self.items)
        made = self._made()
        generated = replace(self._generated(self.generate), count=len(made)) if self.generate else None
        return SuitePart(
            name=self.name or self.kind,
            kind=self.kind,
            weight=self.weight,
            instruction=self.instruction,
            thinking=bool(self.thinking),
            common_words=tuple(word.casefold() for text in self.common_words for word in text.split()),
            items=(*listed, *made),
            generated=generated,
        )


def _part_schema(kind: str) -> type[PartSchema]:
    """Of one kind: with items of that kind."""
    fields: dict[str, Any] = {"kind": (Literal[kind], ...)}
    if kind in ITEMS:
        items: Any = tuple[ITEMS[kind], ...]  # type: ignore[valid-type]
        fields["items"] = (items, ())
    return create_model(f"{kind}Part", __base__=PartSchema, **fields)


if TYPE_CHECKING:
    Part = PartSchema
else:
    Part = Annotated[Union[tuple(map(_part_schema, KINDS))], Field(discriminator="kind")]  # noqa: UP007


class SuiteSchema(Strict):
    format: str
    version: str
    name: str = ""
    about: str = ""
    thinking_tokens: CountOrZero = 0
    parts: Annotated[tuple[Part, ...], NotEmpty]

    @model_validator(mode="after")
    def _check_names(self) -> "SuiteSchema":
        check_unique((part.name or part.kind for part in self.parts), "parts")
        return self

    def suite(self, default_name: str) -> Suite:
        parts = tuple(part.part() for part in self.parts)
        return Suite(name=self.name or default_name, parts=parts, thinking_tokens=self.thinking_tokens)
