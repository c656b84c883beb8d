"""Layer mode: a group is a whole block, its choices are the types that llama.cpp's stock mixes give that
block.

The mixes come from one dry run for each FTYPE (``llamacpp.quantize.mix``); here they are only grouped and
undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantplan.damage import DamageTable
from quantplan.errors import BadUsage
from quantplan.formats.layer_types import write_flags
from quantplan.quant_type import BY_NAME, QuantType, fitted
from quantplan.solve.problem import Choice, Group
from quantplan.tensor import Tensor, padded

Mixes = Mapping[str, Mapping[str, QuantType]]  # FTYPE -> tensor -> stored type
EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"


def ftype_mixes(
    ftypes: Iterable[str], resolve: Callable[[str], Mapping[str, QuantType]]
) -> dict[str, Mapping[str, QuantType]]:
    """Each distinct FTYPE's types; ``resolve`` is asked once for each."""
    return {ftype: resolve(ftype) for ftype in dict.fromkeys(ftypes)}


@dataclass(frozen=True)
class LayerGroups:
    """``groups[i]`` stands for the tensors of block ``blocks[i]``, or for one tensor outside the blocks
    (None).
    """

    groups: tuple[Group, ...]
    blocks: tuple[int | None, ...]
    tensors: tuple[tuple[Tensor, ...], ...]
    mixes: Mixes

    def types(self, choices: Sequence[int]) -> dict[str, QuantType]:
        """The assignment {tensor: stored type} of one choice for each group."""
        assignment: dict[str, QuantType] = {}
        for block, group, tensors, index in zip(self.blocks, self.groups, self.tensors, choices, strict=True):
            label = group.choices[index].label
            for tensor in tensors:
                assignment[tensor.name] = BY_NAME[label] if block is None else self.mixes[label][tensor.name]
        return assignment

    def layer_types(self, choices: Sequence[int]) -> tuple[tuple[int, str], ...]:
        """(block, FTYPE) as in Plan.layer_types."""
        taken = zip(self.blocks, self.groups, choices, strict=True)
        return tuple(sorted((block, group.choices[index].label) for block, group, index in taken if block is not None))

    def flags(self, choices: Sequence[int]) -> str:
        """Embeddings and output as in Plan.flags."""
        types = self.types(choices)
        return write_flags(types.get(EMBEDDINGS), types.get(OUTPUT))


def layer_groups(
    quantizable: Iterable[Tensor], mixes: Mixes, damage: DamageTable, outside: Sequence[QuantType]
) -> LayerGroups:
    """One group a block with the mixes as choices, one a tensor outside the blocks with the types
    ``outside``.

    Bytes include padding. A choice whose damage is not in the table for some tensor is left out; BadUsage
    where that leaves none.
    """
    inside: dict[int, list[Tensor]] = {}
    alone: list[Tensor] = []
    for tensor in quantizable:
        (alone if tensor.block is None else inside.setdefault(tensor.block, [])).append(tensor)
    numbers = sorted(inside)
    groups = [_block(block, inside[block], mixes, damage) for block in numbers]
    groups += [_tensor(tensor, outside, damage) for tensor in alone]
    tensors = [tuple(inside[block]) for block in numbers] + [(tensor,) for tensor in alone]
    return LayerGroups(tuple(groups), (*numbers, *(None for _ in alone)), tuple(tensors), mixes)


def _block(block: int, tensors: Sequence[Tensor], mixes: Mixes, damage: DamageTable) -> Group:
    choices = []
    for ftype, types in mixes.items():
        damages = [_damage(tensor, types[tensor.name], damage) for tensor in tensors]
        size = sum(padded(tensor.bytes_as(types[tensor.name])) for tensor in tensors)
        if None not in damages:
            choices.append(Choice(ftype, size, sum(each for each in damages if each)))
    return _group(f"block {block}", choices)


def _tensor(tensor: Tensor, kinds: Iterable[QuantType], damage: DamageTable) -> Group:
    choices = []
    for kind in dict.fromkeys(fitted(each, tensor.columns) for each in kinds):
        each = _damage(tensor, kind, damage)
        if each is not None:
            choices.append(Choice(kind.name, padded(tensor.bytes_as(kind)), each))
    return _group(tensor.name, choices)


def _group(name: str, choices: Sequence[Choice]) -> Group:
    if not choices:
        raise BadUsage(
            f"no mix and no type that is allowed for {name} has its damage measured; "
            "allow more types, or probe with those that the mixes use"
        )
    return Group(name, tuple(choices))


def _damage(tensor: Tensor, kind: QuantType, damage: DamageTable) -> float | None:
    """Nats per token, 0 for what stays as it is stored, None for what was not measured."""
    if kind == tensor.type:
        return 0.0
    row = damage.rows.get(tensor.name)
    return row.damage(kind.name) if row and kind.name in row.weights else None
