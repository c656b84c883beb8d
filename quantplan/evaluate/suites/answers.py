"""Answers as graders read them: thinking set apart, texts brought to one spelling, numbers found."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

from quantplan.llamacpp.chat import CLOSED, OPENED

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BETWEEN = re.compile(r"(?<!\d)[.]|[.](?!\d)|[^\w\s.]|_")  # all but letters, digits and the point within a number
_NUMBER = re.compile(r"(?<![\w.])(?:(?<!\))[-+])?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True)
class Reply:
    """What a model said to one prompt. ``opened``: the prompt ended inside a block of thinking."""

    text: str
    opened: bool = False

    @property
    def whole(self) -> str:
        """The text with the tag that the prompt had already."""
        return OPENED + self.text if self.opened else self.text

    @property
    def said(self) -> str:
        """What comes after the thinking; nothing where the thinking has not ended."""
        _, closed, after = self.whole.rpartition(CLOSED)
        return after.partition(OPENED)[0].strip() if closed else self.whole.partition(OPENED)[0].strip()


def normal(text: str) -> str:
    """Lower case, no accents, no punctuation, one space between words; 300,000 is 300000, and 3.14 stays."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(each for each in plain if not unicodedata.combining(each))
    return " ".join(_BETWEEN.sub(" ", _THOUSANDS.sub("", plain)).split())


def finds(wanted: str, text: str) -> bool:
    """Whether a word or phrase, or a pattern between slashes, stands in the normal ``text`` as whole words."""
    pattern = wanted[1:-1] if len(wanted) > 2 and wanted[0] == wanted[-1] == "/" else re.escape(normal(wanted))
    return re.search(rf"(?<!\w)(?:{pattern})(?!\w)", text) is not None


def numbers(text: str) -> list[Decimal]:
    """All numbers in the order of the text; 1,234 is one, -5 is below zero, 3-5 are 3 and 5."""
    plain = _THOUSANDS.sub("", text.replace("−", "-"))
    return [Decimal(each) for each in _NUMBER.findall(plain)]


def words(text: str) -> list[str]:
    """The words in lower case; numbers are none."""
    return [each.casefold() for each in _WORD.findall(text)]


def repeated(items: list[str], length: int) -> float:
    """Share of the runs of ``length`` words that came before already; 0 where there are fewer than two."""
    runs = list(zip(*(items[start:] for start in range(length)), strict=False))
    return 1 - len(set(runs)) / len(runs) if len(runs) > 1 else 0.0
