"""Regular expressions that people and their files give, compiled and searched in bounded time.

For some (``(a+)+$``) a backtracking matcher takes exponential time: such a search is given up. ``regex`` reads what ``re``
does, and can stop.
"""

import re
import warnings
from functools import lru_cache

import regex

from quantplan.errors import BadUsage

SEARCH_SECONDS = 1.0  # of one search; tensor names take microseconds
_LARGEST = 200_000  # parts of a pattern with its counted repeats, (...){1000}, written out, as regex does to compile it
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<least>\d*),?(?P<most>\d*)\}|.", re.DOTALL)
_NAME = 128  # letters; tensor names have at most 63
_SHORT_REPEATS = 3  # a name's length to the power of more than these takes long
_REPEAT, _REPEATED_GROUP = re.compile(r"[*+{]"), re.compile(r"\)[*+{]")


class Pattern:
    """A compiled regular expression that can be asked whether a text holds it."""

    def __init__(self, text: str) -> None:
        """Raises as ``regular_expression``."""
        self.text, self._regex = text, regex.compile(text)
        self._plain = _compiled(text) if self.simple else None

    @property
    def simple(self) -> bool:
        """Whether a matcher that cannot stop (std::regex of llama-quantize) surely takes short for tensor names."""
        return not _REPEATED_GROUP.search(self.text) and len(_REPEAT.findall(self.text)) <= _SHORT_REPEATS

    def search(self, text: str) -> bool:
        """Whether the pattern is found anywhere in the text. BadUsage where that takes too long to tell."""
        if self._plain and len(text) <= _NAME:
            return self._plain.search(text) is not None
        try:
            return self._regex.search(text, timeout=SEARCH_SECONDS) is not None
        except TimeoutError:
            raise BadUsage(
                f"the regular expression {self.text} was searched in {text[:63]!r} for {SEARCH_SECONDS:g} s without an end; "
                "write it without repeats within repeats"
            ) from None


@lru_cache(1024)
def regular_expression(text: str) -> Pattern:
    """ValueError with the reason for a text that is none, or one that becomes too large when it is compiled."""
    if _size(text) > _LARGEST:
        raise ValueError(f"with its counted repeats written out it has more than {_LARGEST:,} parts")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later version may read otherwise
            return Pattern(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except regex.error as error:
        raise ValueError(str(error)) from None


def _compiled(text: str) -> re.Pattern[str] | None:
    """For ``re``, which is four times as fast on names; None where only ``regex`` can read it."""
    try:
        return re.compile(text)
    except re.error:
        return None


def _size(text: str) -> int:
    """How many parts a pattern has once its counted repeats are written out."""
    groups, last = [0], 0  # of the groups that are open, and of what a count would repeat
    for token in _TOKEN.finditer(text):
        if token[0] == "(":
            groups.append(0)
        elif token[0] == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif count := token["most"] or token["least"]:
            groups[-1] += last * (int(count) - 1)
            last *= int(count)
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)
