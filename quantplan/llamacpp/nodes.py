"""Nodes of the graph that llama.cpp computes, as a watcher of a decode sees them."""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from quantplan.llamacpp.libraries import base
from quantplan.llamacpp.signatures import GgmlTensor

NodeWatcher = Callable[[GgmlTensor, bool], bool]
_NODE_TYPES = {0: np.dtype(np.float32), 26: np.dtype(np.int32)}  # ggml's numbers of F32 and I32


def node_rows(node: GgmlTensor) -> np.ndarray:
    """float32 [rows, columns]: the values of a float32 node, copied from any backend."""
    return node_values(node).reshape(-1, node.ne[0])


def node_values(node: GgmlTensor) -> np.ndarray:
    """float32 or int32 [ne3, ne2, ne1, ne0]: the values of a node of any layout, copied from any backend."""
    dtype = _NODE_TYPES[node.type]
    shape, strides = tuple(node.ne)[::-1], tuple(node.nb)[::-1]
    if not all(shape):
        return np.empty(shape, dtype)
    span = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + dtype.itemsize
    data = np.empty(span // dtype.itemsize, dtype)
    base().ggml_backend_tensor_get(ctypes.addressof(node), data.ctypes.data, 0, span)
    return np.lib.stride_tricks.as_strided(data, shape, strides, writeable=False)


def node_op(node: GgmlTensor) -> str:
    """Name of the node's operation, ``MUL_MAT``: numbers differ between builds."""
    return _op_name(node.op)


@cache
def _op_name(number: int) -> str:
    return base().ggml_op_name(number).decode()
