"""Answers as graders read them: without thinking, in one spelling, with their numbers."""

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

from quantplan.llamacpp.chat import CLOSED, OPENED
from quantplan.patterns import regular_expression

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BETWEEN = re.compile(r"(?<!\d)[.]|[.](?!\d)|[^\w\s.]|_")  # all but letters, digits and the point within a number
_NUMBER = re.compile(r"(?<![\w.])(?:(?<!\))[-+])?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True)
class Reply:
    """A model's answer to one prompt. ``opened``: the prompt ended inside a block of thinking. ``ended``: by the model itself.

    ``call_marks``: texts that the model's chat template puts around calls of tools.
    """

    text: str
    opened: bool = False
    ended: bool = True
    call_marks: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """The text, with the opening tag that the prompt ended with."""
        return OPENED + self.text if self.opened else self.text

    @property
    def said(self) -> str:
        """The text after the thinking; empty where the thinking does not end."""
        _, closed, after = self.whole.rpartition(CLOSED)
        return after.partition(OPENED)[0].strip() if closed else self.whole.partition(OPENED)[0].strip()


def normal(text: str) -> str:
    """Lower case, no accents, no punctuation, one space between words; 300,000 is 300000, and 3.14 stays."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    return " ".join(_BETWEEN.sub(" ", _THOUSANDS.sub("", plain)).split())


def finds(phrase: str, text: str) -> bool:
    """Whether a phrase, or a pattern between slashes, is in the normalized ``text`` as whole words."""
    pattern = phrase[1:-1] if len(phrase) > 2 and phrase[0] == phrase[-1] == "/" else re.escape(normal(phrase))
    return regular_expression(rf"(?<!\w)(?:{pattern})(?!\w)").search(text)


def numbers(text: str) -> list[Decimal]:
    """All numbers in the order of the text; 1,234 is one number, -5 is negative, 3-5 are 3 and 5."""
    plain = _THOUSANDS.sub("", text.replace("−", "-"))
    return [Decimal(number) for number in _NUMBER.findall(plain)]


def words(text: str) -> list[str]:
    """The words in lower case; numbers are not words."""
    return [word.casefold() for word in _WORD.findall(text)]


def repeated(items: list[str], length: int) -> float:
    """Share of the runs of ``length`` words that occurred before; 0 where there are fewer than two runs."""
    runs = list(zip(*(items[start:] for start in range(length)), strict=False))
    return 1 - len(set(runs)) / len(runs) if len(runs) > 1 else 0.0
