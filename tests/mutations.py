"""Damage that happens to files, and that breaks parsers, drawn from a ``Random``: of bytes, of text, of JSON."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

DEEP = "nested deeper than any parser recurses"  # a value that is replaced by 20,000 brackets when it is written
_DEPTH = 20_000
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_BAD_UTF8 = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\0", b"\xef\xbb\xbf", b"\r\n")
ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\u202eevil",
    "\ud800",
    "../../etc/passwd",
    "%s%n",
    "9" * 5000,
    "x" * 70_000,
    "-1",
    "1e999",
    "nan",
    "[bold]",
    "ü" * 40,
    "(a" * 300,
    "a{99999999999}",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    -(2**63),
    2**70,
    10**400,
    0.5,
    -1e-300,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    [],
    {},
    [[]],
    {"": None},
    DEEP,
    *ODD_TEXTS,
)


class Twice(dict):
    """A JSON object in which every key stands twice."""

    def items(self) -> Any:
        return [*super().items(), *super().items()]


# --- bytes


def damaged(random: Random, data: bytes) -> bytes:
    """One to three kinds of damage."""
    for _ in range(random.randint(1, 3)):
        data = random.choice(_DAMAGE)(random, data)
    return data


def _place(random: Random, data: bytes) -> int:
    return random.randint(0, max(0, len(data) - 1))


def _flipped(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        changed[_place(random, data)] ^= 1 << random.randint(0, 7)
    return bytes(changed)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: _place(random, data)]


def _extended(random: Random, data: bytes) -> bytes:
    return data + random.choice((b"\0" * 64, data[:100], b"\xff" * 33, b" \n"))


def _without(random: Random, data: bytes) -> bytes:
    start = _place(random, data)
    return data[:start] + data[start + random.randint(1, 64) :]


def _repeated(random: Random, data: bytes) -> bytes:
    start = _place(random, data)
    piece = data[start : start + random.randint(1, 64)]
    return data[:start] + piece * random.randint(2, 4) + data[start + len(piece) :]


def _with_number(random: Random, data: bytes) -> bytes:
    start, size = _place(random, data), random.choice((1, 4, 8))
    number = random.choice(_EDGES) % (1 << (8 * size))
    return data[:start] + number.to_bytes(size, "little") + data[start + size :]


def _no_utf8(random: Random, data: bytes) -> bytes:
    start = _place(random, data)
    return data[:start] + random.choice(_BAD_UTF8) + data[start:]


def _nothing(random: Random, data: bytes) -> bytes:
    return random.choice((b"", data[:4], b"\0" * 16))


_DAMAGE: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flipped,
    _cut,
    _extended,
    _without,
    _repeated,
    _with_number,
    _no_utf8,
    _nothing,
)


# --- text


def damaged_text(random: Random, data: bytes) -> bytes:
    """Damaged bytes, or words and lines of the text exchanged, repeated, dropped, or replaced by odd ones."""
    if random.randint(0, 3) == 0:
        return damaged(random, data)
    separator = random.choice((b"\n", b" ", b"=", b",", b":"))
    words = data.split(separator)
    for _ in range(random.randint(1, 3)):
        index, other = random.randrange(len(words)), random.randrange(len(words))
        odd = random.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")
        words[index] = random.choice((odd, words[other], b"", words[index] + odd[:30], words[index] * 2, b"'", b'"'))
    return separator.join(words)


# --- JSON


def damaged_json(random: Random, content: Any) -> bytes:
    """A record with one to three values or keys that are missing, doubled, or of another type; or damaged bytes of it."""
    if random.randint(0, 7) == 0:
        return damaged(random, json_bytes(content))
    for _ in range(random.randint(1, 3)):
        content = _damaged_value(random, content, 0.15)
    return json_bytes(content)


def _damaged_value(random: Random, content: Any, here: float) -> Any:
    """``content`` with a change at it, with a chance of ``here``, or else at one of the paths below."""
    if not isinstance(content, (dict, list)) or not content or random.random() < here:
        return _odd_value(random, content)
    if isinstance(content, list):
        index = random.randrange(len(content))
        change = random.choice(("below",) * 4 + ("drop", "double"))
        items = [_damaged_value(random, content[index], 0.3)] if change == "below" else [content[index]] * 2
        return [*content[:index], *([] if change == "drop" else items), *content[index + 1 :]]
    key = random.choice(list(content))
    change = random.choice(("below",) * 5 + ("drop", "rename", "twice"))
    if change == "below":
        return content | {key: _damaged_value(random, content[key], 0.3)}
    if change == "twice":
        return Twice(content)
    rest = {name: value for name, value in content.items() if name != key}
    return rest if change == "drop" else rest | {random.choice(ODD_TEXTS): content[key]}


def _odd_value(random: Random, content: Any) -> Any:
    if isinstance(content, (int, float)) and random.randint(0, 1):
        return random.choice((-content, content * 1_000_000, str(content)[:9], 10**30))
    return random.choice(ODD_VALUES)


def json_bytes(content: Any) -> bytes:
    """The JSON text, surrogates and NaN as they are."""
    text = json.dumps(content, ensure_ascii=True)
    return text.replace(json.dumps(DEEP), "[" * _DEPTH + "]" * _DEPTH).encode()
