"""The part of JSON Schema that suites use."""

import json

import pytest

from quantplan.evaluate.suites.json_schema import same_value, schema_text, typed, violations, whole_numbers

ORDER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "price": {"type": "number", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "paid": {"type": "boolean", "default": False},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "list": {"type": "array"},
        "model_json": {"type": "integer", "enum": [1, 2]},
    },
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"name": "tea"}, []),
        ({"name": "tea", "price": 3, "tags": ["a"], "paid": True, "address": {"city": "B"}, "list": [1, "a"]}, []),
        ({"name": "t"}, ["name String should have at least 2 characters"]),
        ({"name": 1}, ["name must be a valid string"]),
        ({"name": None}, ["name must be a valid string"]),
        ({"name": "tea", "price": -0.5}, ["price must be greater than or equal to 0"]),
        ({"name": "tea", "price": "3"}, ["price must be a valid number"]),
        ({"name": "tea", "tags": []}, ["tags List should have at least 1 item after validation, not 0"]),
        ({"name": "tea", "tags": ["a", 1]}, ["tags.1 must be a valid string"]),
        ({"name": "tea", "paid": 1}, ["paid must be a valid boolean"]),
        ({"name": "tea", "address": {}}, ["address.city is missing"]),
        ({"name": "tea", "address": {"city": "B", "zip": 1}}, ["address.zip is not known"]),
        ({"name": "tea", "model_json": 3}, ["model_json must be 1 or 2"]),
        ({}, ["name is missing"]),
        ([], ["must be an object"]),
    ],
)
def test_values(value, wrong):
    assert violations(value, schema_text(ORDER)) == wrong


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "text"}, "type must be 'string', 'integer'"),
        ({}, "type is missing"),
        ("string", "must be an object"),
        ({"type": "string", "minimum": 1}, "`minimum` means nothing for the type string; leave it out"),
        ({"type": "integer", "items": {"type": "string"}}, "`items` means nothing for the type integer"),
        ({"type": "boolean", "enum": ["a"]}, "`enum` means nothing for the type boolean"),
        ({"type": "string", "pattern": "a"}, "pattern is not known"),
        ({"type": "object", "required": ["a"]}, "`required` names 'a', which is not one of the `properties`"),
        ({"type": "object", "properties": {"a": {"type": "x"}}}, "properties.a.type must be"),
        ({"type": "integer", "maximum": 3, "default": 4}, "`default` must be less than or equal to 3"),
        ({"type": "string", "enum": []}, "enum List should have at least 1 item"),
    ],
)
def test_schemas_that_are_wrong(schema, message):
    with pytest.raises(ValueError, match="^" + message.replace("`", ".")):
        schema_text(schema)


def test_what_means_the_same():
    def same(value, expected):
        return same_value(value, expected, ORDER, lambda one, other: one.lower() == other.lower())

    assert same({"name": "Tea"}, {"name": "tea", "paid": False})
    assert not same({"name": "tea", "paid": True}, {"name": "tea"})
    assert not same({"name": "tea", "price": 2}, {"name": "tea"})  # it has no default
    assert same({"name": "tea", "tags": ["a", "B"]}, {"name": "tea", "tags": ["A", "b"]})
    assert not same({"name": "tea", "tags": ["b", "a"]}, {"name": "tea", "tags": ["a", "b"]})
    assert not same({"name": "tea", "tags": ["a"]}, {"name": "tea", "tags": ["a", "b"]})
    assert same({"name": "tea", "address": {"city": "x"}}, {"name": "tea", "address": {"city": "X"}})


def test_numbers():
    assert whole_numbers({"a": [1.0, 2.5], "b": {"c": 3.0}}) == {"a": [1, 2.5], "b": {"c": 3}}
    assert isinstance(whole_numbers(5.0), int) and whole_numbers(True) is True
    assert (typed("3", {"type": "integer"}), typed("3", {"type": "string"})) == (3, "3")
    assert (typed("true", {"type": "boolean"}), typed("no number", {"type": "integer"})) == (True, "no number")


def test_a_schema_keeps_what_is_written():
    assert json.loads(schema_text(ORDER)) == ORDER
