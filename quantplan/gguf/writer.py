"""Headers of files that are yet to be made: how large llama-quantize's will be, and one of fewer blocks.

Made with libggml's own functions, so that whatever gguf does to a header happens here too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantplan.gguf.layer_arrays import array_items, is_per_layer_array
from quantplan.gguf.libgguf import ARRAY, SCALARS, keys, opened
from quantplan.llamacpp.libraries import base
from quantplan.llamacpp.signatures import GGUF_CTYPES, ContextParams
from quantplan.quant_type import QuantType
from quantplan.tensor import Model, Tensor, padded

_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


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
    lib = base()
    with opened(model.path) as source:
        out = lib.gguf_init_empty()
        memory = lib.ggml_init(ContextParams((len(model.tensors) + 1) * lib.ggml_tensor_overhead(), None, True))
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
    lib = base()
    lib.gguf_set_val_str(out, b"quantize.imatrix.file", _kv_string(note.file))
    if note.dataset is not None:
        lib.gguf_set_val_str(out, b"quantize.imatrix.dataset", _kv_string(note.dataset))
    lib.gguf_set_val_u32(out, b"quantize.imatrix.entries_count", note.entries)
    if note.chunks > 0:
        lib.gguf_set_val_u32(out, b"quantize.imatrix.chunks_count", note.chunks)


def _kv_string(text: str) -> bytes:
    return text.encode()[:127]  # llama_model_kv_override.val_str holds 127 bytes


def _add_tensors(out: int, memory: int, tensors: tuple[Tensor, ...]) -> None:
    lib = base()
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
    lib = base()
    with opened(model.path) as source:
        out = lib.gguf_init_empty()
        memory = lib.ggml_init(ContextParams((len(tensors) + 1) * lib.ggml_tensor_overhead(), None, True))
        try:
            lib.gguf_set_kv(out, source)
            _keep_blocks(source, out, model, blocks)
            for key in [key for key in keys(out) if key.startswith(("tokenizer.", "split.", "general.alignment"))]:
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


def _change(out: int, key: str, value: int | str | None) -> None:
    lib = base()
    if value is None:
        lib.gguf_remove_key(out, key.encode())
    elif isinstance(value, str):
        lib.gguf_set_val_str(out, key.encode(), value.encode())
    else:
        lib.gguf_set_val_u32(out, key.encode(), value)


def _keep_blocks(source: int, out: int, model: Model, blocks: Sequence[int]) -> None:
    """Arrays of numbers with an item for each block: the items of the kept ones."""
    lib = base()
    for index, key in enumerate(keys(source)):
        if lib.gguf_get_kv_type(source, index) != ARRAY:
            continue
        kind, count = lib.gguf_get_arr_type(source, index), lib.gguf_get_arr_n(source, index)
        item = GGUF_CTYPES.get(SCALARS.get(kind, "str"))
        if item in (None, ctypes.c_char_p) or not is_per_layer_array(model.architecture, key, count, model.blocks):
            continue
        every = (item * count).from_address(lib.gguf_get_arr_data(source, index))
        items = [every[place] for place in array_items(tuple(blocks), model.blocks, count)]
        lib.gguf_set_arr_data(out, key.encode(), kind, (item * len(items))(*items), len(items))
