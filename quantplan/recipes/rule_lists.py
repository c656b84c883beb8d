"""Rules ``PATTERN=TYPE`` in lists: between white space, as lines with comments, or between commas."""

import re
from dataclasses import dataclass

from quantplan.errors import BadFile, NothingSelected
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import any_type

_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_BLANKS = re.compile(r"[ \t]*(?<!\[)=(?!\])[ \t]*")
_QUOTES = " ,\t\r\n\"'`"
_SHOWN = 60  # characters of a word that a message shows


@dataclass(frozen=True)
class RuleText:
    """Rules in their order, and what else a command line said: the file type at its end, types of two
    tensors, --pure, --leave-output-tensor. Types may be such as only ik_llama.cpp has.

    ``keep_case``: the rules are of a form whose patterns are taken as they stand (ik_llama.cpp, recipes); the first that
    is found wins in all of them. ``warnings``: how the text was understood.
    """

    rules: tuple[Rule, ...]
    ftype: str | None = None
    pure: bool = False
    token_embedding: QuantType | None = None
    output: QuantType | None = None
    leave_output: bool = False
    keep_case: bool = False
    warnings: tuple[str, ...] = ()


def has_comments(text: str) -> bool:
    return bool(_COMMENT.search(text))


def without_comments(text: str) -> str:
    return _COMMENT.sub("", text)


def parse_rule_list(text: str) -> RuleText:
    """The rules of a text that has nothing else. BadFile with what is not a rule, NothingSelected for an unknown type."""
    plain = _bare(text)
    if not plain:
        raise BadFile(f"there are no rules in {'the text, only comments' if text.strip() else 'an empty file'}")
    listed = any(_is_list(word) for word in plain.split())
    if listed or has_comments(text):
        return RuleText(listed_rules(text), keep_case=True)
    return RuleText(tuple(parse_rule(word) for word in plain.split()))


def listed_rules(text: str) -> tuple[Rule, ...]:
    """Rules between commas, white space and comments."""
    plain = _bare(text)
    if not plain:
        raise BadFile("there are no rules in the text, only comments")
    return tuple(parse_rule(word) for word in re.split(r",\s*(?=[^\s,]*=)|\s+", plain) if word)


def is_rule_list(text: str) -> bool:
    """Whether the text is nothing but rules, the first with a type that exists."""
    words = re.split(r"[,\s]+", _bare(text))
    if not all(re.fullmatch(r"[^=]+=\w+", word.strip(_QUOTES)) for word in words):
        return False
    try:
        parse_rule(words[0])
    except NothingSelected:
        return False
    return True


def _bare(text: str) -> str:
    """Without comments, back-ticks, and blanks around ``=``."""
    return _BLANKS.sub("=", without_comments(text).replace("`", "")).strip(_QUOTES)


def _is_list(word: str) -> bool:
    """Whether the word is several rules: a comma may also stand in a pattern, as in [0-9]{1,2}."""
    parts = word.strip(_QUOTES).split(",")
    return len(parts) > 1 and all("=" in part for part in parts)


def parse_rule(word: str) -> Rule:
    """``PATTERN=TYPE``; BadFile for anything else, NothingSelected for an unknown type."""
    pattern, _, quant = word.strip(_QUOTES).partition("=")
    if not pattern or not quant:
        shown = word if len(word) <= _SHOWN else f"{word[:_SHOWN]} ..."
        raise BadFile(f"{shown!r} is not a rule of the form PATTERN=TYPE")
    return Rule(pattern, any_type(quant))
