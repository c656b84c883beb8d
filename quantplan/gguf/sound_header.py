"""What llama.cpp ends the process for instead of refusing the file: found in a header before llama.cpp gets it."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.tensor import GGUF_ALIGNMENT, MAX_BLOCKS, Tensor

_ONE_EXPERT_IS_NONE = ("hunyuan_vl", "hunyuan-dense")
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


def check_sound(path: Path, architecture: str, metadata: Mapping[str, object], tensors: Iterable[Tensor]) -> None:
    """BadFile naming the key, or the tensor, whose value cannot be."""
    blocks = metadata.get(f"{architecture}.block_count", 1)
    if type(blocks) is not int or not 0 < blocks <= MAX_BLOCKS:
        raise _damaged(path, f"{architecture}.block_count is {blocks!r}, not a number of blocks from 1 to {MAX_BLOCKS}")
    for key, value in metadata.items():
        is_epsilon = key.startswith(f"{architecture}.") and key.endswith("epsilon")
        if is_epsilon and not (isinstance(value, float) and 0 <= value < math.inf):
            raise _damaged(path, f"{key} is {value!r}, not a small positive number")
    _check_experts(path, architecture, metadata)
    _check_numbers(path, architecture, metadata)
    tensors = tuple(tensors)
    quantized = next((tensor for tensor in tensors if _is_added(tensor.name) and tensor.type.family != "float"), None)
    if quantized is not None:
        raise _damaged(path, f"{quantized.name} is stored as {quantized.type}, which ggml cannot add or multiply by")
    odd = next((tensor for tensor in tensors if tensor.offset % GGUF_ALIGNMENT), None)
    if odd is not None:
        raise BadFile(
            f"{path}: the data of {odd.name} begin at byte {odd.offset:,}, no multiple of {GGUF_ALIGNMENT}, which llama.cpp "
            "cannot load; write the file again with general.alignment 32"
        )


def _is_added(name: str) -> bool:
    """Whether it is a norm or a bias, no matrix."""
    return name.endswith(("norm.weight", ".bias"))


def _check_experts(path: Path, architecture: str, metadata: Mapping[str, object]) -> None:
    """Numbers of experts and of their groups. Source: ``llama_model_base::load_hparams``."""
    count, used, groups, groups_used = (
        metadata.get(f"{architecture}.{key}", 0)
        for key in ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count")
    )
    if not (type(count) is type(used) is type(groups) is type(groups_used) is int):
        return  # a number for each block, or a wrong type, which llama.cpp refuses
    if architecture in _ONE_EXPERT_IS_NONE and count <= 1:
        count = used = 0
    if count == 0 and (used or groups):
        raise _damaged(path, f"{used} experts are used in {groups} groups, and expert_count is {count}")
    if count and not (0 < used <= count and 0 <= groups < count):
        raise _damaged(path, f"expert_used_count is {used}, expert_group_count {groups}, of {count} experts")
    if groups > 1 and (count % groups or not 0 < groups_used < groups):
        raise _damaged(path, f"expert_group_used_count is {groups_used}, of {groups} groups for {count} experts")


def _check_numbers(path: Path, architecture: str, metadata: Mapping[str, object]) -> None:
    blocks, further = (metadata.get(f"{architecture}.{key}", 0) for key in ("block_count", "nextn_predict_layers"))
    if type(further) is int and not 0 <= further <= blocks:  # type: ignore[operator]
        raise _damaged(path, f"{architecture}.nextn_predict_layers is {further}, of {blocks} blocks")
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "linear")
    if isinstance(scaling, str) and scaling not in _ROPE_SCALINGS:
        raise _damaged(path, f"{architecture}.rope.scaling.type is {scaling!r}, not {', '.join(_ROPE_SCALINGS)}")


def _damaged(path: Path, what: str) -> BadFile:
    return BadFile(f"{path}: damaged header ({what}); is the download complete?")
