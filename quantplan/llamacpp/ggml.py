"""libggml itself through ctypes: the very code that llama-quantize runs, without loading a model.

The libraries are those that llama-cpp-python installed; they are found without importing it, which
would cost half a second. All calls release the GIL, so rows are spread over threads.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from quantplan.errors import ToolMissing
from quantplan.quant_type import QuantType


def _build_options() -> str:
    """CMAKE_ARGS for this machine. llama.cpp's AMX kernels crash where the compiler drops their tile configuration (llama.cpp
    PR 26954; seen with GCC 12.2): processors that have AMX do without.
    """
    options = (
        "-DLLAMA_BUILD_TOOLS=ON -DLLAMA_TOOLS_INSTALL=ON -DLLAMA_BUILD_SERVER=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"
    )
    cpu = Path("/proc/cpuinfo")
    amx = cpu.is_file() and "amx_int8" in cpu.read_text(encoding="utf-8", errors="replace").split()
    return f"{options} -DGGML_RPC=ON{' -DCMAKE_CXX_FLAGS=-mno-amx-int8' if amx else ''}"


INSTALL_HINT = (
    f'CMAKE_ARGS="{_build_options()}" pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python'
)
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_PREFIX = "" if sys.platform == "win32" else "lib"
# 2 MiB of float32 at a time: large enough to hide the call, small enough that threads stay busy to the end
_CHUNK_ELEMENTS = 512 * 1024


class _TypeTraits(ctypes.Structure):
    """struct ggml_type_traits, ggml.h."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    ]


class _CpuTypeTraits(ctypes.Structure):
    """struct ggml_type_traits_cpu, ggml-cpu.h."""

    _fields_ = [
        ("from_float", ctypes.c_void_p),
        ("vec_dot", ctypes.c_void_p),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    ]


_Convert = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def library_folder() -> Path:
    """The folder with libggml and libllama; ToolMissing where llama-cpp-python is not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise ToolMissing(f"llama-cpp-python is not installed; run: {INSTALL_HINT}")
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def library_path(stem: str) -> Path:
    """The installed library called ``stem``: ggml, ggml-base, ggml-cpu."""
    return library_folder() / f"{_PREFIX}{stem}{_SUFFIX}"


@cache
def _load(stem: str) -> ctypes.CDLL:
    path = library_path(stem)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ToolMissing(f"cannot load {path}: {error}; run: {INSTALL_HINT}") from None


@cache
def base() -> ctypes.CDLL:
    """libggml-base with the signatures that quantplan calls."""
    lib = _load("ggml-base")
    lib.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    lib.ggml_get_type_traits.argtypes = [ctypes.c_int]
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = (
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    )
    lib.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    lib.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    lib.ggml_fp32_to_fp16_row.restype = None
    lib.ggml_fp32_to_bf16_row.restype = None
    lib.ggml_fp16_to_fp32_row.restype = None
    lib.ggml_bf16_to_fp32_row.restype = None
    for name in ("fp32_to_fp16", "fp32_to_bf16", "fp16_to_fp32", "bf16_to_fp32"):
        getattr(lib, f"ggml_{name}_row").argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    lib.ggml_log_set.restype = None
    lib.ggml_log_set.argtypes = [LogCallback, ctypes.c_void_p]
    return lib


@cache
def cpu() -> ctypes.CDLL:
    """libggml-cpu: which type its kernels round activations to."""
    base()
    lib = _load("ggml-cpu")
    lib.ggml_cpu_init.restype = None
    lib.ggml_cpu_init.argtypes = []
    lib.ggml_cpu_init()
    lib.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_CpuTypeTraits)
    lib.ggml_get_type_traits_cpu.argtypes = [ctypes.c_int]
    return lib


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collects what ggml logs (it would go to stderr) so that an error message can say it."""
    lines: list[str] = []
    callback = LogCallback(lambda _level, text, _data: lines.append(text.decode("utf-8", "replace").strip()))
    base().ggml_log_set(callback, None)
    try:
        yield lines
    finally:
        base().ggml_log_set(_silent, None)


_silent = LogCallback(lambda _level, _text, _data: None)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="ggml")


def _over_rows(rows: int, columns: int, work: Callable[[int, int], None], boundary: int = 0) -> None:
    """Calls work(first, last) for row ranges on all cores; no range crosses a multiple of ``boundary``."""
    step = max(1, _CHUNK_ELEMENTS // columns)
    ranges = []
    for start in range(0, rows, boundary or rows):
        end = min(rows, start + (boundary or rows))
        ranges += [(first, min(first + step, end)) for first in range(start, end, step)]
    if len(ranges) == 1:
        work(*ranges[0])
        return
    for _ in _pool().map(lambda span: work(*span), ranges):
        pass


def quantize(weights: np.ndarray, kind: QuantType, importance: np.ndarray | None = None) -> np.ndarray:
    """Rows encoded as ``kind``: uint8 [rows, row bytes], bit for bit what llama-quantize writes.

    ``weights``: float32 [rows, columns]; ``importance``: float32 [experts, columns] or None, rows being split
    evenly over experts in order. ValueError for a type that cannot be encoded, or not without importance.
    """
    if not kind.for_weights:
        raise ValueError(f"ggml encodes no weights as {kind}")
    if importance is None and aborts_without_imatrix(kind):
        raise ValueError(f"{kind} cannot be encoded without an imatrix")
    rows, columns = weights.shape
    weights = np.ascontiguousarray(weights, np.float32)
    out = np.empty((rows, kind.row_bytes(columns)), np.uint8)
    if kind.name == "F32":
        return weights.view(np.uint8).reshape(rows, -1).copy()
    if kind.family == "float":
        convert = getattr(
            base(), f"ggml_fp32_to_{kind.name.lower().replace('f16', 'fp16') if kind.name == 'F16' else 'bf16'}_row"
        )
        _over_rows(
            rows, columns, lambda a, b: convert(weights[a:b].ctypes.data, out[a:b].ctypes.data, (b - a) * columns)
        )
        return out
    per_expert = rows
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32).reshape(-1, columns)
        per_expert = rows // len(importance)
    lib = base()

    def work(first: int, last: int) -> None:
        weighted = None if importance is None else importance[first // per_expert].ctypes.data
        lib.ggml_quantize_chunk(
            kind.ggml_id,
            weights[first:last].ctypes.data,
            out[first:last].ctypes.data,
            0,
            last - first,
            columns,
            weighted,
        )

    _over_rows(rows, columns, work, per_expert)
    return out


def dequantize(data: np.ndarray, kind: QuantType, columns: int) -> np.ndarray:
    """float32 [rows, columns] of rows stored as ``kind``; ``data`` is uint8 [rows, row bytes]."""
    data = np.ascontiguousarray(data).reshape(-1, kind.row_bytes(columns))
    rows = len(data)
    if kind.name == "F32":
        return data.view(np.float32).reshape(rows, columns).copy()
    out = np.empty((rows, columns), np.float32)
    convert = _to_float(kind.ggml_id)
    _over_rows(rows, columns, lambda a, b: convert(data[a:b].ctypes.data, out[a:b].ctypes.data, (b - a) * columns))
    return out


@cache
def _to_float(ggml_id: int) -> Callable[[int, int, int], None]:
    return _Convert(base().ggml_get_type_traits(ggml_id).contents.to_float)


def installed_name(ggml_id: int) -> str | None:
    """ggml's own name of a type, None for numbers that the installed library does not know."""
    traits = base().ggml_get_type_traits(ggml_id).contents
    return traits.type_name.decode() if traits.type_name else None


def installed_block(ggml_id: int) -> tuple[int, int]:
    """(weights, bytes) of a block as the installed library has them."""
    traits = base().ggml_get_type_traits(ggml_id).contents
    return traits.blck_size, traits.type_size


def aborts_without_imatrix(kind: QuantType) -> bool:
    """Whether ggml ends the process when the type is encoded without importance, token_embd included."""
    return bool(base().ggml_quantize_requires_imatrix(kind.ggml_id))


def can_quantize(kind: QuantType) -> bool:
    """Whether the installed library can encode and decode the type."""
    traits = base().ggml_get_type_traits(kind.ggml_id).contents
    return bool(traits.to_float) or kind.name == "F32"


def fed_with(kind: QuantType) -> int:
    """ggml number of the type that the CPU's kernels round activations to before they meet weights of ``kind``."""
    return cpu().ggml_get_type_traits_cpu(kind.ggml_id).contents.vec_dot_type


_Q8_1, _Q8_K = 9, 15


def round_activations(activations: np.ndarray, feed_id: int) -> np.ndarray:
    """float32 [rows, columns] after the rounding that kernels apply to their input.

    8-bit blocks with scale = absmax/127: Q8_0 and Q8_1 over 32 columns with the scale kept in half precision
    (``quantize_row_q8_0``), Q8_K over 256 with a float32 scale (``quantize_row_q8_K``), ggml-quants.c.
    """
    block = 256 if feed_id == _Q8_K else 32
    rows, columns = activations.shape
    if columns % block:
        return activations
    blocks = activations.reshape(rows, -1, block)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / 127
    stored = scale if feed_id == _Q8_K else scale.astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(scale > 0, np.rint(blocks / scale), 0)
    return (steps * stored).reshape(rows, columns).astype(np.float32)
