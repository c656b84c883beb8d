"""YAML files that people write, read so that every mistake is named by file, place and key.

All scalars are read as the text that stands there, so that ``yes``, ``1.50`` and ``2024-03-01`` need no quotes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quantplan.errors import BadFile

_MOST = 4096  # of a count, unless the caller says otherwise


class _Strings(yaml.BaseLoader):
    """Scalars as text; a key that stands twice in a mapping is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} again", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path, what: str, instead: str) -> Any:
    """Strings, lists and mappings; BadFile where the file is none. ``what`` it should be, ``instead``: what else to give."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadFile(
            f"cannot read the {what} {path}: {error.strerror or error}; give a YAML file, or {instead}"
        ) from None
    except UnicodeDecodeError:
        raise BadFile(f"{path}: not UTF-8 text; a {what} is a YAML file, see docs/{what}s.md") from None
    try:
        return yaml.load(text, _Strings)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadFile(
            f"{path}{where}: not YAML ({getattr(error, 'problem', None) or error}); "
            "mend that line: texts with `: ` or ` #` in them need quotes, within braces and brackets with `?` or `,` too"
        ) from None


class Place:
    """A mapping somewhere in the file, and how to name it in a message."""

    def __init__(self, path: Path, content: Any, where: str = "") -> None:
        self.path, self.where = path, where
        if not isinstance(content, Mapping):
            self.refuse("", f"is {described(content)}; keys with values are needed here, as `name: ...`")
        self.content = content

    def refuse(self, key: str, message: str) -> None:
        """Raises BadFile about a key of this mapping."""
        place = ", ".join(filter(None, (self.where, f"key {key}" if key else "")))
        raise BadFile(f"{self.path}{': ' if place else ''}{place} {message}".replace(" :", ":"))

    def keys(self, allowed: set[str], needed: set[str]) -> None:
        for key in sorted(needed):
            if key not in self.content:
                self.refuse(key, f"is missing; add `{key}: ...`")
        for key in self.content:
            if key not in allowed:
                self.refuse(key, f"is unknown here; known are {', '.join(sorted(allowed))}")

    def text(self, key: str, default: str = "") -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str):
            self.refuse(key, f"is {described(value)}; a text is needed")
        return value.strip()

    def required(self, key: str) -> str:
        found = self.text(key)
        if not found:
            self.refuse(key, "is empty; write a text")
        return found

    def texts(self, key: str, least: int = 0) -> tuple[str, ...]:
        """A list of texts; one text alone is a list of it."""
        value = self.content.get(key, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or any(not isinstance(each, str) or not each.strip() for each in value):
            self.refuse(key, f"is {described(value)}; a list of texts is needed, as [this, that]")
        if len(value) < least:
            self.refuse(key, f"has {len(value)} entries; at least {least} needed")
        return tuple(each.strip() for each in value)

    def number(self, key: str, text: str, low: float, high: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or not math.isfinite(value):
            self.refuse(
                key, f"is {text!r}; a number from {low:g}{f' to {high:g}' if high < math.inf else ''} is needed"
            )
        return value

    def count(self, key: str, default: int, least: int = 1, most: int = _MOST) -> int:
        text = self.text(key, str(default))
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            self.refuse(key, f"is {text!r}; a whole number from {least} to {most} is needed")
        return int(text)

    def truth(self, key: str, default: bool) -> bool:
        text = self.text(key, "true" if default else "false").lower()
        if text not in ("true", "false"):
            self.refuse(key, f"is {text!r}; true or false is needed")
        return text == "true"

    def children(self, key: str, called: str, least: int = 1) -> list[Place]:
        """The mappings of a list, each named by its number and its own name."""
        value = self.content.get(key, [])
        if not isinstance(value, list) or len(value) < least:
            self.refuse(key, f"is {described(value)}; a list of {called}s is needed, each beginning with `- `")
        return [Place(self.path, each, self._inside(called, number, each)) for number, each in enumerate(value, 1)]

    def _inside(self, called: str, number: int, content: Any) -> str:
        name = content.get("name") if isinstance(content, Mapping) else None
        own = f"{called} {number}" + (f" ({name})" if isinstance(name, str) and name else "")
        return f"{self.where}, {own}" if self.where else own


def described(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if value else "empty"
    kind = {list: "list", dict: "mapping"}.get(type(value))
    return f"a {kind} of {len(value)}" if kind else "empty" if value is None else type(value).__name__


def check_unlike(place: Place, key: str, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        place.refuse(key, f"has the name {twice!r} twice; give each its own")
