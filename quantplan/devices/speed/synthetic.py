"""Synthetic models: a model's own metadata and shapes, fewer blocks, random weights, no tokenizer. For timing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from quantplan.devices.speed.matmul import encoded_tile
from quantplan.gguf.writer import shortened_header
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType
from quantplan.records.files import replacing
from quantplan.tensor import Model, Tensor, padded

_VOCABULARY_BYTES = 64 << 20  # of the output matrix: a longer one says nothing more about time per weight


def synthetic_tensors(model: Model, blocks: int, types: Mapping[str, QuantType]) -> dict[str, Tensor]:
    """The tensors of a synthetic model with ``blocks`` blocks, by the name of the model's tensor that each stands for.

    ``types``: stored type by the model's tensor name; others stay as they are. A vocabulary is cut to 64 MiB of output matrix.
    """
    order = {old: new for new, old in enumerate(kept_blocks(model, blocks))}
    vocabulary, cut = _vocabulary(model), _cut_vocabulary(model, types)
    kept = {}
    for tensor in model.tensors:
        if tensor.block is not None and tensor.block not in order:
            continue
        inside = tensor.block is not None
        shape = tuple(
            cut if axis and size == vocabulary and not inside else size for axis, size in enumerate(tensor.shape)
        )
        name = tensor.name if tensor.block is None else _renumbered(tensor, order)
        kept[tensor.name] = replace(tensor, name=name, shape=shape, type=types.get(tensor.name, tensor.type), offset=0)
    return kept


def kept_blocks(model: Model, blocks: int) -> list[int]:
    """The first blocks; of several dense blocks that lead a mixture of experts only the first."""
    dense = model.hyperparameter("leading_dense_block_count", 0)
    skipped = dense - 1 if dense > 1 and blocks < model.main_blocks else 0
    return [0, *range(1 + skipped, blocks + skipped)]


def write_synthetic(model: Model, blocks: int, types: Mapping[str, QuantType], path: Path) -> Path:
    """Writes the synthetic model with real data, no holes. Raises BadFile, NoSpace."""
    tensors = tuple(synthetic_tensors(model, blocks, types).values())
    kept = kept_blocks(model, blocks)
    header = shortened_header(model, tensors, kept, _changes(model, kept, types))
    with replacing(path, "wb") as file:
        file.write(header)
        for tensor in tensors:
            _write(file, tensor)
    return path


def _changes(model: Model, kept: list[int], types: Mapping[str, QuantType]) -> dict[str, int | str | None]:
    architecture = model.architecture
    changes: dict[str, int | str | None] = {
        f"{architecture}.block_count": len(kept),
        f"{architecture}.vocab_size": _cut_vocabulary(model, types),
        f"{architecture}.nextn_predict_layers": None,  # blocks that only predict further tokens are not kept
        "tokenizer.ggml.model": "no_vocab",
    }
    if kept != list(range(len(kept))):
        changes[f"{architecture}.leading_dense_block_count"] = 1
    return changes


def _vocabulary(model: Model) -> int:
    return model.by_name["token_embd.weight"].rows


def _cut_vocabulary(model: Model, types: Mapping[str, QuantType]) -> int:
    output = model.by_name["token_embd.weight" if model.tied else "output.weight"]
    row = types.get(output.name, output.type).row_bytes(output.columns)
    return min(_vocabulary(model), max(1024, _VOCABULARY_BYTES // row // 256 * 256))


def _renumbered(tensor: Tensor, order: Mapping[int, int]) -> str:
    return re.sub(r"\bblk\.(\d+)\.", lambda match: f"blk.{order[int(match.group(1))]}.", tensor.name, count=1)


def _write(file: IO[bytes], tensor: Tensor) -> None:
    left = tensor.bytes
    for piece in _data(tensor):
        file.write(piece[:left])
        left -= min(left, len(piece))
        if not left:
            break
    file.write(bytes(padded(tensor.bytes) - tensor.bytes))


def _data(tensor: Tensor) -> Iterator[bytes]:
    """Endless: ones for norms, -1 for decay rates (ssm_a), small random weights otherwise; activations stay finite."""
    if tensor.type.for_weights and len(tensor.shape) > 1 and tensor.role != "ssm_a":
        piece = encoded_tile(tensor.type, tensor.columns).tobytes()
    else:
        value = 1.0 if "norm" in tensor.role else -1.0 if tensor.role == "ssm_a" else 0.01
        piece = ggml.quantize(np.full((1, tensor.columns), value, np.float32), tensor.type).tobytes()
    while True:
        yield piece
