"""GGUF: headers read and written by libggml's own gguf code, tensor data through memory maps.

The C reader is used instead of the gguf package's: a vocabulary of 150,000 strings costs it milliseconds, not
seconds, and what it accepts is what llama.cpp accepts.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile
from quantplan.layer_arrays import array_items, is_per_layer_array
from quantplan.layer_map import LayerMap, copy_of
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType, ggml_type
from quantplan.tensor import Model, Tensor, padded

_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
_SAMPLE = 4096  # bytes at start, middle and end of each tensor that go into the digest


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


class _ContextParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


_SCALARS = {0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str"}
_SCALARS |= {10: "u64", 11: "i64", 12: "f64"}
_ARRAY = 9  # GGUF_TYPE_ARRAY
_CTYPES = {
    "u8": ctypes.c_uint8, "i8": ctypes.c_int8, "u16": ctypes.c_uint16, "i16": ctypes.c_int16, "u32": ctypes.c_uint32,
    "i32": ctypes.c_int32, "f32": ctypes.c_float, "bool": ctypes.c_bool, "str": ctypes.c_char_p,
    "u64": ctypes.c_uint64, "i64": ctypes.c_int64, "f64": ctypes.c_double,
}  # fmt: skip


@cache
def _lib() -> ctypes.CDLL:
    """libggml-base with the signatures of gguf.h."""
    lib = ggml.base()
    handle, name, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    signatures = {
        "gguf_init_empty": (handle, []), "gguf_init_from_file": (handle, [name, _InitParams]), "gguf_free": (None, [handle]),
        "gguf_get_n_kv": (number, [handle]), "gguf_get_key": (name, [handle, number]),
        "gguf_find_key": (number, [handle, name]), "gguf_get_kv_type": (ctypes.c_int, [handle, number]),
        "gguf_get_arr_type": (ctypes.c_int, [handle, number]), "gguf_get_arr_n": (ctypes.c_size_t, [handle, number]),
        "gguf_get_arr_str": (name, [handle, number, ctypes.c_size_t]), "gguf_get_arr_data": (ctypes.c_void_p, [handle, number]),
        "gguf_set_arr_data": (None, [handle, name, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]),
        "gguf_get_data_offset": (ctypes.c_size_t, [handle]), "gguf_get_version": (ctypes.c_uint32, [handle]),
        "gguf_get_n_tensors": (number, [handle]), "gguf_get_tensor_offset": (ctypes.c_size_t, [handle, number]),
        "gguf_get_tensor_name": (name, [handle, number]), "gguf_get_tensor_type": (ctypes.c_int, [handle, number]),
        "gguf_get_tensor_ne": (ctypes.POINTER(number), [handle, number]),
        "gguf_get_meta_size": (ctypes.c_size_t, [handle]), "gguf_get_meta_data": (None, [handle, ctypes.c_void_p]),
        "gguf_set_kv": (None, [handle, handle]), "gguf_remove_key": (number, [handle, name]),
        "gguf_set_val_u32": (None, [handle, name, ctypes.c_uint32]), "gguf_set_val_str": (None, [handle, name, name]),
        "gguf_add_tensor": (None, [handle, handle]),
        "ggml_init": (handle, [_ContextParams]), "ggml_free": (None, [handle]), "ggml_tensor_overhead": (ctypes.c_size_t, []),
        "ggml_new_tensor": (handle, [handle, ctypes.c_int, ctypes.c_int, ctypes.POINTER(number)]),
        "ggml_set_name": (handle, [handle, name]),
    }  # fmt: skip
    for kind, ctype in _CTYPES.items():
        signatures[f"gguf_get_val_{kind}"] = (ctype, [handle, number])
    for function, (result, arguments) in signatures.items():
        entry = getattr(lib, function)
        entry.restype, entry.argtypes = result, arguments
    return lib


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A gguf_context of the header; BadFile with the reason where it cannot be read."""
    _check_magic(path)
    with ggml.captured_log() as log:
        context = _lib().gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    if not context:
        reason = next((line for line in reversed(log) if line), "unreadable header")
        raise BadFile(f"{path}: not a readable GGUF file ({reason.split(': ', 1)[-1]}); is the download complete?")
    try:
        yield context
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path}: damaged header, a name in it is no text ({error.reason}); is the download complete?"
        ) from None
    finally:
        _lib().gguf_free(context)


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror or error}; give the path of a GGUF file") from None
    if start[:4] != b"GGUF":
        raise BadFile(
            f"{path}: not a GGUF file (it starts with {start[:4]!r}, not b'GGUF'); convert the model to GGUF first"
        )
    if len(start) < 24:
        raise BadFile(f"{path}: cut short inside the header ({len(start)} bytes); download or convert it again")
    version = struct.unpack_from("<I", start, 4)[0]
    if version not in (2, 3) and version % (1 << 16) == 0:
        raise BadFile(
            f"{path}: a big-endian GGUF file, llama.cpp cannot use it on this machine; convert the model again"
        )
    if version not in (2, 3):
        raise BadFile(f"{path}: GGUF version {version} is not supported (2 and 3 are); convert the model again")


def shard_paths(path: Path) -> tuple[Path, ...]:
    """All files of a split model, given any of them; the path itself for a model in one file."""
    match = _SHARD.match(path.name)
    if not match:
        return (path,)
    stem, count = match.group(1), int(match.group(3))
    paths = tuple(path.with_name(f"{stem}-{index:05d}-of-{count:05d}.gguf") for index in range(1, count + 1))
    missing = [each.name for each in paths if not each.is_file()]
    if missing:
        raise BadFile(
            f"{path}: {len(missing)} of {count} shards are missing, first {missing[0]}; put all shards in one folder"
        )
    return paths


def read_model(path: Path | str) -> Model:
    """The header of a model, all shards of it; BadFile for anything that is not a whole GGUF model."""
    paths = shard_paths(Path(path))
    metadata: dict[str, object] = {}
    tensors: list[Tensor] = []
    for shard, each in enumerate(paths):
        with _opened(each) as context:
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
        name=str(metadata.get("general.name") or _SHARD.sub(r"\1", paths[0].name).removesuffix(".gguf")),
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
    with _opened(path) as context:
        metadata = _scalars(context) | _string_arrays(context)
        tensors = _tensors(context, path, 0)
    _check_length(path, tensors)
    return metadata, tensors


def _scalars(context: int) -> dict[str, object]:
    lib, values = _lib(), {}
    for index in range(lib.gguf_get_n_kv(context)):
        kind = _SCALARS.get(lib.gguf_get_kv_type(context, index))
        if kind:
            value = getattr(lib, f"gguf_get_val_{kind}")(context, index)
            values[lib.gguf_get_key(context, index).decode()] = (
                value.decode("utf-8", "replace") if kind == "str" else value
            )
    return values


def _string_arrays(context: int) -> dict[str, object]:
    lib, values = _lib(), {}
    for index in range(lib.gguf_get_n_kv(context)):
        if (
            lib.gguf_get_kv_type(context, index) == _ARRAY
            and _SCALARS.get(lib.gguf_get_arr_type(context, index)) == "str"
        ):
            items = (lib.gguf_get_arr_str(context, index, item) for item in range(lib.gguf_get_arr_n(context, index)))
            values[lib.gguf_get_key(context, index).decode()] = tuple(item.decode("utf-8", "replace") for item in items)
    return values


def _tensors(context: int, path: Path, shard: int) -> list[Tensor]:
    lib, found = _lib(), []
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


@dataclass(frozen=True)
class ImatrixNote:
    """What llama-quantize writes about the imatrix into a file's metadata (tools/quantize/quantize.cpp)."""

    file: str
    dataset: str | None
    entries: int
    chunks: int


def quantized_bytes(model: Model, types: Mapping[str, QuantType], note: ImatrixNote | None) -> int:
    """Exact size of the file that llama-quantize builds: header and padded data, split models made one.

    ``types`` holds the stored type of tensors that change. Repeats what llama_model_quantize_impl does with
    libggml's own functions, so that whatever gguf does to the header happens here too.
    """
    data = sum(padded(tensor.bytes_as(types.get(tensor.name, tensor.type))) for tensor in model.tensors)
    return data + metadata_bytes(model, note)


def metadata_bytes(model: Model, note: ImatrixNote | None) -> int:
    """Bytes before the tensor data in a file that llama-quantize makes of the model."""
    lib = _lib()
    with _opened(model.path) as source:
        out = lib.gguf_init_empty()
        memory = lib.ggml_init(_ContextParams((len(model.tensors) + 1) * lib.ggml_tensor_overhead(), None, True))
        try:
            lib.gguf_set_kv(out, source)
            lib.gguf_set_val_u32(out, b"general.quantization_version", 2)
            lib.gguf_set_val_u32(out, b"general.file_type", 0)
            for key in _SPLIT_KEYS:
                lib.gguf_remove_key(out, key.encode())
            if note is not None:
                _write_note(out, note)
            _add_tensors(out, memory, model.tensors)
            return lib.gguf_get_meta_size(out)
        finally:
            lib.ggml_free(memory)
            lib.gguf_free(out)


def _write_note(out: int, note: ImatrixNote) -> None:
    lib = _lib()
    lib.gguf_set_val_str(out, b"quantize.imatrix.file", _kv_string(note.file))
    if note.dataset is not None:
        lib.gguf_set_val_str(out, b"quantize.imatrix.dataset", _kv_string(note.dataset))
    lib.gguf_set_val_u32(out, b"quantize.imatrix.entries_count", note.entries)
    if note.chunks > 0:
        lib.gguf_set_val_u32(out, b"quantize.imatrix.chunks_count", note.chunks)


def _kv_string(text: str) -> bytes:
    return text.encode()[:127]  # llama_model_kv_override.val_str holds 127 bytes


def _add_tensors(out: int, memory: int, tensors: tuple[Tensor, ...]) -> None:
    lib = _lib()
    for tensor in tensors:
        shape = (ctypes.c_int64 * len(tensor.shape))(*tensor.shape)
        handle = lib.ggml_new_tensor(memory, tensor.type.ggml_id, len(tensor.shape), shape)
        lib.ggml_set_name(handle, tensor.name.encode())
        lib.gguf_add_tensor(out, handle)


def shortened_header(
    model: Model, tensors: tuple[Tensor, ...], blocks: Sequence[int], changes: Mapping[str, int | str | None]
) -> bytes:
    """The header of a file with these tensors and the model's metadata, made to fit the ``blocks`` of it that are kept.

    Per-layer arrays keep the items of ``blocks``; ``changes`` sets keys (int as uint32), None removes one. The tokenizer
    stays away: its strings would be most of the file.
    """
    lib = _lib()
    with _opened(model.path) as source:
        out = lib.gguf_init_empty()
        memory = lib.ggml_init(_ContextParams((len(tensors) + 1) * lib.ggml_tensor_overhead(), None, True))
        try:
            lib.gguf_set_kv(out, source)
            _keep_blocks(source, out, model, blocks)
            for key in [key for key in _keys(out) if key.startswith(("tokenizer.", "split.", "general.alignment"))]:
                lib.gguf_remove_key(out, key.encode())
            for key, value in changes.items():
                _change(out, key, value)
            _add_tensors(out, memory, tensors)
            header = ctypes.create_string_buffer(lib.gguf_get_meta_size(out))
            lib.gguf_get_meta_data(out, header)
            return header.raw
        finally:
            lib.ggml_free(memory)
            lib.gguf_free(out)


def _keys(context: int) -> list[str]:
    lib = _lib()
    return [lib.gguf_get_key(context, index).decode() for index in range(lib.gguf_get_n_kv(context))]


def _change(out: int, key: str, value: int | str | None) -> None:
    lib = _lib()
    if value is None:
        lib.gguf_remove_key(out, key.encode())
    elif isinstance(value, str):
        lib.gguf_set_val_str(out, key.encode(), value.encode())
    else:
        lib.gguf_set_val_u32(out, key.encode(), value)


def _keep_blocks(source: int, out: int, model: Model, blocks: Sequence[int]) -> None:
    """Arrays of numbers with an item for each block: the items of the kept ones."""
    lib = _lib()
    kept = LayerMap(model.blocks, tuple(copy_of(block) for block in blocks))
    for index, key in enumerate(_keys(source)):
        if lib.gguf_get_kv_type(source, index) != _ARRAY:
            continue
        kind, count = lib.gguf_get_arr_type(source, index), lib.gguf_get_arr_n(source, index)
        item = _CTYPES.get(_SCALARS.get(kind, "str"))
        if item in (None, ctypes.c_char_p) or not is_per_layer_array(model.architecture, key, count, model.blocks):
            continue
        every = (item * count).from_address(lib.gguf_get_arr_data(source, index))
        items = [every[place] for place in array_items(kept, count)]
        lib.gguf_set_arr_data(out, key.encode(), kind, (item * len(items))(*items), len(items))


def number_arrays(path: Path) -> dict[str, tuple[float, ...]]:
    """Arrays of numbers (booleans as 0 and 1) in a header by key, those of the tokenizer left out. Raises BadFile."""
    lib, found = _lib(), {}
    with _opened(path) as context:
        for index, key in enumerate(_keys(context)):
            if lib.gguf_get_kv_type(context, index) != _ARRAY or key.startswith("tokenizer."):
                continue
            item = _CTYPES.get(_SCALARS.get(lib.gguf_get_arr_type(context, index), "str"))
            count = lib.gguf_get_arr_n(context, index)
            if count and item not in (None, ctypes.c_char_p):
                found[key] = tuple((item * count).from_address(lib.gguf_get_arr_data(context, index)))
    return found
