"""Header-only GGUF files: all that a model's header says, and a hole where its weights would be.

llama-quantize --dry-run, and so planning, needs no more. A 671B model's header is a megabyte or two on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from quantplan.quant_type import QuantType
from quantplan.records.files import replacing
from quantplan.tensor import padded

Shape = tuple[int, ...]  # ggml order: row length first


def write_header_only(
    path: Path | str,
    architecture: str,
    metadata: Mapping[str, object],
    tensors: Iterable[tuple[str, Shape, QuantType]],
) -> Path:
    """Writes a sparse file of the full length. ``metadata``: str, bool, int (stored as uint32), float
    (float32) or a list.

    Tensors as (name, shape, stored type). BadFile or NoSpace where it cannot be written.
    """
    tensors = list(tensors)
    with replacing(path, "wb") as file:
        part = Path(file.name)
        _write_header(part, architecture, metadata, tensors)
        length = padded(part.stat().st_size) + sum(padded(_bytes(shape, kind)) for _, shape, kind in tensors)
        os.truncate(part, length)
    return Path(path)


def _bytes(shape: Shape, kind: QuantType) -> int:
    rows = 1
    for size in shape[1:]:
        rows *= size
    return rows * kind.row_bytes(shape[0])


def _write_header(
    path: Path,
    architecture: str,
    metadata: Mapping[str, object],
    tensors: Iterable[tuple[str, Shape, QuantType]],
) -> None:
    import gguf  # costs 0.1 s, and no command but this needs it
    import numpy as np

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, (list, tuple)):
            writer.add_array(key, list(value))
        else:
            writer.add_key_value(key, value, _kind(gguf.GGUFValueType, key, value))
    for name, shape, kind in tensors:
        # the writer knows no bfloat16 and asks for a numpy type only to guess the stored one, which is given
        stored = gguf.GGMLQuantizationType(kind.ggml_id)
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float32), _bytes(shape, kind), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _kind(types: type, key: str, value: object) -> object:
    for python, name in ((bool, "BOOL"), (str, "STRING"), (int, "UINT32"), (float, "FLOAT32")):
        if isinstance(value, python):
            return types[name]  # type: ignore[index]
    raise TypeError(f"{key}: metadata of type {type(value).__name__} cannot be written")
