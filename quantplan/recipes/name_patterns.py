"""Regular expressions that name tensors exactly, in the little that std::regex and Python's re share."""

import os
import re
from collections.abc import Iterable

from quantplan.errors import BadUsage

_SPECIAL = re.compile(r"([\\^$.|?*+()\[\]{}])")
_UNSAFE = re.compile(r"[A-Z=,\s]")  # llama.cpp's tools lower-case patterns, or end them there


def literal(text: str) -> str:
    """A pattern for the text that survives the tools' option parsers: what they change becomes any character."""
    if not text.isascii():
        raise BadUsage(f"the tensor name {text!r} is not plain ASCII; llama.cpp's patterns cannot name it")
    return _UNSAFE.sub(".", _SPECIAL.sub(r"\\\1", text))


def numbers(wanted: Iterable[int]) -> str:
    """Plain alternation of numbers, last digits joined in classes: 3|7|1[0-5], in brackets where there are several."""
    endings: dict[str, str] = {}
    for number in sorted(set(wanted)):
        start, last = str(number)[:-1], str(number)[-1]
        endings[start] = endings.get(start, "") + last
    words = [start + _class(last) for start, last in endings.items() if len(start) != 1]
    decades: dict[str, str] = {}  # tens with the same last digits: [1-3][0-9]
    for start, last in endings.items():
        if len(start) == 1:
            decades[last] = decades.get(last, "") + start
    words += [_class(starts) + _class(last) for last, starts in decades.items()]
    return words[0] if len(words) == 1 else f"({'|'.join(words)})"


def words(wanted: Iterable[str]) -> str:
    """Alternation of words, what they start and end with in common written once: ``ffn_(down|gate|up)_exps``."""
    ordered = sorted(set(wanted))
    if len(ordered) == 1:
        return literal(ordered[0])
    start = os.path.commonprefix(ordered)
    rest = [word[len(start) :] for word in ordered]
    end = os.path.commonprefix([word[::-1] for word in rest])[::-1]
    middles = sorted((word[: len(word) - len(end)] for word in rest), key=lambda word: (not word, word))
    return f"{literal(start)}({'|'.join(literal(word) for word in middles)}){literal(end)}"


def _class(digits: str) -> str:
    """A character class of ascending digits: 7, [37], [0-5], [0-35]."""
    if len(digits) == 1:
        return digits
    runs: list[list[str]] = []
    for digit in digits:
        if runs and int(digit) == int(runs[-1][-1]) + 1:
            runs[-1].append(digit)
        else:
            runs.append([digit])
    return "[" + "".join("".join(run) if len(run) < 3 else f"{run[0]}-{run[-1]}" for run in runs) + "]"
