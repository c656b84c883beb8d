"""The C structures and functions that quantplan uses, each once: ``SIGNATURES[library][function] = (result, arguments)``.

Pure declarations (ggml.h, ggml-backend.h, ggml-cpu.h, ggml-rpc.h, llama.h); ``libraries`` loads and applies them.
"""

import ctypes
from collections.abc import Mapping
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any

F32, I32 = 0, 26  # enum ggml_type, for tensors that hold no weights
_MAX_SRC, _MAX_NAME, _OP_PARAM_BYTES = 10, 64, 64  # ggml.h


class GgmlTensor(ctypes.Structure):
    """struct ggml_tensor, ggml.h."""


GgmlTensor._fields_ = [
    ("type", c_int),
    ("buffer", c_void_p),
    ("ne", c_int64 * 4),
    ("nb", c_size_t * 4),
    ("op", c_int),
    ("op_params", ctypes.c_byte * _OP_PARAM_BYTES),
    ("flags", c_int32),
    ("src", POINTER(GgmlTensor) * _MAX_SRC),
    ("view_src", c_void_p),
    ("view_offs", c_size_t),
    ("data", c_void_p),
    ("name", ctypes.c_char * _MAX_NAME),
]


class TypeTraits(ctypes.Structure):
    """struct ggml_type_traits, ggml.h."""

    _fields_ = [
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", c_void_p),
        ("from_float_ref", c_void_p),
    ]


class CpuTypeTraits(ctypes.Structure):
    """struct ggml_type_traits_cpu, ggml-cpu.h."""

    _fields_ = [("from_float", c_void_p), ("vec_dot", c_void_p), ("vec_dot_type", c_int), ("nrows", c_int64)]


class ContextParams(ctypes.Structure):
    """struct ggml_init_params, ggml.h."""

    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


class QuantizeParams(ctypes.Structure):
    """The beginning of struct llama_model_quantize_params, llama.h."""

    _fields_ = [
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("output_tensor_type", c_int32),
        ("token_embedding_type", c_int32),
        ("rest", ctypes.c_char * 1024),  # returned in memory: more room than needed does no harm
    ]


LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
AbortCallback = ctypes.CFUNCTYPE(None, c_char_p)
ConvertRow = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)  # ggml_to_float_t and ggml_from_float_t
ExtraBufferTypes = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)  # ggml_backend_dev_get_extra_bufts_t

_HANDLE = c_void_p  # of an opaque structure, or of a ggml_tensor that nobody looks into
_Signature = tuple[Any, list[Any]]

_TYPES: dict[str, _Signature] = {
    "ggml_get_type_traits": (POINTER(TypeTraits), [c_int]),
    "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "ggml_quantize_requires_imatrix": (c_bool, [c_int]),
    "ggml_fp32_to_fp16_row": (None, [c_void_p, c_void_p, c_int64]),
    "ggml_fp32_to_bf16_row": (None, [c_void_p, c_void_p, c_int64]),
    "ggml_log_set": (None, [LogCallback, c_void_p]),
    "ggml_set_abort_callback": (c_void_p, [AbortCallback]),
    "ggml_abort": (None, [c_char_p, c_int, c_char_p]),
}
_GRAPHS: dict[str, _Signature] = {
    "ggml_init": (_HANDLE, [ContextParams]),
    "ggml_free": (None, [_HANDLE]),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_graph_overhead": (c_size_t, []),
    "ggml_graph_overhead_custom": (c_size_t, [c_size_t, c_bool]),
    "ggml_new_tensor": (_HANDLE, [_HANDLE, c_int, c_int, POINTER(c_int64)]),
    "ggml_op_name": (c_char_p, [c_int]),
    "ggml_set_name": (_HANDLE, [_HANDLE, c_char_p]),
    "ggml_mul_mat": (_HANDLE, [_HANDLE, _HANDLE, _HANDLE]),
    "ggml_mul_mat_id": (_HANDLE, [_HANDLE, _HANDLE, _HANDLE, _HANDLE]),
    "ggml_new_graph": (_HANDLE, [_HANDLE]),
    "ggml_new_graph_custom": (_HANDLE, [_HANDLE, c_size_t, c_bool]),
    "ggml_build_forward_expand": (None, [_HANDLE, _HANDLE]),
}
_BACKENDS: dict[str, _Signature] = {
    "ggml_backend_alloc_ctx_tensors": (_HANDLE, [_HANDLE, _HANDLE]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_HANDLE, [_HANDLE, _HANDLE]),
    "ggml_backend_tensor_alloc": (c_int, [_HANDLE, _HANDLE, c_void_p]),
    "ggml_backend_tensor_set": (None, [_HANDLE, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_tensor_get": (None, [_HANDLE, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_buft_alloc_buffer": (_HANDLE, [_HANDLE, c_size_t]),
    "ggml_backend_buffer_free": (None, [_HANDLE]),
    "ggml_backend_buffer_set_usage": (None, [_HANDLE, c_int]),
    "ggml_backend_dev_type": (c_int, [_HANDLE]),
    "ggml_backend_dev_description": (c_char_p, [_HANDLE]),
    "ggml_backend_dev_backend_reg": (_HANDLE, [_HANDLE]),
    "ggml_backend_dev_init": (_HANDLE, [_HANDLE, c_char_p]),
    "ggml_backend_dev_buffer_type": (_HANDLE, [_HANDLE]),
    "ggml_backend_dev_supports_op": (c_bool, [_HANDLE, _HANDLE]),
    "ggml_backend_free": (None, [_HANDLE]),
    "ggml_backend_graph_compute": (c_int, [_HANDLE, _HANDLE]),
    "ggml_backend_reg_dev_count": (c_size_t, [_HANDLE]),
    "ggml_backend_reg_dev_get": (_HANDLE, [_HANDLE, c_size_t]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [_HANDLE, c_char_p]),
    "ggml_backend_sched_new": (_HANDLE, [POINTER(_HANDLE), _HANDLE, c_int, c_size_t, c_bool, c_bool]),
    "ggml_backend_sched_alloc_graph": (c_bool, [_HANDLE, _HANDLE]),
    "ggml_backend_sched_free": (None, [_HANDLE]),
    "ggml_backend_sched_graph_compute": (c_int, [_HANDLE, _HANDLE]),
}

SIGNATURES: Mapping[str, Mapping[str, _Signature]] = {
    "ggml-base": _TYPES | _GRAPHS | _BACKENDS,
    "ggml-cpu": {
        "ggml_cpu_init": (None, []),
        "ggml_get_type_traits_cpu": (POINTER(CpuTypeTraits), [c_int]),
        "ggml_backend_cpu_set_n_threads": (None, [_HANDLE, c_int]),
    },
    "ggml": {"ggml_backend_dev_count": (c_size_t, []), "ggml_backend_dev_get": (_HANDLE, [c_size_t])},
    "ggml-rpc": {"ggml_backend_rpc_add_server": (_HANDLE, [c_char_p])},
    "llama": {"llama_model_quantize_default_params": (QuantizeParams, [])},
}
