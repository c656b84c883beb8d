"""``--tensor-type`` rules: written anchored and disjoint, so that they mean the same to every build and to
ik_llama.cpp, and what rules of anyone's mean.

llama-quantize lower-cases a pattern whole, splits the rule at its first ``=``, and searches the pattern in
each tensor's name; today the first rule that is found wins, in builds of mid-2025 it was the last. ik_llama.cpp
splits its list at commas, keeps the case, and takes the first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quantplan import patterns
from quantplan.errors import BadUsage, NothingSelected
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import QuantType

_IN_BLOCK = re.compile(r"^(.*?\bblk\.)(\d+)(\..+)$")
_ANY_BLOCK = "[0-9]+"


# --- writing


def write_rules(assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> tuple[Rule, ...]:
    """The fewest anchored, disjoint rules that give the assignment, each of the form blocks x roles -> type.

    For one type, the tensors that have it form a table of blocks by roles with holes where a block lacks the role. It is
    cut into rectangles: roles with the same blocks share a rule, or blocks with the same roles do, whichever takes fewer. No
    disjoint cover is smaller than the rank of that table. A role that has one type throughout names no blocks.

    ``names``: further tensors of the model, which no rule may touch. BadUsage where names are so alike that
    no pattern tells them apart.
    """
    names = list(names)
    alone, tables = _by_table(assignment, names)
    rules = [Rule(f"^{patterns.words(found)}$", kind) for kind, found in alone.items()]
    for (before, last, kind), table in tables.items():
        rules += (Rule(_pattern(before, last, *rectangle), kind) for rectangle in table.rectangles())
    rules.sort(key=lambda rule: ("blk" in rule.pattern, -rule.type.bits, rule.type.name))
    check_rules(rules, assignment, names)
    return tuple(rules)


def role_rules(assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> tuple[Rule, ...]:
    """Anchored, disjoint rules of one role and type each, in the order of the assignment: more than ``write_rules``
    makes, in patterns that every regular expression reads."""
    grouped: dict[tuple[str, str, QuantType], list[int]] = {}
    for name, kind in assignment.items():
        match = _IN_BLOCK.match(name)
        blocks = grouped.setdefault((match[1], match[3], kind) if match else (name, "", kind), [])
        blocks += [int(match[2])] if match else []
    rules = []
    for (before, after, kind), blocks in grouped.items():
        number = patterns.numbers(blocks) if blocks else ""
        rules.append(Rule(f"^{patterns.literal(before)}{number}{patterns.literal(after)}$", kind))
    check_rules(rules, assignment, names)
    return tuple(rules)


@dataclass
class _Table:
    """The blocks of each role that have one type (``wanted``), and those that have another or no rule (``taken``)."""

    wanted: dict[str, set[int]] = field(default_factory=dict)
    taken: dict[str, set[int]] = field(default_factory=dict)

    def rectangles(self) -> list[tuple[list[str], set[int] | None]]:
        """(roles, blocks) that cover what is wanted once and nothing that is taken; None: whichever block it is."""
        whole = sorted(role for role in self.wanted if not self.taken.get(role))
        parts: list[tuple[list[str], set[int] | None]] = [(whole, None)] if whole else []
        rest = {role: blocks for role, blocks in self.wanted.items() if role not in whole}
        by_role, by_block = self._same_blocks(rest), self._same_roles(rest)
        return parts + (by_role if len(by_role) <= len(by_block) else by_block)

    def _same_blocks(self, rest: Mapping[str, set[int]]) -> list[tuple[list[str], set[int] | None]]:
        """Roles joined where no block that one of them wants is taken in another: a block without the role does no
        harm."""
        joined: list[tuple[list[str], set[int]]] = []
        for role in sorted(rest, key=lambda role: (-len(rest[role]), role)):
            for roles, blocks in joined:
                union = blocks | rest[role]
                if not any(union & self.taken[each] for each in (*roles, role)):
                    roles.append(role)
                    blocks |= rest[role]
                    break
            else:
                joined.append(([role], set(rest[role])))
        return [(sorted(roles), blocks) for roles, blocks in joined]

    def _same_roles(self, rest: Mapping[str, set[int]]) -> list[tuple[list[str], set[int] | None]]:
        roles: dict[int, list[str]] = {}
        for role in sorted(rest):
            for block in rest[role]:
                roles.setdefault(block, []).append(role)
        blocks: dict[tuple[str, ...], set[int]] = {}
        for block, found in roles.items():
            blocks.setdefault(tuple(found), set()).add(block)
        return [(list(found), where) for found, where in blocks.items()]


def _by_table(
    assignment: Mapping[str, QuantType], names: Iterable[str]
) -> tuple[dict[QuantType, list[str]], dict[tuple[str, str, QuantType], _Table]]:
    """Names outside the blocks by type, and a table for each (what stands before the number, ending, type)."""
    alone: dict[QuantType, list[str]] = {}
    tables: dict[tuple[str, str, QuantType], _Table] = {}
    places = [(name, *_place(name)) for name in dict.fromkeys([*assignment, *names])]
    for name, before, block, role, last in places:
        kind = assignment.get(name)
        if kind is None:
            continue
        if block is None:
            alone.setdefault(kind, []).append(name)
        else:
            tables.setdefault((before, last, kind), _Table()).wanted.setdefault(role, set()).add(block)
    for name, before, block, role, last in places:
        for (start, end, kind), table in tables.items():
            same = block is not None and (start, end) == (before, last) and role in table.wanted
            if same and assignment.get(name) != kind:
                table.taken.setdefault(role, set()).add(block)
    return alone, tables


def _place(name: str) -> tuple[str, int | None, str, str]:
    """``blk.3.attn_v.weight`` -> ("blk.", 3, "attn_v", ".weight"); the block is None outside the blocks."""
    match = _IN_BLOCK.match(name)
    if not match:
        return name, None, "", ""
    role, dot, last = match[3][1:].rpartition(".")
    return match[1], int(match[2]), role or last, f"{dot}{last}" if role else ""


def _pattern(before: str, last: str, roles: Sequence[str], blocks: set[int] | None) -> str:
    which = _ANY_BLOCK if blocks is None else patterns.numbers(blocks)
    return rf"^{patterns.literal(before)}{which}\.{patterns.words(roles)}{patterns.literal(last)}$"


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
    searches = [(index, _compiled(rule, keep_case).search) for index, rule in enumerate(rules)]
    for name in names:
        yield name, [index for index, search in searches if search(name)]


def _compiled(rule: Rule, keep_case: bool = False) -> re.Pattern[str]:
    try:
        return re.compile(rule.pattern if keep_case else rule.pattern.lower())
    except re.error as error:
        raise BadUsage(f"the rule {rule} is not a regular expression: {error}") from None


def check_rules(rules: Sequence[Rule], assignment: Mapping[str, QuantType], names: Iterable[str] = ()) -> None:
    """BadUsage unless the rules give exactly the assignment, whichever match wins, and each is found
    somewhere.
    """
    used: set[int] = set()
    for name, found in _found(rules, dict.fromkeys([*assignment, *names])):
        used.update(found)
        for kind in {rules[found[0]].type, rules[found[-1]].type} if found else {None}:
            if kind != assignment.get(name):
                raise BadUsage(
                    f"no rule of llama-quantize can name {name} alone: it gets {kind} instead of {assignment.get(name)}, "
                    "because another tensor is called almost the same"
                )
    idle = [rule for index, rule in enumerate(rules) if index not in used]
    if idle:
        raise BadUsage(f"the rule {idle[0]} matches no tensor")


def matches(rules: Sequence[Rule], names: Iterable[str], keep_case: bool = False) -> dict[Rule, list[str]]:
    """The names that each rule is found in, whether or not another rule takes them first."""
    matched: dict[Rule, list[str]] = {rule: [] for rule in rules}
    for name, found in _found(rules, names, keep_case):
        for rule in dict.fromkeys(rules[index] for index in found):
            matched[rule].append(name)
    return matched


def check_all_match(rules: Sequence[Rule], names: Iterable[str]) -> None:
    """NothingSelected with near names for a rule that llama-quantize would pass over in silence."""
    names = list(names)
    for rule, found in matches(rules, names).items():
        if not found:
            raise NothingSelected(f"the rule {rule} matches no tensor of the model; {near_roles(rule, names)}")


def near_roles(rule: Rule, names: Iterable[str]) -> str:
    """What a rule that matches nothing may have meant, as the end of a sentence."""
    bare = re.sub(r"[\\^$()\[\]|]", "", rule.pattern)
    roles = sorted({_IN_BLOCK.sub(r"\3", name).strip(".").removesuffix(".weight") for name in names})
    near = difflib.get_close_matches(bare.removesuffix(".weight").rpartition(".")[2], roles, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"roles: {', '.join(roles)}"
