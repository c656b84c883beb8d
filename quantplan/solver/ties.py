"""Ties: tensors that take one type together.

qkv | gate-up | experts       in each block: attn_q, attn_k, attn_v; gate and up matrices; all expert tensors
SELECTOR,SELECTOR...          in each block: all tensors that match; outside the blocks: those that match there
blocks=4 | blocks=0-7,8-31    same role in each run of 4 blocks, or in each range: one type
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

from quantplan.errors import BadUsage
from quantplan.selector import Selector
from quantplan.solver.grouping import Grouping
from quantplan.tensor import Tensor
from quantplan.whole_number import whole_number

_NAMED = {
    "qkv": (("attn_q", "attn_k", "attn_v"),),
    "gate-up": (
        ("ffn_gate", "ffn_up"),
        ("ffn_gate_exps", "ffn_up_exps"),
        ("ffn_gate_shexp", "ffn_up_shexp"),
        ("ffn_gate_chexps", "ffn_up_chexps"),
    ),
    "experts": (("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_up_exps"),),
}
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


def tied_groups(grouping: Grouping, ties: Iterable[str]) -> list[list[int]]:
    """Sets of at least two groups (indices) that the ties join, disjoint: ties that overlap join all they touch.

    Raises BadUsage for a text that is no tie, or none in layer mode; NothingSelected where a selector matches nothing.
    """
    tensors = tuple(tensor for members in grouping.members for tensor in members)
    parent = list(range(len(grouping.groups)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    group_of = grouping.of_tensor
    for tie in ties:
        for members in _members(tie, tensors, any(grouping.blocks)):
            for one, two in pairwise(sorted({group_of[name] for name in members})):
                parent[root(two)] = root(one)
    sets: dict[int, list[int]] = {}
    for index in range(len(parent)):
        sets.setdefault(root(index), []).append(index)
    return [indices for indices in sets.values() if len(indices) > 1]


def _members(tie: str, tensors: tuple[Tensor, ...], layers: bool) -> list[list[str]]:
    """Names of the tensors that each set of a tie joins."""
    if tie.startswith("blocks="):
        return _by_range(tie, tensors, layers)
    if layers:
        raise BadUsage(
            f"--tie {tie}: in layer mode a stock quant decides for all tensors of a block; only blocks=N ties there"
        )
    if tie in _NAMED:
        sets = [_by_block(tensors, [Selector(role) for role in roles]) for roles in _NAMED[tie]]
        tied = [members for each in sets for members in each]
        if not any(len(members) > 1 for members in tied):
            roles = ", ".join(sorted({tensor.role for tensor in tensors}))
            raise BadUsage(f"--tie {tie}: this model has no tensors for it to join; its roles are {roles}")
        return tied
    selectors = [Selector(text.strip()) for text in tie.split(",") if text.strip()]
    for selector in selectors:
        selector.select(tensors)
    return _by_block(tensors, selectors)


def _by_block(tensors: Sequence[Tensor], selectors: Sequence[Selector]) -> list[list[str]]:
    matched = (tensor for tensor in tensors if any(selector.matches(tensor) for selector in selectors))
    return _gathered((tensor.block, tensor.name) for tensor in matched)


def _by_range(tie: str, tensors: Sequence[Tensor], layers: bool) -> list[list[str]]:
    last = max((tensor.block for tensor in tensors if tensor.block is not None), default=-1)
    ranges = _ranges(tie, last)
    pairs = []
    for tensor in tensors:
        at = next(
            (r for r, (low, high) in enumerate(ranges) if tensor.block is not None and low <= tensor.block <= high),
            None,
        )
        if at is not None:
            pairs.append(((at, None if layers else tensor.role), tensor.name))
    return _gathered(pairs)


def _ranges(tie: str, last: int) -> list[tuple[int, int]]:
    words = tie.removeprefix("blocks=").split(",")
    step = whole_number(words[0]) if len(words) == 1 else None
    if step:
        return [(low, low + step - 1) for low in range(0, last + 1, step)]
    ranges = []
    for word in words:
        match = _RANGE.fullmatch(word.strip())
        low, high = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (1, 0)
        if low > high or step == 0:
            raise BadUsage(f"--tie {tie}: write blocks=4 for runs of four, or ranges such as blocks=0-7,8-31")
        if high > last:
            raise BadUsage(f"--tie {tie}: the model has blocks 0 to {last}")
        ranges.append((low, high))
    return ranges


def _gathered(pairs: Iterable[tuple[Hashable, str]]) -> list[list[str]]:
    by_key: dict[Hashable, list[str]] = {}
    for key, name in pairs:
        by_key.setdefault(key, []).append(name)
    return list(by_key.values())
