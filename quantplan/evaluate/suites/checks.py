"""What a program can check of an answer: how many words, which words, which form, which language. See docs/suites.md."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from quantplan.evaluate.suites.answers import finds, normal
from quantplan.evaluate.suites.json_schema import violations, whole_numbers
from quantplan.evaluate.suites.languages import language_of

_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’»)*_]*(?=\s|$)")
_BULLET = re.compile(r"\s*[-*•]\s+\S")
_NUMBERED = re.compile(r"\s*(\d+)[.)]\s+\S")
_FENCE = re.compile(r"```[\w-]*\n(.*?)\n?```", re.DOTALL)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")  # numbers are words here, as in a word processor
_DECORATION = "*_`#\"'“”«» "  # around the first or last words of an answer
ANY_JSON = "any"


@dataclass(frozen=True)
class Range:
    """How many: ``low`` to ``high``, both included; ``high`` None: no upper end."""

    low: int
    high: int | None

    def __contains__(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Each field that is set is a check; an answer is right where all hold.

    ``json``: a schema as JSON text, or ANY_JSON. ``times``: a word with how often it is said. ``initials``: letters that the
    lines begin with. ``csv``: columns of every row. ``exactly``: the whole answer, apart from case, quotes and spaces around.
    """

    words: Range | None = None
    sentences: Range | None = None
    lines: Range | None = None
    paragraphs: Range | None = None
    characters: Range | None = None
    bullets: Range | None = None
    numbered: Range | None = None
    contains: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    no_characters: str = ""
    times: tuple[tuple[str, Range], ...] = ()
    begins: str = ""
    ends: str = ""
    case: str = ""
    language: str = ""
    initials: str = ""
    csv: int = 0
    json: str = ""
    exactly: str = ""

    @property
    def names(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


def failures(text: str, checks: Checks) -> list[str]:
    """What of an answer is not as the checks say, a phrase each."""
    text = text.strip()
    if not text:
        return ["no answer"]
    return [failure for name in checks.names for failure in _CHECKS[name](text, getattr(checks, name))]


# --- counts


def _counted(what: str, count: Callable[[str], int]) -> Callable[[str, Range], Iterator[str]]:
    def check(text: str, allowed: Range) -> Iterator[str]:
        if (number := count(text)) not in allowed:
            yield f"{number} {what}, not {allowed}"

    return check


def sentences(text: str) -> int:
    """A text that does not end as a sentence does is one nevertheless."""
    ends = list(_SENTENCE_END.finditer(text))
    return len(ends) + bool(text[ends[-1].end() :].strip() if ends else text.strip())


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _numbered(text: str) -> int:
    """Items numbered 1, 2, 3 ...; 0 where a number is missing."""
    numbers = [int(match[1]) for match in map(_NUMBERED.match, text.splitlines()) if match]
    return len(numbers) if numbers == list(range(1, len(numbers) + 1)) else 0


# --- words


def _contains(text: str, phrases: tuple[str, ...]) -> Iterator[str]:
    plain = normal(text)
    yield from (f"no {phrase}" for phrase in phrases if not finds(phrase, plain))


def _without(text: str, phrases: tuple[str, ...]) -> Iterator[str]:
    plain = normal(text)
    yield from (f"says {phrase}" for phrase in phrases if finds(phrase, plain))


def _no_characters(text: str, characters: str) -> Iterator[str]:
    yield from (f"has {character!r}" for character in characters if character.casefold() in text.casefold())


def _times(text: str, counts: tuple[tuple[str, Range], ...]) -> Iterator[str]:
    words = normal(text)
    for word, allowed in counts:
        said = len(re.findall(rf"(?<!\w){re.escape(normal(word))}(?!\w)", words))
        if said not in allowed:
            yield f"says {word} {said} times, not {allowed}"


def _begins(text: str, start: str) -> Iterator[str]:
    if not _bare(text).startswith(_bare(start)) and not text.startswith(start):
        yield f"does not begin with {start}"


def _ends(text: str, end: str) -> Iterator[str]:
    if not _bare(text).endswith(_bare(end) or "\0") and not text.endswith(end):
        yield f"does not end with {end}"


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(_DECORATION).casefold()


def _exactly(text: str, wanted: str) -> Iterator[str]:
    inner = _FENCE.fullmatch(text)
    if _bare(inner[1] if inner else text) != _bare(wanted):
        yield "says something else"


# --- form


def _case(text: str, case: str) -> Iterator[str]:
    if text != (text.upper() if case == "upper" else text.lower()):
        yield f"is not all in {case} case"


def _language(text: str, language: str) -> Iterator[str]:
    if (found := language_of(text)) != language:
        yield f"is {found or 'in no known language'}, not {language}"


def _initials(text: str, letters: str) -> Iterator[str]:
    first = "".join(line.lstrip(_DECORATION + "-•")[:1] for line in _lines(text))
    if first.casefold() != letters.casefold():
        yield f"its lines begin with {first[:20]}, not {letters}"


def _csv(text: str, columns: int) -> Iterator[str]:
    inner = _FENCE.fullmatch(text)
    if any(line.count(",") != columns - 1 for line in _lines(inner[1] if inner else text)):
        yield f"is not rows of {columns} values"


def _json(text: str, schema: str) -> Iterator[str]:
    inner = _FENCE.fullmatch(text)
    try:
        value = whole_numbers(json.loads(inner[1] if inner else text))
    except (ValueError, RecursionError):
        yield "is not JSON"
        return
    if schema != ANY_JSON:
        yield from violations(value, schema)


_CHECKS: dict[str, Callable[..., Iterator[str]]] = {
    "words": _counted("words", lambda text: len(_WORD.findall(text))),
    "sentences": _counted("sentences", sentences),
    "lines": _counted("lines", lambda text: len(_lines(text))),
    "paragraphs": _counted("paragraphs", lambda text: len(re.split(r"\n\s*\n", text))),
    "characters": _counted("characters", len),
    "bullets": _counted("bullets", lambda text: sum(bool(_BULLET.match(line)) for line in text.splitlines())),
    "numbered": _counted("numbered items", _numbered),
    "contains": _contains,
    "without": _without,
    "no_characters": _no_characters,
    "times": _times,
    "begins": _begins,
    "ends": _ends,
    "case": _case,
    "language": _language,
    "initials": _initials,
    "csv": _csv,
    "json": _json,
    "exactly": _exactly,
}
