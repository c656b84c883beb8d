"""llama.cpp's RPC servers: their devices, and whether these multiply as the CPU does.

A server answers one client at a time, and a client whose server goes away is ended by ggml (``GGML_ABORT`` in
ggml-rpc.cpp): everything here that reaches a server belongs into a process of its own, see ``isolated``.
"""

import ctypes
import socket
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from quantplan.errors import QuantplanError, ToolMissing
from quantplan.execution import Execution
from quantplan.llamacpp import ggml, libraries
from quantplan.llamacpp.libraries import base
from quantplan.llamacpp.signatures import F32, ContextParams
from quantplan.quant_type import BY_NAME, QuantType

SERVER = "ggml-rpc-server"
_SECONDS = 5  # to open a connection
_COLUMNS, _ROWS, _TOKENS = 512, 64, 48  # a batch too large for kernels made for single tokens
_SAME = 0.2  # of the error that rounding activations makes: what a device may differ by and still round as the CPU does


def supported() -> bool:
    """Whether the installed llama.cpp was built with its RPC backend."""
    return libraries.library_path("ggml-rpc").exists()


def check(servers: Sequence[str]) -> None:
    """ToolMissing where llama.cpp has no RPC backend, QuantplanError where a server does not answer."""
    if not supported():
        raise ToolMissing(f"the installed llama.cpp was built without its RPC backend; run: {libraries.INSTALL_HINT}")
    silent = unreachable(servers)
    if silent:
        host, port = silent[0].rsplit(":", 1)
        raise QuantplanError(f"no RPC server answers at {silent[0]}; start one there: {SERVER} -H {host} -p {port}")


def unreachable(servers: Sequence[str]) -> list[str]:
    """Those at which nobody listens."""
    return [server for server in servers if not _listens(server)]


def _listens(server: str) -> bool:
    host, port = server.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), _SECONDS).close()
    except OSError:
        return False
    return True


def devices(servers: Sequence[str]) -> list[int]:
    """Addresses of the ggml devices of all servers, in their order. Ends the process where a server cannot be reached."""
    lib, pointers = base(), []
    for server in servers:
        registered = libraries.load("ggml-rpc").ggml_backend_rpc_add_server(server.encode())
        count = lib.ggml_backend_reg_dev_count(registered) if registered else 0
        pointers += [lib.ggml_backend_reg_dev_get(registered, index) for index in range(count)]
    if not pointers:
        raise QuantplanError(f"{Execution(rpc=tuple(servers)).backend} offers no device; start {SERVER} with --device")
    return pointers


def rounds_like_the_cpu(servers: Sequence[str]) -> bool:
    """Whether every device rounds activations to 8 bits in the blocks that ggml's CPU kernels have.

    A device does not say over RPC what it is, so it is made to multiply: the product must be the one with rounded
    activations, not the one with exact activations or those of other blocks.
    """
    return all(device_rounds_like_the_cpu(device, kind) for device in devices(servers) for kind in ("Q4_K", "Q8_0"))


def device_rounds_like_the_cpu(device: int, type_name: str) -> bool:
    kind, random = BY_NAME[type_name], np.random.default_rng(0)
    # outliers of many sizes: blocks of 32 and of 256 columns then round very differently
    inputs = (random.standard_normal((_TOKENS, _COLUMNS)) * random.lognormal(0, 1, _COLUMNS)).astype(np.float32)
    stored = ggml.quantize(random.standard_normal((_ROWS, _COLUMNS)).astype(np.float32), kind)
    weights = ggml.dequantize(stored, kind, _COLUMNS).astype(np.float64)
    computed = product(device, kind, stored, inputs)
    exact, rounded = inputs @ weights.T, ggml.quantize_activations(inputs, ggml.activation_type(kind)) @ weights.T
    return bool(np.linalg.norm(computed - rounded) < _SAME * np.linalg.norm(exact - rounded))


def product(device: int, kind: QuantType, stored: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """float32 [tokens, rows]: weights, uint8 [rows, row bytes], times inputs, float32 [tokens, columns], on the device."""
    with ExitStack() as opened:
        return _product(opened, device, kind, stored, inputs)


def _product(opened: ExitStack, device: int, kind: QuantType, stored: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    lib, columns = base(), inputs.shape[1]
    backend = lib.ggml_backend_dev_init(device, None)
    opened.callback(lib.ggml_backend_free, backend)
    room = 16 * lib.ggml_tensor_overhead() + lib.ggml_graph_overhead()
    context = lib.ggml_init(ContextParams(room, None, True))
    opened.callback(lib.ggml_free, context)
    shape = ctypes.c_int64 * 2
    weights = lib.ggml_new_tensor(context, kind.ggml_id, 2, shape(columns, len(stored)))
    values = lib.ggml_new_tensor(context, F32, 2, shape(columns, len(inputs)))
    node = lib.ggml_mul_mat(context, weights, values)
    graph = lib.ggml_new_graph(context)
    lib.ggml_build_forward_expand(graph, node)
    buffer = lib.ggml_backend_alloc_ctx_tensors(context, backend)
    opened.callback(lib.ggml_backend_buffer_free, buffer)
    for tensor, data in ((weights, stored), (values, inputs)):
        lib.ggml_backend_tensor_set(tensor, np.ascontiguousarray(data).ctypes.data, 0, data.nbytes)
    if lib.ggml_backend_graph_compute(backend, graph) != 0:
        raise QuantplanError(f"an RPC server could not multiply {kind} weights; which build of llama.cpp does it run?")
    out = np.empty((len(inputs), len(stored)), np.float32)
    lib.ggml_backend_tensor_get(node, out.ctypes.data, 0, out.nbytes)
    return out
