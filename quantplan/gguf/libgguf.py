"""libggml's own gguf code through ctypes: contexts of headers, their keys and values.

The C reader is used instead of the gguf package's: a vocabulary of 150,000 strings costs it milliseconds, not
seconds, and what it accepts is what llama.cpp accepts.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from quantplan.errors import BadFile
from quantplan.llamacpp import ggml


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


class ContextParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


SCALARS = {0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str"}
SCALARS |= {10: "u64", 11: "i64", 12: "f64"}
ARRAY = 9  # GGUF_TYPE_ARRAY
CTYPES = {
    "u8": ctypes.c_uint8,
    "i8": ctypes.c_int8,
    "u16": ctypes.c_uint16,
    "i16": ctypes.c_int16,
    "u32": ctypes.c_uint32,
    "i32": ctypes.c_int32,
    "f32": ctypes.c_float,
    "bool": ctypes.c_bool,
    "str": ctypes.c_char_p,
    "u64": ctypes.c_uint64,
    "i64": ctypes.c_int64,
    "f64": ctypes.c_double,
}


@cache
def library() -> ctypes.CDLL:
    """libggml-base with the signatures of gguf.h and of what makes tensors' infos."""
    lib = ggml.base()
    handle, name, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    signatures = {
        "gguf_init_empty": (handle, []),
        "gguf_init_from_file": (handle, [name, _InitParams]),
        "gguf_free": (None, [handle]),
        "gguf_get_n_kv": (number, [handle]),
        "gguf_get_key": (name, [handle, number]),
        "gguf_find_key": (number, [handle, name]),
        "gguf_get_kv_type": (ctypes.c_int, [handle, number]),
        "gguf_get_arr_type": (ctypes.c_int, [handle, number]),
        "gguf_get_arr_n": (ctypes.c_size_t, [handle, number]),
        "gguf_get_arr_str": (name, [handle, number, ctypes.c_size_t]),
        "gguf_get_arr_data": (ctypes.c_void_p, [handle, number]),
        "gguf_set_arr_data": (None, [handle, name, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]),
        "gguf_get_data_offset": (ctypes.c_size_t, [handle]),
        "gguf_get_version": (ctypes.c_uint32, [handle]),
        "gguf_get_n_tensors": (number, [handle]),
        "gguf_get_tensor_offset": (ctypes.c_size_t, [handle, number]),
        "gguf_get_tensor_name": (name, [handle, number]),
        "gguf_get_tensor_type": (ctypes.c_int, [handle, number]),
        "gguf_get_tensor_ne": (ctypes.POINTER(number), [handle, number]),
        "gguf_get_meta_size": (ctypes.c_size_t, [handle]),
        "gguf_get_meta_data": (None, [handle, ctypes.c_void_p]),
        "gguf_set_kv": (None, [handle, handle]),
        "gguf_remove_key": (number, [handle, name]),
        "gguf_set_val_u32": (None, [handle, name, ctypes.c_uint32]),
        "gguf_set_val_str": (None, [handle, name, name]),
        "gguf_add_tensor": (None, [handle, handle]),
        "ggml_init": (handle, [ContextParams]),
        "ggml_free": (None, [handle]),
        "ggml_tensor_overhead": (ctypes.c_size_t, []),
        "ggml_new_tensor": (handle, [handle, ctypes.c_int, ctypes.c_int, ctypes.POINTER(number)]),
        "ggml_set_name": (handle, [handle, name]),
    }
    for kind, ctype in CTYPES.items():
        signatures[f"gguf_get_val_{kind}"] = (ctype, [handle, number])
    for function, (result, arguments) in signatures.items():
        entry = getattr(lib, function)
        entry.restype, entry.argtypes = result, arguments
    return lib


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A gguf_context of the header; BadFile with the reason where it cannot be read."""
    _check_magic(path)
    with ggml.captured_log() as log:
        context = library().gguf_init_from_file(str(path).encode(), _InitParams(True, None))
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
        library().gguf_free(context)


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


def keys(context: int) -> list[str]:
    """The keys of a header in their order."""
    lib = library()
    return [lib.gguf_get_key(context, index).decode() for index in range(lib.gguf_get_n_kv(context))]
