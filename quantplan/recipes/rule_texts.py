"""Rules as others write them: rules files, command lines of llama-quantize, ``--custom-q`` of ik_llama.cpp, Thireus'
recipes.
"""

import re
import shlex
from dataclasses import dataclass, replace

from quantplan.errors import BadFile
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import any_type

_CUSTOM = "--custom-q"
_WITH_VALUE = (
    "--tensor-type",
    "--tensor-type-file",
    _CUSTOM,
    "--token-embedding-type",
    "--output-tensor-type",
    "--imatrix",
    "--include-weights",
    "--exclude-weights",
    "--override-kv",
    "--max-buffer-size",
)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_ASSIGNED = re.compile(r"(\w+)=(?!\$\()(.*)", re.DOTALL)  # name='rules' in a shell script, not name=$(command)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True)
class RuleText:
    """Rules in their order, and what else a command line said: the file type at its end, types of two
    tensors, --pure. Types may be such as only ik_llama.cpp has.

    ``keep_case``: the rules are of a form whose patterns are taken as they stand (ik_llama.cpp, recipes); the first that
    is found wins in all of them.
    """

    rules: tuple[Rule, ...]
    ftype: str | None = None
    pure: bool = False
    token_embedding: QuantType | None = None
    output: QuantType | None = None
    keep_case: bool = False


def parse_rules(text: str) -> RuleText:
    """Rules from any of these texts:

    - a rules file: ``PATTERN=TYPE`` between white space;
    - a recipe: ``PATTERN=TYPE`` a line, and comments;
    - ``PATTERN=TYPE,PATTERN=TYPE`` as --custom-q takes them;
    - a command line or shell script with --tensor-type or --custom-q.

    BadFile with the word that is not a rule; NothingSelected for an unknown type.
    """
    if re.search(r"(?:^|[\s'\"])--[a-z]", _COMMENT.sub("", text)):
        return _command_line(text)
    if _COMMENT.search(text):
        return RuleText(_listed(text), keep_case=True)
    words = text.split()
    if not words:
        raise BadFile("there are no rules in an empty file")
    if any(_is_list(word) for word in words):
        return RuleText(_listed(text), keep_case=True)
    return RuleText(tuple(parse_rule(word) for word in words))


def _is_list(word: str) -> bool:
    """Whether the word is several rules: a comma may also stand in a pattern, as in [0-9]{1,2}."""
    parts = word.strip(",\"'").split(",")
    return len(parts) > 1 and all("=" in part for part in parts)


def _listed(text: str) -> tuple[Rule, ...]:
    """Rules between commas, white space and comments."""
    words = re.split(r"[,\s]+", _COMMENT.sub("", text).strip(" ,\t\r\n\"'"))
    if words == [""]:
        raise BadFile("there are no rules in the text, only comments")
    return tuple(parse_rule(word) for word in words)


def parse_rule(word: str) -> Rule:
    """``PATTERN=TYPE``; BadFile for anything else, NothingSelected for an unknown type."""
    pattern, _, quant = word.partition("=")
    if not pattern or not quant:
        raise BadFile(f"{word!r} is not a rule of the form PATTERN=TYPE")
    return Rule(pattern, any_type(quant))


# --- command lines


def _command_line(text: str) -> RuleText:
    words = iter(_shell_words(text))
    options: dict[str, list[str]] = {name: [] for name in _WITH_VALUE}
    others: list[str] = []
    variables: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if word in options:
            options[word].append(_value(word, next(words, None)))
        elif name in options and equals:
            options[name].append(value)
        elif assigned := _ASSIGNED.fullmatch(word):
            variables.setdefault(assigned[1], assigned[2])
        else:
            others.append(word)
    if options["--tensor-type-file"]:
        raise BadFile(f"the command line reads its rules from {options['--tensor-type-file'][0]}; import that file")
    return _said(options, others, variables)


def _said(options: dict[str, list[str]], others: list[str], variables: dict[str, str]) -> RuleText:
    custom = [_looked_up(value, variables) for value in options[_CUSTOM]]
    rules = tuple(parse_rule(word) for word in options["--tensor-type"])
    if rules and custom:
        raise BadFile(
            "the command line has --tensor-type of llama.cpp and --custom-q of ik_llama.cpp; keep one of them"
        )
    embedding, output = (_last_type(options[name]) for name in ("--token-embedding-type", "--output-tensor-type"))
    if not rules and not custom and not embedding and not output:
        raise BadFile("the command line has no --tensor-type or --custom-q rule")
    said = RuleText(rules, _ftype(others), "--pure" in others, embedding, output)
    return replace(said, rules=tuple(r for text in custom for r in _listed(text)), keep_case=True) if custom else said


def _looked_up(value: str, variables: dict[str, str]) -> str:
    """The value of a shell variable that the text itself sets: recipes are often kept in one, with comments."""
    variable = _VARIABLE.fullmatch(value.strip())
    if not variable:
        return value
    if variable[1] not in variables:
        raise BadFile(
            f"the rules are in the shell variable {variable[1]}, which the text does not set; import them instead"
        )
    return variables[variable[1]]


def _value(option: str, word: str | None) -> str:
    if word is None:
        raise BadFile(f"the command line ends after {option}")
    return word


def _last_type(words: list[str]) -> QuantType | None:
    return any_type(words[-1]) if words else None


def _ftype(words: list[str]) -> str | None:
    """The last word that is no number: ``model.gguf out.gguf Q4_K_M 8``."""
    candidates = [word for word in words if not word.isdigit() and re.fullmatch(r"[A-Za-z0-9_]+", word)]
    return candidates[-1] if candidates and candidates[-1] != "llama-quantize" else None


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise BadFile(f"the command line cannot be split into words: {error}") from None
