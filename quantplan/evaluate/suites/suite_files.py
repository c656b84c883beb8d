"""Suites as YAML files: every mistake is named with its file, line, part, item and key. See docs/suites.md.

All scalars are read as the text in the file, so that ``yes``, ``1.50`` and ``2024-03-01`` need no quotes. Only what stands for
JSON (schemas, and arguments of calls) has numbers, true, false and null where they are not quoted.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from quantplan.errors import BadFile
from quantplan.evaluate.suites.item_schema import ITEMS, CallSchema, ChecksSchema, ToolSchema
from quantplan.evaluate.suites.suite import KINDS, Suite
from quantplan.evaluate.suites.suite_schema import SUITE_FORMAT, SUITE_VERSION, GeneratedSchema, PartSchema, SuiteSchema
from quantplan.text_files import check_text_file

ASSISTANT, SHORT = "assistant", "short"
BUNDLED = (ASSISTANT, SHORT)
DEFAULT = "default"  # the bundled suite that a command takes if none is named
_JSON_KEYS = ("arguments", "json", "parameters")
_FOLDER = Path(__file__).parents[2] / "data" / "suites"
_MOST_VALUES = 200_000  # of a suite
_SHOWN = 3  # mistakes in one message
_OWNERS = {  # what the keys below a key belong to
    "parts": PartSchema,
    "tools": ToolSchema,
    "calls": CallSchema,
    "checks": ChecksSchema,
    "generate": GeneratedSchema,
}
_PLAIN = {  # where pydantic speaks of types of Python
    "float_parsing": "must be a number",
    "int_parsing": "must be a whole number",
    "tuple_type": "must be a list, such as [this, that]",
    "string_type": "must be a text",
}


def read_suite(source: Path | str) -> Suite:
    """The suite in a file, or one of BUNDLED by its name; BadFile with the place of each mistake and what is allowed."""
    path = bundled_suite(str(source)) if str(source) in BUNDLED else Path(source)
    text = _text(path)
    content = _content(path, text)
    if content.get("format") != SUITE_FORMAT:
        raise BadFile(f"{path}: not a suite; a suite begins with `format: {SUITE_FORMAT}`")
    if content.get("version") not in [str(version) for version in range(1, SUITE_VERSION + 1)]:
        raise BadFile(f"{path}: version {content.get('version')} is unknown (1 to {SUITE_VERSION}); update quantplan")
    try:
        return SuiteSchema.model_validate(content).suite(path.stem)
    except ValidationError as error:
        mistakes = dict.fromkeys(_mistake(path, text, content, details) for details in error.errors())
        lines = [*mistakes][:_SHOWN] + ([f"and {len(mistakes) - _SHOWN} more"] if len(mistakes) > _SHOWN else [])
        raise BadFile("\n".join(lines)) from None


def bundled_suite(name: str) -> Path:
    """The file of a bundled suite."""
    return _FOLDER / f"{name}.yaml"


# --- YAML


class _TextLoader(yaml.BaseLoader):
    """Scalars as text; a key that stands twice in a mapping is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is not text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep)
        return mapping | {key.value: _json(value, {}) for key, value in node.value if key.value in _JSON_KEYS}


def _json(node: yaml.Node, known: dict[int, Any]) -> Any:
    """The JSON that a node stands for; ``known``: values of nodes that aliases repeat."""
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style in ("'", '"') else _plain_json(node.value)
    value: Any = known.setdefault(id(node), [] if isinstance(node, yaml.SequenceNode) else {})
    if isinstance(node, yaml.SequenceNode):
        value.extend(_json(part, known) for part in node.value)
    else:
        value.update({str(key.value): _json(part, known) for key, part in node.value})
    return value


def _plain_json(text: str) -> Any:
    """A number, true, false or null; any other text stands for itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (str, list, dict)) or value != value or abs(value or 0) == float("inf") else value


def _text(path: Path) -> str:
    try:
        check_text_file(path, "a suite in YAML")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadFile(
            f"cannot read the suite {path}: {error.strerror or error}; give a YAML file, or a bundled one: {' or '.join(BUNDLED)}"
        ) from None
    except UnicodeDecodeError:
        raise BadFile(f"{path}: not UTF-8 text; a suite is a YAML file, see docs/suites.md") from None


def _content(path: Path, text: str) -> dict[str, Any]:
    try:
        content = yaml.load(text, _TextLoader)
        if _size(content, {}) > _MOST_VALUES:
            raise ValueError(f"its anchors and aliases stand for more than {_MOST_VALUES:,} values")
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadFile(
            f"{path}{where}: not YAML ({getattr(error, 'problem', None) or error}); "
            "fix that line: texts with `: ` or ` #` need quotes, in braces and brackets texts with `?` or `,`, too"
        ) from None
    if not isinstance(content, dict):
        raise BadFile(f"{path}: not a suite; a suite begins with `format: {SUITE_FORMAT}`")
    return content


def _size(content: Any, known: dict[int, int]) -> int:
    """Values below ``content``, counted as often as aliases repeat them; ValueError for one that holds itself."""
    if not isinstance(content, (dict, list)):
        return 1
    size = known.setdefault(id(content), 0)
    if not size:
        parts = content.values() if isinstance(content, dict) else content
        known[id(content)] = -1
        size = known[id(content)] = 1 + sum(_size(part, known) for part in parts)
    if size < 0:
        raise ValueError("an alias stands for what it is in")
    return size


@lru_cache(maxsize=1)
def _nodes(text: str) -> yaml.Node | None:
    return yaml.compose(text, yaml.BaseLoader)


def _line(text: str, keys: Sequence[str | int]) -> int:
    """The line, from 1, where the value at ``keys`` begins, or that of the last one that is in the file."""
    node, line = _nodes(text), 1
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
        elif isinstance(node, yaml.MappingNode) and (found := [pair for pair in node.value if pair[0].value == key]):
            line, node = found[0][0].start_mark.line + 1, found[0][1]
            continue
        else:
            break
        line = node.start_mark.line + 1
    return line


# --- mistakes


def _mistake(path: Path, text: str, content: Any, details: Mapping[str, Any]) -> str:
    """One sentence: file, line, part, item, key, what is wrong, what is allowed."""
    keys = _keys_in_file(details["loc"])
    place, key = _place(content, keys)
    what = _what(content, keys, key, details)
    return f"{path}, line {_line(text, keys)}: {place + ': ' if place else ''}{what}"


def _keys_in_file(loc: Sequence[str | int]) -> list[str | int]:
    """Without the kind, which pydantic puts behind the index of a part."""
    return [key for index, key in enumerate(loc) if not (index == 2 and loc[0] == "parts")]


def _place(content: Any, keys: Sequence[str | int]) -> tuple[str, str]:
    """(``part 2 (math), item 1``, the key in it)."""
    words, key = [], ""
    for name, index in zip(("part", "tool" if "tools" in keys else "item"), (1, 3), strict=True):
        if len(keys) > index and isinstance(keys[index], int):
            entry = _at(content, keys[: index + 1])
            called = entry.get("name") if isinstance(entry, Mapping) else None
            words.append(f"{name} {int(keys[index]) + 1}" + (f" ({called})" if called else ""))
    after = keys[2 * len(words) :]
    key = ".".join(str(part) for part in after if isinstance(part, str))
    return ", ".join(words), key


def _at(content: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _what(content: Any, keys: Sequence[str | int], key: str, details: Mapping[str, Any]) -> str:
    problem, message = details["type"], details["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if problem == "missing":
        return f"`{key}` is missing; add `{key}: ...`"
    if problem == "extra_forbidden":
        return f"`{key}` is unknown here; the keys are {', '.join(_known_keys(content, keys))}"
    if problem == "union_tag_not_found":
        return "`kind` is missing; add `kind: ...`"
    if problem == "union_tag_invalid":
        return f"`kind` is {details['ctx']['tag']!r}; the kinds are {', '.join(KINDS)}"
    if problem in ("model_type", "model_attributes_type", "dict_type"):
        name = f"`{key}`" if key else "this"
        return f"{name} is {_described(details['input'])}; keys with values are needed, such as `name: ...`"
    if not key:
        return message
    return f"`{key}` is {_described(details['input'])}; {_PLAIN.get(problem, message)}"


def _known_keys(content: Any, keys: Sequence[str | int]) -> list[str]:
    owner = next((str(key) for key in reversed(keys[:-1]) if isinstance(key, str)), "")
    schema: Any = _OWNERS.get(owner, SuiteSchema)
    if owner == "items":
        schema = ITEMS[_at(content, [*keys[:2], "kind"])]
    return sorted(field.alias or name for name, field in schema.model_fields.items())


def _described(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    return repr(value) if value else "empty"
