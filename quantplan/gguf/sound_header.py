"""What llama.cpp ends the process for instead of refusing the file: found in a header before llama.cpp gets it."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.tensor import GGUF_ALIGNMENT, MAX_BLOCKS, Tensor


def check_sound(path: Path, architecture: str, metadata: Mapping[str, object], tensors: Iterable[Tensor]) -> None:
    """BadFile naming the key, or the tensor, whose value cannot be."""
    blocks = metadata.get(f"{architecture}.block_count", 1)
    if type(blocks) is not int or not 0 < blocks <= MAX_BLOCKS:
        raise _damaged(path, f"{architecture}.block_count is {blocks!r}, not a number of blocks from 1 to {MAX_BLOCKS}")
    for key, value in metadata.items():
        is_epsilon = key.startswith(f"{architecture}.") and key.endswith("epsilon")
        if is_epsilon and not (isinstance(value, float) and 0 <= value < math.inf):
            raise _damaged(path, f"{key} is {value!r}, not a small positive number")
    odd = next((tensor for tensor in tensors if tensor.offset % GGUF_ALIGNMENT), None)
    if odd is not None:
        raise BadFile(
            f"{path}: the data of {odd.name} begin at byte {odd.offset:,}, no multiple of {GGUF_ALIGNMENT}, which llama.cpp "
            "cannot load; write the file again with general.alignment 32"
        )


def _damaged(path: Path, what: str) -> BadFile:
    return BadFile(f"{path}: damaged header ({what}); is the download complete?")
