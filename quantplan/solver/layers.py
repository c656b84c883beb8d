"""Layer mode: a group is a whole block, its choices are the types that llama.cpp's stock quants give that
block.

The stock quants come from one dry run for each FTYPE (``llamacpp.quantize.stock_quant``); here they are only grouped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from quantplan.errors import BadUsage
from quantplan.quant_type import QuantType, fitted
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.grouping import Grouping, choice_of, summed
from quantplan.solver.problem import Chain, Choice, Group
from quantplan.tensor import Tensor

StockQuants = Mapping[str, Mapping[str, QuantType]]  # FTYPE -> tensor -> stored type
Permits = Callable[[Tensor, QuantType], bool]  # whether constraints allow the type


def layer_groups(
    quantizable: Iterable[Tensor],
    stock_quants: StockQuants,
    damage: SensitivityTable,
    outside: Callable[[Tensor], Sequence[QuantType]],
    permits: Permits = lambda *_: True,
) -> Grouping:
    """One group a block with the stock quants as choices, one a tensor outside the blocks with the types ``outside`` of it.

    Bytes include padding. A choice is left out where the table has no damage of it for some tensor, or ``permits``
    says no to some tensor's type; BadUsage where that leaves none.
    """
    inside: dict[int, list[Tensor]] = {}
    alone: list[Tensor] = []
    for tensor in quantizable:
        (alone if tensor.block is None else inside.setdefault(tensor.block, [])).append(tensor)
    numbers = sorted(inside)
    parts = [_block(block, inside[block], stock_quants, damage, permits) for block in numbers]
    parts += [_tensor(tensor, outside(tensor), damage) for tensor in alone]
    members = [tuple(inside[block]) for block in numbers] + [(tensor,) for tensor in alone]
    blocks = [(block,) for block in numbers] + [() for _ in alone]
    groups, kinds = zip(*parts, strict=True)
    return Grouping(groups, tuple(members), kinds, tuple(blocks))


def chain(grouping: Grouping, course: str, order: Sequence[str]) -> Chain:
    """The blocks from first to last, their stock quants ranked by their place in ``order`` (FTYPEs from small to large)."""
    rank = {ftype: place for place, ftype in enumerate(order)}
    numbered = sorted((min(blocks), at) for at, blocks in enumerate(grouping.blocks) if blocks)
    groups = tuple(at for _, at in numbered)
    return Chain(course, groups, tuple(tuple(rank[c.label] for c in grouping.groups[at].choices) for at in groups))


def _block(
    block: int, tensors: Sequence[Tensor], stock_quants: StockQuants, damage: SensitivityTable, permits: Permits
) -> tuple:
    choices, kinds = [], []
    for ftype, types in stock_quants.items():
        taken = tuple(types[tensor.name] for tensor in tensors)
        damages = [damage.damage(tensor, kind) for tensor, kind in zip(tensors, taken, strict=True)]
        if None in damages or not all(map(permits, tensors, taken)):
            continue
        parts = zip(tensors, taken, damages, strict=True)
        choices.append(summed(ftype, [choice_of(tensor, kind, each or 0.0, damage) for tensor, kind, each in parts]))
        kinds.append(taken)
    return _group(f"block {block}", choices), tuple(kinds)


def _tensor(tensor: Tensor, kinds: Iterable[QuantType], damage: SensitivityTable) -> tuple:
    choices, stored = [], []
    for kind in dict.fromkeys(fitted(each, tensor.columns) for each in kinds):
        each = damage.damage(tensor, kind)
        if each is not None:
            choices.append(choice_of(tensor, kind, each, damage))
            stored.append((kind,))
    return _group(tensor.name, choices), tuple(stored)


def _group(name: str, choices: Sequence[Choice]) -> Group:
    if not choices:
        raise BadUsage(
            f"no stock quant and no type that is allowed for {name} has its damage measured; "
            "allow more types, or probe with those that the stock quants use"
        )
    return Group(name, tuple(choices))
