"""libggml's encoders and decoders on numpy arrays: the very code that llama-quantize runs, without loading a model.

All calls release the GIL, so rows are spread over threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from quantplan.errors import BadFile
from quantplan.execution import cores
from quantplan.llamacpp.libraries import base, cpu
from quantplan.llamacpp.signatures import ConvertRow
from quantplan.quant_type import QuantType

# 2 MiB of float32 at a time: large enough to hide the call, small enough that threads stay busy to the end
_CHUNK_ELEMENTS = 512 * 1024


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


def quantize(weights: np.ndarray, quant_type: QuantType, importance: np.ndarray | None = None) -> np.ndarray:
    """Rows encoded as ``quant_type``: uint8 [rows, row bytes], bit for bit what llama-quantize writes.

    ``weights``: float32 [rows, columns]; ``importance``: float32 [experts, columns] or None, rows being split
    evenly over experts in order. ValueError for a type that cannot be encoded, or not without importance.
    """
    if not quant_type.for_weights:
        raise ValueError(f"ggml encodes no weights as {quant_type}")
    if importance is None and aborts_without_imatrix(quant_type):
        raise ValueError(f"{quant_type} cannot be encoded without an imatrix")
    rows, columns = weights.shape
    weights = np.ascontiguousarray(weights, np.float32)
    if quant_type.name == "F32":
        return weights.view(np.uint8).reshape(rows, -1).copy()
    out = np.empty((rows, quant_type.row_bytes(columns)), np.uint8)
    if quant_type.family == "float":
        convert = base().ggml_fp32_to_fp16_row if quant_type.name == "F16" else base().ggml_fp32_to_bf16_row
        _over_rows(
            rows, columns, lambda a, b: convert(weights[a:b].ctypes.data, out[a:b].ctypes.data, (b - a) * columns)
        )
        return out
    per_expert = rows
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32).reshape(-1, columns)
        per_expert = rows // len(importance)
    encode, ggml_id = base().ggml_quantize_chunk, quant_type.ggml_id

    def work(first: int, last: int) -> None:
        column_weights = None if importance is None else importance[first // per_expert].ctypes.data
        source, target = weights[first:last].ctypes.data, out[first:last].ctypes.data
        encode(ggml_id, source, target, 0, last - first, columns, column_weights)

    _over_rows(rows, columns, work, per_expert)
    return out


def dequantize(data: np.ndarray, quant_type: QuantType, columns: int) -> np.ndarray:
    """float32 [rows, columns] of rows stored as ``quant_type``; ``data`` is uint8 [rows, row bytes].

    BadFile for a type that holds no weights, which only damaged headers give to a matrix.
    """
    if not can_quantize(quant_type):
        raise BadFile(f"ggml decodes no weights stored as {quant_type}; is the model damaged?")
    data = np.ascontiguousarray(data).reshape(-1, quant_type.row_bytes(columns))
    rows = len(data)
    if quant_type.name == "F32":
        return data.view(np.float32).reshape(rows, columns).copy()
    out = np.empty((rows, columns), np.float32)
    convert = _to_float(quant_type.ggml_id)
    _over_rows(rows, columns, lambda a, b: convert(data[a:b].ctypes.data, out[a:b].ctypes.data, (b - a) * columns))
    return out


@cache
def _to_float(ggml_id: int) -> Callable[[int, int, int], None]:
    return ConvertRow(base().ggml_get_type_traits(ggml_id).contents.to_float)


def installed_name(ggml_id: int) -> str | None:
    """ggml's own name of a type, None for numbers that the installed library does not know."""
    traits = base().ggml_get_type_traits(ggml_id).contents
    return traits.type_name.decode() if traits.type_name else None


def installed_block(ggml_id: int) -> tuple[int, int]:
    """(weights, bytes) of a block as the installed library has them."""
    traits = base().ggml_get_type_traits(ggml_id).contents
    return traits.blck_size, traits.type_size


def aborts_without_imatrix(quant_type: QuantType) -> bool:
    """Whether ggml ends the process when the type is encoded without importance, token_embd included."""
    return bool(base().ggml_quantize_requires_imatrix(quant_type.ggml_id))


def can_quantize(quant_type: QuantType) -> bool:
    """Whether the installed library can encode and decode the type."""
    traits = base().ggml_get_type_traits(quant_type.ggml_id).contents
    return bool(traits.to_float) or quant_type.name == "F32"


def activation_type(quant_type: QuantType) -> int:
    """ggml number (``vec_dot_type``) of the type that the CPU's kernels quantize activations to for these weights."""
    return cpu().ggml_get_type_traits_cpu(quant_type.ggml_id).contents.vec_dot_type


_Q8_1, _Q8_K = 9, 15


def quantize_activations(activations: np.ndarray, activation_type_id: int) -> np.ndarray:
    """float32 [rows, columns] as the kernels see their input: quantized to 8 bits and back.

    8-bit blocks with scale = absmax/127: Q8_0 and Q8_1 over 32 columns with the scale kept in half precision
    (``quantize_row_q8_0``), Q8_K over 256 with a float32 scale (``quantize_row_q8_K``), ggml-quants.c.
    """
    block = 256 if activation_type_id == _Q8_K else 32
    rows, columns = activations.shape
    if columns % block:
        return activations
    blocks = activations.reshape(rows, -1, block)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / 127
    stored = scale if activation_type_id == _Q8_K else scale.astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(scale > 0, np.rint(blocks / scale), 0)
    return (steps * stored).reshape(rows, columns).astype(np.float32)
