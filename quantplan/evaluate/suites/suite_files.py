"""Suites as YAML: read with every mistake named by file, part, item and key. See docs/suites.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

from quantplan.evaluate.suites import suite as nouns
from quantplan.evaluate.suites.suite import KINDS, Suite, SuiteItem, SuitePart
from quantplan.evaluate.suites.yaml_fields import Place, check_unlike, described, load

SUITE_FORMAT, SUITE_VERSION = "quantplan-suite", 1  # 1: first
DEFAULT = "default"
_FOLDER = Path(__file__).parents[2] / "data" / "suites"

# kind -> what names its text, keys that an item must have, keys that it may have
_ITEM_KEYS: dict[str, tuple[str, frozenset[str], frozenset[str]]] = {
    nouns.FACTS: ("question", frozenset({"accept"}), frozenset({"reject"})),
    nouns.COHERENCE: ("text", frozenset({"keywords"}), frozenset({"needed", "at_least"})),
    nouns.REPETITION: ("question", frozenset(), frozenset({"at_least"})),
    nouns.THINKING: ("question", frozenset(), frozenset({"accept", "reject"})),
    nouns.DIRECT: ("question", frozenset(), frozenset({"accept", "reject"})),
    nouns.MATH: ("question", frozenset({"answer"}), frozenset()),
    nouns.FEELINGS: ("dialogue", frozenset({"who", "feelings"}), frozenset()),
    nouns.REASONING: ("question", frozenset(), frozenset({"answer", "choices", "accept", "reject", "topic"})),
}
_EVERY_ITEM = {"name", "max_tokens"}
_PART_KEYS = {"name", "kind", "weight", "max_tokens", "instruction", "thinking", "common_words", "at_least", "items"}
_SUITE_KEYS = {"format", "version", "name", "about", "thinking_tokens", "parts"}
_AT_LEAST = {nouns.COHERENCE: 8, nouns.REPETITION: 30}  # words, where the file does not say


def read_suite(source: Path | str) -> Suite:
    """The suite in a file, or the shipped one for ``default``; BadFile with the place and the mend for any mistake."""
    path = default_suite() if str(source) == DEFAULT else Path(source)
    content = Place(path, load(path, "suite", f"`--suite {DEFAULT}`"))
    content.keys(_SUITE_KEYS, {"format", "version", "parts"})
    if content.text("format") != SUITE_FORMAT:
        content.refuse("format", f"is {content.text('format')!r}; a suite begins with `format: {SUITE_FORMAT}`")
    if content.text("version") != str(SUITE_VERSION):
        content.refuse("version", f"{content.text('version')} is unknown (1 to {SUITE_VERSION}); update quantplan")
    parts = tuple(_part(each) for each in content.children("parts", "part"))
    check_unlike(content, "parts", [part.name for part in parts])
    return Suite(
        name=content.text("name", path.stem),
        parts=parts,
        thinking_tokens=content.count("thinking_tokens", 0, least=0),
    )


def default_suite() -> Path:
    """The file of the shipped suite."""
    return _FOLDER / f"{DEFAULT}.yaml"


def _part(place: Place) -> SuitePart:
    place.keys(_PART_KEYS, {"kind", "weight"})
    kind = place.text("kind")
    if kind not in KINDS:
        place.refuse("kind", f"is {kind!r}; known are {', '.join(KINDS)}")
    weight = place.number("weight", place.text("weight"), 0, math.inf)
    if weight == 0:
        place.refuse("weight", "is 0; give a weight above 0, or leave the part out")
    part = SuitePart(
        name=place.text("name", kind) or kind,
        kind=kind,
        weight=weight,
        instruction=place.text("instruction"),
        thinking=place.truth("thinking", False),
        common_words=tuple(word.casefold() for text in place.texts("common_words") for word in text.split()),
        items=_items(place, kind),
    )
    if kind == nouns.COHERENCE and not part.common_words:
        place.refuse("common_words", "is missing; list the most frequent words of the texts' language")
    return part


def _items(place: Place, kind: str) -> tuple[SuiteItem, ...]:
    if kind == nouns.PERPLEXITY:
        if place.content.get("items"):
            place.refuse("items", "has entries, but perplexity is measured on a text; leave items out")
        return ()
    items = tuple(_item(each, place, kind, number) for number, each in enumerate(place.children("items", "item"), 1))
    check_unlike(place, "items", [item.name for item in items])
    return items


def _item(place: Place, part: Place, kind: str, number: int) -> SuiteItem:
    named, needed, also = _ITEM_KEYS[kind]
    place.keys({named} | needed | also | _EVERY_ITEM, {named} | needed)
    if "max_tokens" not in part.content and "max_tokens" not in place.content:
        place.refuse("max_tokens", "is missing; add `max_tokens: ...` here or in the part")
    found = SuiteItem(
        name=place.text("name", str(number)) or str(number),
        text=place.required(named),
        max_tokens=place.count("max_tokens", part.count("max_tokens", 1)),
        accept=_patterns(place, "accept", least=1 if "accept" in needed else 0),
        reject=_patterns(place, "reject"),
        keywords=_patterns(place, "keywords", least=1 if "keywords" in needed else 0),
        needed=place.count("needed", 1),
        at_least=place.count("at_least", part.count("at_least", _AT_LEAST.get(kind, 0), least=0), least=0),
        answer=place.text("answer"),
        choices=place.texts("choices"),
        who=place.text("who"),
        feelings=_feelings(place) if kind == nouns.FEELINGS else (),
        topic=place.text("topic"),
    )
    if kind in _CHECKS:
        _CHECKS[kind](place, found)
    return found


def _patterns(place: Place, key: str, least: int = 0) -> tuple[str, ...]:
    found = place.texts(key, least)
    for each in found:
        if len(each) > 2 and each.startswith("/") and each.endswith("/"):
            try:
                re.compile(each[1:-1])
            except re.error as error:
                place.refuse(key, f"has the pattern {each}, which is no regular expression ({error}); mend it")
    return found


def _feelings(place: Place) -> tuple[tuple[str, float], ...]:
    place.required("who")
    value = place.content["feelings"]
    if not isinstance(value, Mapping) or not value:
        place.refuse(
            "feelings", f"is {described(value)}; names with intensities are needed, as {{anger: 7, relief: 2}}"
        )
    return tuple((str(name), place.number(f"feelings.{name}", str(level), 0, 10)) for name, level in value.items())


def _check_math(place: Place, item: SuiteItem) -> None:
    if not _is_number(item.answer):
        place.refuse("answer", f"is {item.answer!r}; a number is needed, as 12, -3.5 or 1e6")


def _check_reasoning(place: Place, item: SuiteItem) -> None:
    if item.choices and item.answer not in item.choices:
        place.refuse("answer", f"is {item.answer!r}; it must be one of the choices, as it is written there")
    if item.choices and len(set(item.choices)) < 2:
        place.refuse("choices", "has fewer than 2 entries; add what a wrong answer would say")
    if bool(item.answer) == bool(item.accept):
        place.refuse("answer", "or accept is needed, and only one of them")
    if item.answer and not item.choices and not _is_number(item.answer):
        place.refuse("answer", f"is {item.answer!r}, which is no number; add choices, or write accept instead")


def _check_coherence(place: Place, item: SuiteItem) -> None:
    if item.needed > len(item.keywords):
        place.refuse("needed", f"is {item.needed}, more than the {len(item.keywords)} keywords; lower it")


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


_CHECKS: dict[str, Callable[[Place, SuiteItem], None]] = {
    nouns.MATH: _check_math,
    nouns.REASONING: _check_reasoning,
    nouns.COHERENCE: _check_coherence,
}
