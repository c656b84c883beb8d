"""``--tensor-type`` rules: written anchored and disjoint, so that they mean the same to every build, and read
back.

llama-quantize lower-cases a pattern whole, splits the rule at its first ``=``, and searches the pattern in
each tensor's name; today the first rule that is found wins, in builds of mid-2025 it was the last.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantplan.errors import BadFile, BadUsage, NothingSelected
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import QuantType, weight_type

_IN_BLOCK = re.compile(r"^(.*?\bblk\.)(\d+)(\..+)$")
_SPECIAL = re.compile(r"([\\^$.|?*+()\[\]{}])")
_WITH_VALUE = (
    "--tensor-type", "--tensor-type-file", "--token-embedding-type", "--output-tensor-type", "--imatrix",
    "--include-weights", "--exclude-weights", "--override-kv", "--max-buffer-size",
)  # fmt: skip
_UNSAFE = re.compile(r"[A-Z=\s]")  # lower-cased by the tool, or ends the pattern


# --- writing


def write_rules(assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> tuple[Rule, ...]:
    """The fewest anchored, disjoint rules of one role and type each that give the assignment.

    ``names``: further tensors of the model, which no rule may touch. BadUsage where names are so alike that
    no pattern tells them apart.
    """
    blocks: dict[tuple[str, str, QuantType], list[int]] = {}
    alone: list[Rule] = []
    for name, kind in assignment.items():
        match = _IN_BLOCK.match(name)
        if match:
            blocks.setdefault((match.group(1), match.group(3), kind), []).append(int(match.group(2)))
        else:
            alone.append(Rule(f"^{_literal(name)}$", kind))
    grouped = (
        Rule(f"^{_literal(before)}{_numbers(blocks[before, after, kind])}{_literal(after)}$", kind)
        for before, after, kind in sorted(blocks, key=lambda key: (key[0], key[1], -key[2].bits, key[2].name))
    )
    rules = (*alone, *grouped)
    check_rules(rules, assignment, names)
    return rules


def _literal(text: str) -> str:
    """A pattern for the text that survives lower-casing: capitals become any character."""
    if not text.isascii():
        raise BadUsage(f"the tensor name {text!r} is not plain ASCII; llama-quantize's rules cannot name it")
    return _UNSAFE.sub(".", _SPECIAL.sub(r"\\\1", text))


def _numbers(numbers: Iterable[int]) -> str:
    """Plain alternation of numbers, last digits joined in classes: 3|7|1[0-5] in brackets where there are
    several.
    """
    endings: dict[str, str] = {}
    for number in sorted(set(numbers)):
        start, last = str(number)[:-1], str(number)[-1]
        endings[start] = endings.get(start, "") + last
    words = [start + _class(last) for start, last in endings.items() if len(start) != 1]
    decades: dict[str, str] = {}  # tens with the same last digits: [1-3][0-9]
    for start, last in endings.items():
        if len(start) == 1:
            decades[last] = decades.get(last, "") + start
    words += [_class(starts) + _class(last) for last, starts in decades.items()]
    return words[0] if len(words) == 1 else f"({'|'.join(words)})"


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


# --- what rules mean


def resolve(rules: Sequence[Rule], names: Iterable[str], last_match: bool = False) -> dict[str, QuantType]:
    """The types that rules ask for, by the tensors they are found in: first rule wins, or the last as in
    older builds.
    """
    compiled = [(_compiled(rule), rule.type) for rule in (reversed(rules) if last_match else rules)]
    found = ((name, next((kind for pattern, kind in compiled if pattern.search(name)), None)) for name in names)
    return {name: kind for name, kind in found if kind is not None}


def _compiled(rule: Rule) -> re.Pattern[str]:
    try:
        return re.compile(rule.pattern.lower())
    except re.error as error:
        raise BadUsage(f"the rule {rule} is not a regular expression: {error}") from None


def check_rules(rules: Sequence[Rule], assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> None:
    """BadUsage unless the rules give exactly the assignment, whichever match wins, and each is found
    somewhere.
    """
    everything = list(dict.fromkeys([*assignment, *names]))
    for last_match in (False, True):
        found = resolve(rules, everything, last_match)
        wrong = [name for name in everything if found.get(name) != assignment.get(name)]
        if wrong:
            raise BadUsage(
                f"no rule of llama-quantize can name {wrong[0]} alone: it gets {found.get(wrong[0])} "
                "instead of "
                f"{assignment.get(wrong[0])}, because another tensor is called almost the same"
            )
    for rule, matched in matches(rules, everything).items():
        if not matched:
            raise BadUsage(f"the rule {rule} matches no tensor")


def matches(rules: Sequence[Rule], names: Iterable[str]) -> dict[Rule, list[str]]:
    """The names that each rule is found in, whether or not another rule takes them first."""
    names = list(names)
    return {rule: [name for name in names if _compiled(rule).search(name)] for rule in rules}


def check_all_match(rules: Sequence[Rule], names: Iterable[str]) -> None:
    """NothingSelected with near names for a rule that llama-quantize would pass over in silence."""
    names = list(names)
    for rule, found in matches(rules, names).items():
        if not found:
            bare = re.sub(r"[\\^$()\[\]|]", "", rule.pattern)
            roles = sorted({_IN_BLOCK.sub(r"\3", name).strip(".").removesuffix(".weight") for name in names})
            near = difflib.get_close_matches(bare.removesuffix(".weight").rpartition(".")[2], roles, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"roles: {', '.join(roles)}"
            raise NothingSelected(f"the rule {rule} matches no tensor of the model; {hint}")


# --- reading


@dataclass(frozen=True)
class RuleText:
    """Rules in their order, and what else a command line said: the file type at its end, types of two
    tensors, --pure.
    """

    rules: tuple[Rule, ...]
    ftype: str | None = None
    pure: bool = False
    token_embedding: QuantType | None = None
    output: QuantType | None = None


def parse_rules(text: str) -> RuleText:
    """Rules from a rules file (``PATTERN=TYPE`` between white space), or from a command line with
    --tensor-type.

    BadFile with the word that is no rule; NothingSelected for an unknown type.
    """
    return _command_line(text) if "--" in text else RuleText(tuple(parse_rule(word) for word in _plain_words(text)))


def _plain_words(text: str) -> list[str]:
    words = text.split()
    if not words:
        raise BadFile("there are no rules in an empty file")
    if comment := next((word for word in words if word.startswith("#")), None):
        raise BadFile(
            f"llama-quantize knows no comments in a rules file, it would take {comment!r} for a rule; remove them"
        )
    return words


def parse_rule(word: str) -> Rule:
    """``PATTERN=TYPE``; BadFile for anything else, NothingSelected for an unknown type."""
    pattern, _, kind = word.partition("=")
    if not pattern or not kind:
        raise BadFile(f"{word!r} is not a rule of the form PATTERN=TYPE")
    return Rule(pattern, weight_type(kind))


def _command_line(text: str) -> RuleText:
    words = iter(_shell_words(text))
    options: dict[str, list[str]] = {name: [] for name in _WITH_VALUE}
    others: list[str] = []
    for word in words:
        if word in options:
            options[word].append(_value(word, next(words, None)))
        else:
            others.append(word)
    if options["--tensor-type-file"]:
        raise BadFile(f"the command line reads its rules from {options['--tensor-type-file'][0]}; import that file")
    embedding, output = (_last_type(options[name]) for name in ("--token-embedding-type", "--output-tensor-type"))
    rules = tuple(parse_rule(word) for word in options["--tensor-type"])
    if not rules and not embedding and not output:
        raise BadFile("the command line has no --tensor-type rule")
    return RuleText(rules, _ftype(others), "--pure" in others, embedding, output)


def _value(option: str, word: str | None) -> str:
    if word is None:
        raise BadFile(f"the command line ends after {option}")
    return word


def _last_type(words: list[str]) -> QuantType | None:
    return weight_type(words[-1]) if words else None


def _ftype(words: list[str]) -> str | None:
    """The last word that is no number: ``model.gguf out.gguf Q4_K_M 8``."""
    candidates = [word for word in words if not word.isdigit() and re.fullmatch(r"[A-Za-z0-9_]+", word)]
    return candidates[-1] if candidates and candidates[-1] != "llama-quantize" else None


def _shell_words(text: str) -> list[str]:
    try:
        return shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise BadFile(f"the command line cannot be split into words: {error}") from None
