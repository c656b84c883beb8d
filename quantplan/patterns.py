"""Regular expressions that people and their files give, searched in bounded time.

A backtracking matcher takes exponential time for some (``(a+)+$``), and a power of the text's length for others. Where that is
possible, the set of all positions that a match can have reached is followed instead, as the bits of an integer: every part of
the pattern maps such a set to another one. The answer, whether the pattern is found, is the same.
"""

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_STEPS = 2 * 10**7  # of backtracking at worst: names (up to 63 characters) against patterns with three repeats
_DEEPEST = 4  # repeats within one another

_CLASSES: dict[str, Callable[[str], bool]] = {
    "DIGIT": str.isdecimal,
    "SPACE": str.isspace,
    "WORD": lambda character: character.isalnum() or character == "_",
}


class Pattern:
    """A compiled regular expression that can be asked whether a text holds it."""

    def __init__(self, text: str) -> None:
        """Raises as ``regular_expression``."""
        self.text = text
        self._regex, parsed = re.compile(text), _parser.parse(text)
        self._items, self._flags = list(parsed), parsed.state.flags
        if _depth(self._items) > _DEEPEST:
            raise ValueError(f"it has repeats in repeats, {_DEEPEST} deep and deeper; write it simpler")
        self._degree = _degree(self._items)

    @property
    def simple(self) -> bool:
        """Whether a backtracking matcher (std::regex of llama-quantize, too) takes short for tensor names."""
        return self._is_short(63)

    def search(self, text: str) -> bool:
        """Whether the pattern is found anywhere in the text."""
        if self._is_short(len(text)):
            return self._regex.search(text) is not None
        positions = _Positions(text)
        return bool(positions.reached(self._items, self._flags, positions.all))

    def _is_short(self, length: int) -> bool:
        return self._degree is not None and length ** (self._degree + 1) <= _STEPS


@lru_cache(1024)
def regular_expression(text: str) -> Pattern:
    """ValueError with the reason for a text that is none, or one that needs what no search in bounded time can give."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            return Pattern(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (re.error, OverflowError) as error:
        raise ValueError(str(error)) from None


def _parts(operation: str, argument: Any) -> list[Any]:
    """The patterns within an item; ValueError for one that cannot be searched in bounded time."""
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        return [argument[2]]
    if operation == "SUBPATTERN":
        return [argument[3]]
    if operation == "BRANCH":
        return list(argument[1])
    if operation in ("ASSERT", "ASSERT_NOT"):
        return [argument[1]]
    if operation in ("GROUPREF", "GROUPREF_IGNORE", "GROUPREF_EXISTS"):
        raise ValueError("it refers back to a group, which is not supported here; write out what it stands for")
    if operation in ("ATOMIC_GROUP", "POSSESSIVE_REPEAT"):
        raise ValueError(
            "it has a possessive repeat or atomic group, which llama.cpp does not know; write + instead of ++"
        )
    return []


def _is_repeat(operation: str, argument: Any) -> bool:
    """Whether it may match its part several times."""
    return operation in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] > 1


def _depth(items: Iterable[Any]) -> int:
    """How many repeats are within one another at most."""
    return max(
        (
            _is_repeat(str(name), argument) + max(map(_depth, _parts(str(name), argument)), default=0)
            for name, argument in items
        ),
        default=0,
    )


def _degree(items: Iterable[Any]) -> int | None:
    """The power of the text's length that backtracking takes at worst; None for exponential time, or perhaps so."""
    total = 0
    for name, argument in items:
        inner = [_degree(part) for part in _parts(str(name), argument)]
        known = [degree for degree in inner if degree is not None]
        if len(known) < len(inner):
            return None
        within = max(known, default=0)
        if str(name) in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, part = argument
            if most > 1 and (within or _has_choice(part)):
                return None
            within += least != most
        total += within
    return total


def _has_choice(items: Iterable[Any]) -> bool:
    return any(str(name) == "BRANCH" or any(map(_has_choice, _parts(str(name), argument))) for name, argument in items)


class _Positions:
    """Sets of positions in one text: bit n is set where n characters lie before the position."""

    def __init__(self, text: str) -> None:
        self.text, self.all = text, (2 << len(text)) - 1
        self._of: dict[str, int] = {}
        self._classes: dict[tuple[str, int | None, int], int] = {}
        for index, character in enumerate(text):
            self._of[character] = self._of.get(character, 0) | 1 << index

    def reached(self, items: Iterable[Any], flags: int, start: int, back: bool = False) -> int:
        """Where matches of the items in a row can end that begin at positions of ``start``; ``back``: where those can begin
        that end there.
        """
        for name, argument in reversed(list(items)) if back else items:
            if not start:
                break
            start = self._one(str(name), argument, flags, start, back)
        return start

    def _one(self, name: str, argument: Any, flags: int, start: int, back: bool) -> int:
        if name == "SUBPATTERN":
            return self.reached(argument[3], (flags | argument[1]) & ~argument[2], start, back)
        if name == "BRANCH":
            ends = 0
            for part in argument[1]:
                ends |= self.reached(part, flags, start, back)
            return ends
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, part = argument
            return self._repeated(least, most, part, flags, start, back)
        if name in ("ASSERT", "ASSERT_NOT"):
            held = self.reached(argument[1], flags, self.all, back=argument[0] > 0)
            return start & (held if name == "ASSERT" else ~held)
        if name == "AT":
            return start & self._at(str(argument), flags)
        characters = self._characters(name, argument, flags)
        return start >> 1 & characters if back else (start & characters) << 1

    def _repeated(self, least: int, most: int, part: Any, flags: int, start: int, back: bool) -> int:
        for _ in range(least):
            ends = self.reached(part, flags, start, back)
            if ends == start:  # more of them change nothing
                break
            start = ends
        ends = fresh = start
        for _ in range(most - least):
            fresh = self.reached(part, flags, fresh, back) & ~ends if fresh else 0
            if not fresh:
                break
            ends |= fresh
        return ends

    def _at(self, where: str, flags: int) -> int:
        first, last = 1, 1 << len(self.text)
        lines = self._of.get("\n", 0)
        if where in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return first | (lines << 1 if flags & re.MULTILINE and where == "AT_BEGINNING" else 0)
        if where == "AT_END_STRING":
            return last
        if where == "AT_END":
            return last | (lines if flags & re.MULTILINE else lines & last >> 1)
        word = self._where(_CLASSES["WORD"])
        edge = (word ^ word << 1) & self.all
        return edge if where == "AT_BOUNDARY" else self.all & ~edge

    def _characters(self, name: str, argument: Any, flags: int) -> int:
        """Where characters of a class begin."""
        if name == "LITERAL" and not flags & re.IGNORECASE:
            return self._of.get(chr(argument), 0)
        key = (name, id(argument) if name == "IN" else argument, flags)
        if key not in self._classes:
            self._classes[key] = self._where(_class(name, argument, flags))
        return self._classes[key]

    def _where(self, accepts: Callable[[str], bool]) -> int:
        return sum(positions for character, positions in self._of.items() if accepts(character))


def _class(name: str, argument: Any, flags: int) -> Callable[[str], bool]:
    """Whether a character is one that the item matches."""
    if name == "ANY":
        return lambda character: bool(flags & re.DOTALL) or character != "\n"
    if name in ("LITERAL", "NOT_LITERAL"):
        same = partial(_is_in, [("LITERAL", argument)], flags)
        return same if name == "LITERAL" else lambda character: not same(character)
    assert name == "IN", name
    return partial(_is_in, argument, flags)


def _is_in(members: Iterable[Any], flags: int, character: str) -> bool:
    """Whether the character is in a class such as [a-z_]."""
    forms = {character, character.lower(), character.upper()} if flags & re.IGNORECASE else {character}
    negated = inside = False
    for name, argument in members:
        if str(name) == "NEGATE":
            negated = True
        elif str(name) == "LITERAL":
            inside |= chr(argument) in forms
        elif str(name) == "RANGE":
            inside |= any(argument[0] <= ord(form) <= argument[1] for form in forms if len(form) == 1)
        else:
            words = str(argument).split("_")  # CATEGORY_NOT_DIGIT
            inside |= _CLASSES[words[-1]](character) != ("NOT" in words)
    return inside != negated
