"""Which tensors an operated model has, and what each is made of: from a header and a layer map, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.reader import tensor_bytes, tensor_rows
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType
from quantplan.surgery.follow_imatrix import followed_entry
from quantplan.surgery.layer_map import MATRICES, Layer, LayerMap
from quantplan.tensor import Model, Tensor

PREFIX = "blk."
_PIECE_WEIGHTS = 1 << 26  # 256 MB of float32: experts of large models do not fit into memory at once


@dataclass(frozen=True)
class TensorPart:
    """A tensor of the new file. ``sources``: the original's tensors with their factors; one with factor 1 is copied.

    ``block``: its block in the new model, None outside of them. ``type``: what it is stored as: the source's, for a sum of
    differently stored ones the type of most bits.
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
        """The source of the largest share, whose shape all have."""
        return self.sources[0][0]

    @property
    def bytes(self) -> int:
        return self.first.bytes_as(self.type)


def own_name(name: str, block: int) -> str:
    """The name of a tensor of a block in another place."""
    return f"{PREFIX}{block}.{name.split('.', 2)[2]}"


def assemble(model: Model, layer_map: LayerMap) -> tuple[TensorPart, ...]:
    """The new model's tensors in the order of its file.

    Raises BadUsage where the map is for another number of blocks, where layers of different shapes are blended, or where
    the model's blocks are not all named blk.N; NothingSelected where a scale names a role that the layer has not.
    """
    if layer_map.original != model.blocks:
        raise BadUsage(
            f"the layer map is for a model of {layer_map.original} layers, {model.path.name} has {model.blocks}"
        )
    tensors = [tensor for tensor in model.tensors if _block(tensor) is not None]
    by_block: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        by_block.setdefault(_block(tensor), []).append(tensor)  # type: ignore[arg-type]
    missing = [block for block in range(model.blocks) if block not in by_block]
    if missing or max(by_block) >= model.blocks:
        raise BadUsage(
            f"{model.path.name}: its header counts {model.blocks} layers, its tensors are of {len(by_block)}"
        )
    new = {index: _layer_parts(layer, index, by_block) for index, layer in enumerate(layer_map.layers)}
    return tuple(_in_file_order(model, new))


def _block(tensor: Tensor) -> int | None:
    """Encoders and drafts name theirs otherwise (enc.blk.0, ...): those belong to no block of the map."""
    return tensor.block if tensor.name.startswith(PREFIX) else None


def _layer_parts(layer: Layer, index: int, by_block: dict[int, list[Tensor]]) -> list[TensorPart]:
    if layer.copied is not None:
        return [TensorPart(own_name(t.name, index), ((t, 1.0),), t.type, index) for t in by_block[layer.copied]]
    blocks = {
        term.block: {tensor.name.split(".", 2)[2]: tensor for tensor in by_block[term.block]} for term in layer.terms
    }
    _check_alike(layer, blocks)
    _check_roles(layer, next(iter(blocks.values())).values())
    return [_sum_part(layer, index, suffix, blocks) for suffix in blocks[layer.blocks[0]]]


def _check_alike(layer: Layer, blocks: dict[int, dict[str, Tensor]]) -> None:
    first, *others = layer.blocks
    own = blocks[first]
    for other in others:
        odd = sorted(own.keys() ^ blocks[other].keys())
        if odd:
            who = first if odd[0] in own else other
            raise BadUsage(
                f"layers {first} and {other} cannot be blended: only {who} has {odd[0]}: they are of two kinds"
            )
        for suffix, tensor in own.items():
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


def _sum_part(layer: Layer, index: int, suffix: str, blocks: dict[int, dict[str, Tensor]]) -> TensorPart:
    """Shares of one block with different scales come together here."""
    factors: dict[int, float] = {}
    for term in layer.terms:
        tensor = blocks[term.block][suffix]
        factor = term.factor(tensor.role, len(tensor.shape) > 1)
        factors[term.block] = factors.get(term.block, 0.0) + factor
    order = [block for block in layer.blocks if factors[block] or len(factors) == 1]
    sources = tuple((blocks[block][suffix], factors[block]) for block in order or layer.blocks[:1])
    kind = max((tensor.type for tensor, _ in sources), key=lambda kind: kind.bits)
    return TensorPart(f"{PREFIX}{index}.{suffix}", sources, kind, index)


def _in_file_order(model: Model, new: dict[int, list[TensorPart]]) -> list[TensorPart]:
    """Blocks where the original has its own, more behind its last; so that a map undone is the original file again.

    Where a block's tensors lie together (as converters write them), each new block takes one of the places whole. Else
    tensor by tensor: each stays where the original's tensor of that name is.
    """
    runs = [block for block, _ in groupby(model.tensors, key=_block) if block is not None]
    if len(runs) == len(set(runs)):
        return _by_blocks(model, new)
    return _by_tensors(model, new)


def _outside(tensor: Tensor) -> TensorPart:
    return TensorPart(tensor.name, ((tensor, 1.0),), tensor.type)


def _by_blocks(model: Model, new: dict[int, list[TensorPart]]) -> list[TensorPart]:
    parts: list[TensorPart] = []
    left = dict(new)
    last = [block for block, _ in groupby(model.tensors, key=_block) if block is not None][-1]
    for block, tensors in groupby(model.tensors, key=_block):
        if block is None:
            parts += map(_outside, tensors)
            continue
        parts += left.pop(block, [])
        if block == last:
            for index in sorted(index for index in left if index >= model.blocks):
                parts += left.pop(index)
    return parts


def _by_tensors(model: Model, new: dict[int, list[TensorPart]]) -> list[TensorPart]:
    waiting = {part.name: part for index in sorted(new) for part in new[index]}
    last = max(index for index, tensor in enumerate(model.tensors) if _block(tensor) is not None)
    parts: list[TensorPart] = []
    for index, tensor in enumerate(model.tensors):
        if _block(tensor) is None:
            parts.append(_outside(tensor))
        elif tensor.name in waiting:
            parts.append(waiting.pop(tensor.name))
        if index == last:
            parts += waiting.values()
    return parts


def check_encodable(parts: Sequence[TensorPart], imatrix: Imatrix | None = None) -> None:
    """BadUsage naming the tensor, unless everything that is encoded anew can be: some types need an imatrix."""
    for part in parts:
        if part.copied:
            continue
        if not part.type.for_weights:
            raise BadUsage(f"{part.name}: {part.type} cannot be written; blend the unquantized model instead")
        if _importance(part, imatrix) is None and ggml.aborts_without_imatrix(part.type):
            raise BadUsage(
                f"{part.name}: {part.type} cannot be encoded without importance: give an imatrix that has the tensor, "
                "or blend the unquantized model"
            )


def _importance(part: TensorPart, imatrix: Imatrix | None) -> np.ndarray | None:
    """float32 [experts, columns]: what the inputs of the new tensor weigh, from the original's imatrix (``followed_entry``)."""
    if imatrix is None or part.type.family == "float":
        return None
    entry = followed_entry(part, imatrix)
    return replace(imatrix, entries={part.first.name: entry}).quantize_weights(part.first) if entry else None


def part_pieces(model: Model, part: TensorPart, imatrix: Imatrix | None = None) -> Iterator[np.ndarray]:
    """uint8 [rows, row bytes], one piece after the other: the source's own bytes for a copy (mapped, read only), else the
    weighted sum of the sources' weights encoded as ``part.type``.
    """
    if part.copied:
        yield tensor_bytes(model, part.first)
        return
    importance = _importance(part, imatrix)
    for rows in _row_ranges(part.first):
        total = np.zeros((1, 1), np.float32)
        for tensor, factor in part.sources:
            total = total + tensor_rows(model, tensor, rows) * np.float32(factor)
        expert = slice(0, 0)
        if importance is not None:
            index = rows.start // (part.first.rows // len(importance))
            expert = slice(index, index + 1)
        yield ggml.quantize(total, part.type, None if importance is None else importance[expert])


def _row_ranges(tensor: Tensor) -> Iterator[slice]:
    """Rows that are worked on together; none of them of two experts, whose weights have importance of their own."""
    step = max(1, _PIECE_WEIGHTS // tensor.columns)
    per_expert = tensor.rows // tensor.experts
    for begin in range(0, tensor.rows, per_expert):
        for start in range(begin, begin + per_expert, step):
            yield slice(start, min(start + step, begin + per_expert))


def part_bytes(model: Model, part: TensorPart, imatrix: Imatrix | None = None) -> np.ndarray:
    """uint8 [rows, row bytes]: the whole tensor as it is stored."""
    return (
        np.concatenate(list(part_pieces(model, part, imatrix))) if not part.copied else tensor_bytes(model, part.first)
    )
