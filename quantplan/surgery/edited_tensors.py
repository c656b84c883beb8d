"""The tensors of an edited model and the sources of each: from a header and a layer map, before any weight is read."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import QuantType
from quantplan.surgery.layer_map import MATRICES, Layer, LayerMap
from quantplan.tensor import Model, Tensor

_PREFIX = "blk."


@dataclass(frozen=True)
class EditedTensor:
    """A tensor of the new file. ``sources``: tensors of the original with their factors; a single one of factor 1 is a copy.

    ``block``: its block in the new model, None outside of the blocks. ``type``: the type that it is stored as: that of its
    source, of several the one with the most bits.
    """

    name: str
    sources: tuple[tuple[Tensor, float], ...]
    type: QuantType
    block: int | None = None

    @property
    def copied(self) -> bool:
        return len(self.sources) == 1 and self.sources[0][1] == 1

    @property
    def first(self) -> Tensor:
        """The source of the largest share; all sources have its shape."""
        return self.sources[0][0]

    @property
    def bytes(self) -> int:
        return self.first.bytes_as(self.type)


def edited_tensors(model: Model, layer_map: LayerMap) -> tuple[EditedTensor, ...]:
    """The new model's tensors in the order of its file.

    Raises BadUsage where the map is for another number of layers, where layers of different shapes are blended, or where
    the model's blocks are not all named blk.N; NothingSelected where a scale names a role that the layer does not have.
    """
    if layer_map.original != model.blocks:
        raise BadUsage(
            f"the layer map is for a model of {layer_map.original} layers, {model.path.name} has {model.blocks}"
        )
    by_block = _by_block(model)
    new = {index: _layer_tensors(layer, index, by_block) for index, layer in enumerate(layer_map.layers)}
    blocks = [block for block, _ in groupby(model.tensors, key=_block) if block is not None]
    contiguous = len(blocks) == len(set(blocks))
    return tuple(_in_block_order(model, new, blocks[-1]) if contiguous else _in_tensor_order(model, new))


def _block(tensor: Tensor) -> int | None:
    """The tensor's layer. Encoders and drafts name their blocks otherwise (enc.blk.0, ...): no layer map moves those."""
    return tensor.block if tensor.name.startswith(_PREFIX) else None


def _suffix(tensor: Tensor) -> str:
    return tensor.name.split(".", 2)[2]


def _by_block(model: Model) -> dict[int, list[Tensor]]:
    by_block: defaultdict[int, list[Tensor]] = defaultdict(list)
    for tensor in model.tensors:
        block = _block(tensor)
        if block is not None:
            by_block[block].append(tensor)
    if sorted(by_block) != list(range(model.blocks)):
        raise BadUsage(
            f"{model.path.name}: its header counts {model.blocks} layers, its tensors belong to {len(by_block)}"
        )
    return by_block


def _layer_tensors(layer: Layer, index: int, by_block: dict[int, list[Tensor]]) -> list[EditedTensor]:
    if layer.copied is not None:
        return [
            EditedTensor(f"{_PREFIX}{index}.{_suffix(tensor)}", ((tensor, 1.0),), tensor.type, index)
            for tensor in by_block[layer.copied]
        ]
    blocks = {block: {_suffix(tensor): tensor for tensor in by_block[block]} for block in layer.blocks}
    _check_alike(layer, blocks)
    _check_roles(layer, by_block[layer.blocks[0]])
    return [_weighted_sum(layer, index, suffix, blocks) for suffix in blocks[layer.blocks[0]]]


def _check_alike(layer: Layer, blocks: dict[int, dict[str, Tensor]]) -> None:
    first, *others = layer.blocks
    for other in others:
        one_sided = sorted(blocks[first].keys() ^ blocks[other].keys())
        if one_sided:
            owner = first if one_sided[0] in blocks[first] else other
            raise BadUsage(
                f"layers {first} and {other} cannot be blended: only {owner} has {one_sided[0]}, so they do different things"
            )
        for suffix, tensor in blocks[first].items():
            shape = blocks[other][suffix].shape
            if tensor.shape != shape:
                raise BadUsage(
                    f"layers {first} and {other} cannot be blended: {suffix} is {_dims(tensor.shape)} in {first} and "
                    f"{_dims(shape)} in {other}"
                )


def _dims(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _check_roles(layer: Layer, tensors: Sequence[Tensor]) -> None:
    roles = {tensor.role for tensor in tensors}
    for term in layer.terms:
        for role, _ in term.scales:
            if role != MATRICES and role not in roles:
                raise NothingSelected(f"layer {term.block} has no {role} to scale; it has {', '.join(sorted(roles))}")


def _weighted_sum(layer: Layer, index: int, suffix: str, blocks: dict[int, dict[str, Tensor]]) -> EditedTensor:
    """One tensor of a blended or scaled layer; the shares of one block with different scales are added here."""
    factors: defaultdict[int, float] = defaultdict(float)
    for term in layer.terms:
        tensor = blocks[term.block][suffix]
        factors[term.block] += term.factor(tensor.role, len(tensor.shape) > 1)
    used = [block for block in layer.blocks if factors[block] or len(factors) == 1] or layer.blocks[:1]
    sources = tuple((blocks[block][suffix], factors[block]) for block in used)
    stored_as = max((tensor.type for tensor, _ in sources), key=lambda type_: type_.bits)
    return EditedTensor(f"{_PREFIX}{index}.{suffix}", sources, stored_as, index)


# --- the order in the file, such that edits that undo each other give the original file again


def _outside(tensor: Tensor) -> EditedTensor:
    return EditedTensor(tensor.name, ((tensor, 1.0),), tensor.type)


def _in_block_order(model: Model, new: dict[int, list[EditedTensor]], last: int) -> list[EditedTensor]:
    """The tensors of each block lie together, as converters write them: a new block takes the place of the original's block
    of its number; those beyond the original's follow the ``last`` in the file.
    """
    ordered: list[EditedTensor] = []
    for block, tensors in groupby(model.tensors, key=_block):
        ordered += map(_outside, tensors) if block is None else new.get(block, [])
        if block == last:
            ordered += [tensor for index in sorted(new) if index >= model.blocks for tensor in new[index]]
    return ordered


def _in_tensor_order(model: Model, new: dict[int, list[EditedTensor]]) -> list[EditedTensor]:
    """Blocks are scattered: each tensor takes the place of the original's of its name, the others follow the last."""
    remaining = {tensor.name: tensor for index in sorted(new) for tensor in new[index]}
    last = max(index for index, tensor in enumerate(model.tensors) if _block(tensor) is not None)
    ordered: list[EditedTensor] = []
    for index, tensor in enumerate(model.tensors):
        if _block(tensor) is None:
            ordered.append(_outside(tensor))
        elif tensor.name in remaining:
            ordered.append(remaining.pop(tensor.name))
        if index == last:
            ordered += remaining.values()
    return ordered
