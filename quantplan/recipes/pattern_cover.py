"""The fewest patterns that tell tensors apart: whatever is asked for each of them, types or places."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from quantplan.recipes import name_patterns

IN_BLOCK = re.compile(r"^(.*?\bblk\.)(\d{1,9})(\..+)$")
_ANY_BLOCK = "[0-9]+"
Label = TypeVar("Label", bound=Hashable)


def cover(assignment: Mapping[str, Label], names: Iterable[str] = ()) -> list[tuple[str, Label]]:
    """Anchored, disjoint (pattern, label), each of the form blocks x roles, that give each name its label.

    For one type, the tensors that have it form a table of blocks by roles with holes where a block does not have the role. It is
    cut into rectangles: roles with the same blocks share a pattern, or blocks with the same roles do, whichever takes
    fewer. No disjoint cover is smaller than the rank of that table. A role of one label throughout names no blocks.

    ``names``: further names, which no pattern may be found in. Names that are almost the same can defeat that: check.
    """
    alone, tables = _by_table(assignment, names)
    patterns = [(f"^{name_patterns.words(names)}$", label) for label, names in alone.items()]
    for (before, last, label), table in tables.items():
        patterns += ((_pattern(before, last, *rectangle), label) for rectangle in table.rectangles())
    return patterns


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
    assignment: Mapping[str, Label], names: Iterable[str]
) -> tuple[dict[Label, list[str]], dict[tuple[str, str, Label], _Table]]:
    """Names outside the blocks by type, and a table for each (what stands before the number, ending, type)."""
    alone: dict[Label, list[str]] = {}
    tables: dict[tuple[str, str, Label], _Table] = {}
    places = [(name, *_place(name)) for name in dict.fromkeys([*assignment, *names])]
    for name, before, block, role, last in places:
        label = assignment.get(name)
        if label is None:
            continue
        if block is None:
            alone.setdefault(label, []).append(name)
        else:
            tables.setdefault((before, last, label), _Table()).wanted.setdefault(role, set()).add(block)
    for name, before, block, role, last in places:
        for (start, end, label), table in tables.items():
            same = (start, end) == (before, last) and role in table.wanted
            if block is not None and same and assignment.get(name) != label:
                table.taken.setdefault(role, set()).add(block)
    return alone, tables


def _place(name: str) -> tuple[str, int | None, str, str]:
    """``blk.3.attn_v.weight`` -> ("blk.", 3, "attn_v", ".weight"); the block is None outside the blocks."""
    match = IN_BLOCK.match(name)
    if not match:
        return name, None, "", ""
    role, dot, last = match[3][1:].rpartition(".")
    return match[1], int(match[2]), role or last, f"{dot}{last}" if role else ""


def _pattern(before: str, last: str, roles: Sequence[str], blocks: set[int] | None) -> str:
    which = _ANY_BLOCK if blocks is None else name_patterns.numbers(blocks)
    return rf"^{name_patterns.literal(before)}{which}\.{name_patterns.words(roles)}{name_patterns.literal(last)}$"
