"""JSON Schema, as far as the arguments of tools and answers in JSON need it: checked, and values checked against it.

Keywords: ``type`` (string, integer, number, boolean, array, object), ``enum``, ``properties``, ``required``, ``items``,
``minimum``, ``maximum``, ``minLength``, ``maxLength``, ``minItems``, ``maxItems``, ``default``, ``description``, ``title``. Keys
that ``properties`` do not name are not allowed in a value, as if ``additionalProperties`` were false.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}
_LIMITS = {"minimum": "ge", "maximum": "le", "minLength": "min_length", "maxLength": "max_length"}
_LIMITS |= {"minItems": "min_length", "maxItems": "max_length"}
_LIMITS_OF = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
_LIMITS_OF |= dict.fromkeys(("integer", "number"), ("minimum", "maximum"))


_PLAIN = {"missing": "is missing", "extra_forbidden": "is not known", "model_type": "must be an object"}


class JsonSchema(BaseModel):
    """A schema as it is written; a keyword that would not be followed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["string", "integer", "number", "boolean", "array", "object"]
    title: str | None = None
    description: str | None = None
    default: Any = None
    enum: Annotated[list[str | int | float], Field(min_length=1)] | None = None
    properties: dict[str, "JsonSchema"] | None = None
    required: list[str] | None = None
    items: "JsonSchema | None" = None
    minimum: int | FiniteFloat | None = None
    maximum: int | FiniteFloat | None = None
    minLength: NonNegativeInt | None = None
    maxLength: NonNegativeInt | None = None
    minItems: NonNegativeInt | None = None
    maxItems: NonNegativeInt | None = None
    additionalProperties: Literal[False] | None = None

    @model_validator(mode="after")
    def _check_keywords(self) -> "JsonSchema":
        foreign = [name for name in self.model_fields_set if not self._belongs(name)]
        if foreign:
            raise ValueError(f"`{foreign[0]}` means nothing for the type {self.type}; leave it out")
        if self.default is not None and "default" in self.model_fields_set:
            text = json.dumps(self.model_dump(exclude_unset=True) | {"default": None})
            if wrong := violations(self.default, text):
                raise ValueError(f"`default` {wrong[0]}")
        unknown = [name for name in self.required or () if name not in (self.properties or {})]
        if unknown:
            raise ValueError(f"`required` names {unknown[0]!r}, which is not one of the `properties`")
        return self

    def _belongs(self, keyword: str) -> bool:
        if keyword in _LIMITS:
            return keyword in _LIMITS_OF.get(self.type, ())
        if keyword in ("properties", "required", "additionalProperties"):
            return self.type == "object"
        if keyword == "enum":
            return self.type in ("string", "integer", "number")
        return self.type == "array" if keyword == "items" else True


def schema_text(value: Any) -> str:
    """A schema as JSON text; ValueError with what is wrong in it, and where."""
    try:
        schema = JsonSchema.model_validate(value)
    except ValidationError as error:
        raise ValueError(_sentence(error.errors()[0])) from None
    return json.dumps(schema.model_dump(exclude_unset=True), allow_nan=False)


def violations(value: Any, schema: str) -> list[str]:
    """What of the JSON ``value`` is not as the ``schema`` (JSON text, see ``JsonSchema``) says: a sentence each."""
    try:
        _adapter(schema).validate_python(value)
    except ValidationError as error:
        return [_sentence(details) for details in error.errors()]
    return []


def _sentence(details: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in details["loc"])
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "must")
    message = _PLAIN.get(details["type"], message)
    return f"{place} {message}".strip()


@lru_cache(maxsize=256)
def _adapter(schema: str) -> TypeAdapter:
    return TypeAdapter(_type(json.loads(schema)))


def _type(schema: Mapping[str, Any]) -> Any:
    """The type that pydantic validates values against, strictly: text is no number, and true is no 1."""
    limits = {_LIMITS[keyword]: value for keyword, value in schema.items() if keyword in _LIMITS}
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    if schema["type"] == "object":
        return _object_type(schema)
    if schema["type"] == "array":
        of: Any = _type(schema["items"]) if "items" in schema else Any
        return Annotated[list[of], Field(**limits)]
    return Annotated[_TYPES[schema["type"]], Field(strict=True, **limits)]


def _object_type(schema: Mapping[str, Any]) -> Any:
    required = schema.get("required") or ()
    properties = (schema.get("properties") or {}).items()
    fields: dict[str, Any] = {  # names of Python that no property can hide
        f"property_{number}": (_type(of), Field(... if name in required else None, alias=name))
        for number, (name, of) in enumerate(properties)
    }
    return create_model("object", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def same_value(value: Any, expected: Any, schema: Mapping[str, Any], same_text: Any) -> bool:
    """Whether two values that conform to the ``schema`` mean the same.

    ``same_text(a, b)`` compares texts that no ``enum`` lists. A property that only one of the two has counts as its default.
    """
    if schema["type"] == "object":
        return all(_same_property(name, (value, expected), schema, same_text) for name in {*value, *expected})
    if schema["type"] == "array" and "items" in schema:
        pairs = zip(value, expected, strict=False)
        same = (same_value(one, other, schema["items"], same_text) for one, other in pairs)
        return len(value) == len(expected) and all(same)
    if schema["type"] == "string" and "enum" not in schema:
        return bool(same_text(value, expected))
    return bool(value == expected)


def _same_property(name: str, sides: tuple[Mapping[str, Any], ...], schema: Mapping[str, Any], same_text: Any) -> bool:
    of = schema["properties"][name]
    value, expected = (side[name] if name in side else of.get("default") for side in sides)
    return None not in (value, expected) and same_value(value, expected, of, same_text)


def typed(text: str, schema: Mapping[str, Any]) -> Any:
    """The value that a text stands for where a form writes all values as text: itself where the schema says so."""
    if schema.get("type") == "string":
        return text
    try:
        return whole_numbers(json.loads(text))
    except ValueError:
        return text


def whole_numbers(value: Any) -> Any:
    """The same JSON with 5.0 as 5, which JSON Schema calls an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole_numbers(item) for item in value]
    return {key: whole_numbers(item) for key, item in value.items()} if isinstance(value, dict) else value
