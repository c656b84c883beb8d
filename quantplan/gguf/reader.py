"""GGUF files: headers as models, tensor data through memory maps."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile
from quantplan.gguf.libgguf import ARRAY, SCALARS, keys, opened
from quantplan.gguf.shards import model_stem, shard_paths
from quantplan.llamacpp import ggml
from quantplan.llamacpp.libraries import base
from quantplan.llamacpp.signatures import GGUF_CTYPES
from quantplan.quant_type import ggml_type
from quantplan.tensor import Model, Tensor

_SAMPLE = 4096  # bytes at start, middle and end of each tensor that go into the digest


def read_model(path: Path | str) -> Model:
    """The header of a model, all shards of it; BadFile for anything that is not a whole GGUF model."""
    paths = shard_paths(Path(path))
    metadata: dict[str, object] = {}
    tensors: list[Tensor] = []
    for shard, each in enumerate(paths):
        with opened(each) as context:
            if shard == 0:
                metadata = _scalars(context)
            found = _tensors(context, each, shard)
        _check_length(each, found)
        tensors += found
    if metadata.get("general.type") == "imatrix":
        raise BadFile(f"{paths[0]}: this is an imatrix, not a model; give it as --imatrix")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not tensors:
        raise BadFile(
            f"{paths[0]}: a GGUF file without {'tensors' if architecture else 'general.architecture'}: not a model"
        )
    return Model(
        paths=paths,
        architecture=architecture,
        name=str(metadata.get("general.name") or model_stem(paths[0].name)),
        blocks=int(metadata.get(f"{architecture}.block_count", 0)),  # type: ignore[call-overload]
        tensors=tuple(tensors),
        file_bytes=sum(each.stat().st_size for each in paths),
        digest=_digest(paths, tensors),
        header_only=all(_is_hole(each) for each in paths),
        metadata=metadata,
    )


def read_container(path: Path) -> tuple[dict[str, object], list[Tensor]]:
    """Metadata (scalars, strings, tuples of strings) and tensors of one GGUF file that need not be a model.

    BadFile where the header is unreadable or a tensor's data is not all there.
    """
    with opened(path) as context:
        metadata = _scalars(context) | _string_arrays(context)
        tensors = _tensors(context, path, 0)
    _check_length(path, tensors)
    return metadata, tensors


def _scalars(context: int) -> dict[str, object]:
    lib, values = base(), {}
    for index in range(lib.gguf_get_n_kv(context)):
        kind = SCALARS.get(lib.gguf_get_kv_type(context, index))
        if kind:
            value = getattr(lib, f"gguf_get_val_{kind}")(context, index)
            values[lib.gguf_get_key(context, index).decode()] = (
                value.decode("utf-8", "replace") if kind == "str" else value
            )
    return values


def _string_arrays(context: int) -> dict[str, object]:
    lib, values = base(), {}
    for index in range(lib.gguf_get_n_kv(context)):
        if (
            lib.gguf_get_kv_type(context, index) == ARRAY
            and SCALARS.get(lib.gguf_get_arr_type(context, index)) == "str"
        ):
            items = (lib.gguf_get_arr_str(context, index, item) for item in range(lib.gguf_get_arr_n(context, index)))
            values[lib.gguf_get_key(context, index).decode()] = tuple(item.decode("utf-8", "replace") for item in items)
    return values


def _tensors(context: int, path: Path, shard: int) -> list[Tensor]:
    lib, found = base(), []
    data = lib.gguf_get_data_offset(context)
    for index in range(lib.gguf_get_n_tensors(context)):
        name = lib.gguf_get_tensor_name(context, index).decode()
        number = lib.gguf_get_tensor_type(context, index)
        kind = ggml_type(number)
        if kind is None:
            raise BadFile(
                f"{path}: {name} is stored as type {number}, which this quantplan does not know; update quantplan"
            )
        ne = lib.gguf_get_tensor_ne(context, index)
        shape = tuple(ne[i] for i in range(4))
        while len(shape) > 1 and shape[-1] == 1:
            shape = shape[:-1]
        found.append(Tensor(name, shape, kind, data + lib.gguf_get_tensor_offset(context, index), shard))
    return found


def _check_length(path: Path, tensors: list[Tensor]) -> None:
    size = path.stat().st_size
    for tensor in tensors:
        if tensor.offset + tensor.bytes > size:
            raise BadFile(
                f"{path}: cut short: {tensor.name} ends at byte {tensor.offset + tensor.bytes:,}, "
                f"the file has {size:,}; download or convert it again"
            )


def _digest(paths: tuple[Path, ...], tensors: list[Tensor]) -> str:
    """SHA-256 over all headers and three samples of each tensor's data.

    Reading 671B weights to name a model would take minutes; another model with the same header differs in nearly
    every sampled byte. Header-only files are named by their headers.
    """
    sha = hashlib.sha256()
    for shard, path in enumerate(paths):
        own = [tensor for tensor in tensors if tensor.shard == shard]
        with path.open("rb") as file:
            sha.update(file.read(min((tensor.offset for tensor in own), default=path.stat().st_size)))
            for tensor in own:
                size = tensor.bytes
                for start in {0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}:
                    file.seek(tensor.offset + start)
                    sha.update(file.read(min(_SAMPLE, size)))
    return sha.hexdigest()


def _is_hole(path: Path) -> bool:
    """Whether almost no block of the file is on disk: a header stretched to full length."""
    stat = path.stat()
    return hasattr(stat, "st_blocks") and stat.st_blocks * 512 < stat.st_size // 50


def tensor_bytes(model: Model, tensor: Tensor) -> np.ndarray:
    """uint8 [rows, row bytes] mapped from the file, read only."""
    mapped = np.memmap(model.paths[tensor.shard], np.uint8, "r", tensor.offset, (tensor.bytes,))
    return mapped.reshape(tensor.rows, -1)


def tensor_rows(model: Model, tensor: Tensor, rows: np.ndarray | slice | None = None) -> np.ndarray:
    """float32 [rows, columns]: the tensor's weights, all or those of the given rows."""
    data = tensor_bytes(model, tensor)
    return ggml.dequantize(data if rows is None else data[rows], tensor.type, tensor.columns)


def number_arrays(path: Path) -> dict[str, tuple[float, ...]]:
    """Arrays of numbers (booleans as 0 and 1) in a header by key, those of the tokenizer left out. Raises BadFile."""
    lib, found = base(), {}
    with opened(path) as context:
        for index, key in enumerate(keys(context)):
            if lib.gguf_get_kv_type(context, index) != ARRAY or key.startswith("tokenizer."):
                continue
            item = GGUF_CTYPES.get(SCALARS.get(lib.gguf_get_arr_type(context, index), "str"))
            count = lib.gguf_get_arr_n(context, index)
            if count and item not in (None, ctypes.c_char_p):
                found[key] = tuple((item * count).from_address(lib.gguf_get_arr_data(context, index)))
    return found
