"""``--tensor-type`` rules: written anchored and disjoint, so that they mean the same to every build and to
ik_llama.cpp, and what rules of anyone's mean.

llama-quantize lower-cases a pattern whole, splits the rule at its first ``=``, and searches the pattern in
each tensor's name; today the first rule that is found wins, in builds of mid-2025 it was the last. ik_llama.cpp
splits its list at commas, keeps the case, and takes the first.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from quantplan.errors import BadUsage
from quantplan.llamacpp.quantize import Rule
from quantplan.patterns import Pattern, regular_expression
from quantplan.quant_type import QuantType
from quantplan.recipes import name_patterns
from quantplan.recipes.pattern_cover import IN_BLOCK, cover
from quantplan.tensor import role_of

_CLASSES = {"digit": "0-9", "alpha": "a-zA-Z", "alnum": "0-9a-zA-Z", "lower": "a-z", "upper": "A-Z", "space": r"\s"}

# --- writing


def write_rules(assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> tuple[Rule, ...]:
    """The fewest anchored, disjoint rules that give the assignment, each of the form blocks x roles -> type.

    ``names``: further tensors of the model, which no rule may touch. BadUsage where names are so alike that
    no pattern tells them apart.
    """
    names = list(names)
    rules = [Rule(pattern, quant) for pattern, quant in cover(assignment, names)]
    rules.sort(key=lambda rule: ("blk" in rule.pattern, -rule.type.bits, rule.type.name))
    check_rules(rules, assignment, names)
    return tuple(rules)


def role_rules(assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> tuple[Rule, ...]:
    """Anchored, disjoint rules of one role and type each, in the order of the assignment: more than ``write_rules``
    makes, in patterns that every regular expression reads."""
    grouped: dict[tuple[str, str, QuantType], list[int]] = {}
    for name, quant in assignment.items():
        match = IN_BLOCK.match(name)
        blocks = grouped.setdefault((match[1], match[3], quant) if match else (name, "", quant), [])
        blocks += [int(match[2])] if match else []
    rules = []
    for (before, after, quant), blocks in grouped.items():
        number = name_patterns.numbers(blocks) if blocks else ""
        rules.append(Rule(f"^{name_patterns.literal(before)}{number}{name_patterns.literal(after)}$", quant))
    check_rules(rules, assignment, names)
    return tuple(rules)


# --- what rules mean


def resolve(
    rules: Sequence[Rule], names: Iterable[str], last_match: bool = False, keep_case: bool = False
) -> dict[str, QuantType]:
    """The types that rules ask for, by the tensors they are found in: first rule wins, or the last as in
    older builds. ``keep_case``: patterns are taken as they stand, as ik_llama.cpp does.
    """
    which = -1 if last_match else 0
    return {name: rules[found[which]].type for name, found in _found(rules, names, keep_case) if found}


def _found(rules: Sequence[Rule], names: Iterable[str], keep_case: bool = False) -> Iterator[tuple[str, list[int]]]:
    """(name, indices of the rules that are found in it), by one pass: 1,100 names and 300 rules take a tenth of a second."""
    searches = [(index, compiled(rule, keep_case).search) for index, rule in enumerate(rules)]
    for name in names:
        yield name, [index for index, search in searches if search(name)]


def compiled(rule: Rule, keep_case: bool = False) -> Pattern:
    """The pattern as std::regex reads it; its classes such as [[:digit:]] are spelled out, which Python does not know."""
    pattern = rule.pattern if keep_case else rule.pattern.lower()
    try:
        return regular_expression(re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], match[0]), pattern))
    except ValueError as error:
        raise BadUsage(f"the rule {rule} is not a regular expression: {error}") from None


def check_rules(rules: Sequence[Rule], assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> None:
    """BadUsage unless the rules give exactly the assignment, whichever match wins, and each is found
    somewhere.
    """
    used: set[int] = set()
    for name, found in _found(rules, dict.fromkeys([*assignment, *names])):
        used.update(found)
        for quant in {rules[found[0]].type, rules[found[-1]].type} if found else {None}:
            if quant != assignment.get(name):
                raise BadUsage(
                    f"no rule of llama-quantize can name {name} alone: it gets {quant} instead of {assignment.get(name)}, "
                    "because another tensor is called almost the same"
                )
    idle = [rule for index, rule in enumerate(rules) if index not in used]
    if idle:
        raise BadUsage(f"the rule {idle[0]} matches no tensor")


def all_simple(rules: Iterable[Rule]) -> bool:
    """Whether std::regex, which llama-quantize searches with, takes short for all patterns and any name."""
    return all(compiled(rule).simple for rule in rules)


def matches(rules: Sequence[Rule], names: Iterable[str], keep_case: bool = False) -> dict[Rule, list[str]]:
    """The names that each rule is found in, whether or not another rule takes them first."""
    matched: dict[Rule, list[str]] = {rule: [] for rule in rules}
    for name, found in _found(rules, names, keep_case):
        for rule in dict.fromkeys(rules[index] for index in found):
            matched[rule].append(name)
    return matched


def near_roles(rule: Rule, names: Iterable[str]) -> str:
    """What a rule that matches nothing may have meant, as the end of a sentence."""
    bare = re.sub(r"[\\^$()\[\]|]", "", rule.pattern)
    roles = sorted({role_of(name) for name in names})
    near = difflib.get_close_matches(bare.removesuffix(".weight").rpartition(".")[2], roles, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"roles: {', '.join(roles)}"
