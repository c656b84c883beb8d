"""Matrix products in a ggml graph, timed: what one costs inside a forward pass, kernels and barriers included.

A graph of nothing but products of one type and shape runs through ggml's own scheduler, its weights in the buffer
that llama.cpp would load them into (repacked where it repacks). Per-node timing in a real graph would cost more
than a small product does: starting a graph of one node takes longer than 65,000 weights.
"""

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import numpy as np

from quantplan.devices.speed.table import Shape
from quantplan.errors import BadUsage, QuantplanError
from quantplan.execution import cores
from quantplan.llamacpp import ggml
from quantplan.llamacpp.libraries import base, captured_log, cpu, load
from quantplan.llamacpp.signatures import F32, I32, ContextParams, ExtraBufferTypes, GgmlTensor
from quantplan.quant_type import QuantType

MATRIX_BYTES = 64 << 20  # of one matrix, or stack of experts: larger ones are measured on fewer rows
_LEAST_ROWS = 256  # fewer rows than that no longer fill the kernels' tiles
PASS_BYTES = 32 << 20  # weights read by one run of a graph of few tokens: starting it takes some microseconds
PASS_PRODUCTS = 2 << 30  # multiplications in one run of a graph of many tokens, 10 to 50 ms on two cores
_MOST_NODES = 4096
LEAST_RUNS, MOST_RUNS, SECONDS = 5, 50, 0.15
_TILE_WEIGHTS = 1 << 16  # random weights that are encoded (IQ1_S: 2 s); a matrix repeats them
CPU, GPU, ACCEL = 0, 1, 3  # enum ggml_backend_dev_type, ggml-backend.h
_WEIGHTS = 1  # GGML_BACKEND_BUFFER_USAGE_WEIGHTS


@dataclass(frozen=True)
class ProductTiming:
    """Nanoseconds of one product (all tokens of the batch, active experts) and their error."""

    ns: float
    stderr: float
    runs: int


@dataclass(frozen=True)
class Load:
    """How products are run: ``tokens`` at once, weights of ``working_set`` bytes visited in turn."""

    tokens: int
    working_set: int
    threads: int
    gpu: bool = False


def measured_shape(quant_type: QuantType, shape: Shape, tokens: int) -> Shape:
    """The shape that stands for ``shape``: rows are left out of matrices too large to be timed in a moment.

    Time per weight no longer depends on rows once there are some hundreds; columns and experts stay as they are
    unless one row of each expert is too much already.
    """
    room = min(
        MATRIX_BYTES // (quant_type.row_bytes(shape.columns) * shape.experts),
        4 * PASS_PRODUCTS // (shape.columns * shape.used * tokens),
    )
    rows = min(shape.rows, max(room // 32 * 32, _LEAST_ROWS))
    most = max(shape.used, 16 * MATRIX_BYTES // (quant_type.row_bytes(shape.columns) * rows))
    return Shape(shape.columns, rows, min(shape.experts, most), shape.used)


def time_product(quant_type: QuantType, shape: Shape, load: Load) -> ProductTiming:
    """Time of one product over runs of a graph of many; QuantplanError where ggml cannot run it."""
    with captured_log(), _Graph(quant_type, shape, load) as graph:  # one line for each repacked matrix
        samples = [taken / graph.nodes for taken in _samples(graph)]
    return undisturbed(samples)


def undisturbed(samples: Sequence[float]) -> ProductTiming:
    """The lower quartile of durations: other programs only ever add to some. Its error is how far the median lies above it."""
    quartile, median = np.percentile(samples, (25, 50))
    return ProductTiming(float(quartile), float(median - quartile), len(samples))


def _samples(graph: "_Graph") -> Iterator[int]:
    graph.run()
    spent, runs = 0, 0
    while runs < LEAST_RUNS or (runs < MOST_RUNS and spent < SECONDS * 1e9):
        began = time.perf_counter_ns()
        graph.run()
        taken = time.perf_counter_ns() - began
        spent, runs = spent + taken, runs + 1
        yield taken


@cache
def encoded_tile(quant_type: QuantType, columns: int) -> np.ndarray:
    """uint8 [some rows, row bytes]: normal random weights of variance 1/columns; a matrix is made by repeating them."""
    rows = max(1, _TILE_WEIGHTS // columns)
    weights = np.random.default_rng(0).standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(columns))
    importance = np.ones((1, columns), np.float32) if ggml.aborts_without_imatrix(quant_type) else None
    return ggml.quantize(weights, quant_type, importance)


def encoded_rows(quant_type: QuantType, rows: int, columns: int) -> np.ndarray:
    """uint8 [rows, row bytes] of repeated random rows."""
    tile = encoded_tile(quant_type, columns)
    return np.tile(tile, (-(-rows // len(tile)), 1))[:rows]


# --- ggml


def devices_of_type(device_type: int) -> list[int]:
    cpu()  # llama.cpp's own order: the CPU's backend is there before devices are counted
    registry = load("ggml")
    devices = [registry.ggml_backend_dev_get(index) for index in range(registry.ggml_backend_dev_count())]
    return [device for device in devices if base().ggml_backend_dev_type(device) == device_type]


def device_name(gpu: bool = False) -> str:
    """What ggml calls the processor, or the first GPU; BadUsage where there is none."""
    return base().ggml_backend_dev_description(_device(gpu)).decode("utf-8", "replace").strip()


def _device(gpu: bool) -> int:
    devices = devices_of_type(GPU if gpu else CPU)
    if not devices:
        raise BadUsage("--gpu-layers: the installed llama.cpp sees no GPU; leave the option out")
    return devices[0]


def _extra_buffer_types(device: int) -> Iterator[int]:
    """The CPU's buffer types that repack weights, in llama.cpp's order (``make_cpu_buft_list``, llama-model.cpp)."""
    lib = base()
    address = lib.ggml_backend_reg_get_proc_address(
        lib.ggml_backend_dev_backend_reg(device), b"ggml_backend_dev_get_extra_bufts"
    )
    if not address:
        return
    types = ExtraBufferTypes(address)(device)
    index = 0
    while types and types[index]:
        yield types[index]
        index += 1


class _Graph:
    """A graph of products over distinct matrices, ready to run. Use as a context manager."""

    def __init__(self, quant_type: QuantType, shape: Shape, load: Load) -> None:
        self.quant_type, self.shape, self.load = quant_type, shape, load
        size = quant_type.row_bytes(shape.columns) * shape.rows
        self.matrices = max(1, min(load.working_set // (size * shape.experts), _MOST_NODES))
        active = size * shape.used if load.tokens == 1 else 0
        products = shape.active * load.tokens
        products_in_run = PASS_BYTES // active if active else PASS_PRODUCTS // products
        if load.tokens > 1:
            self.matrices = max(1, min(self.matrices, products_in_run))
        self.nodes = min(_MOST_NODES, -(-max(products_in_run, 1) // self.matrices) * self.matrices)
        self._opened = ExitStack()

    def __enter__(self) -> "_Graph":
        try:
            self._build()
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def run(self) -> None:
        status = base().ggml_backend_sched_graph_compute(self._scheduler, self._graph)
        if status != 0:
            raise QuantplanError(f"ggml could not multiply {self.quant_type} {self.shape} (status {status})")

    # -- building --------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        lib, shape, tokens = base(), self.shape, self.load.tokens
        device = _device(self.load.gpu)
        self._scheduler = self._new_scheduler(device)
        room = self._graph_size * lib.ggml_tensor_overhead()
        graphs = lib.ggml_graph_overhead_custom(self._graph_size, False)
        weights, values, nodes = (self._context(size) for size in (room, room, room + graphs))
        stack = (shape.columns, shape.rows, shape.experts) if shape.experts > 1 else (shape.columns, shape.rows)
        matrices = [self._tensor(weights, self.quant_type.ggml_id, stack) for _ in range(self.matrices)]
        # the input of all experts of a token is the same, as it is for ffn_gate_exps and ffn_up_exps
        inputs = self._tensor(values, F32, (shape.columns, 1, tokens) if shape.experts > 1 else (shape.columns, tokens))
        outputs = self._tensor(values, F32, (shape.rows, shape.used, tokens))
        chosen = [self._tensor(values, I32, (shape.used, tokens)) for _ in range(self._choices)]
        self._allocate(weights, self._buffer_type(device, matrices[0], inputs, chosen), _WEIGHTS)
        self._allocate(values, lib.ggml_backend_dev_buffer_type(device))
        self._fill(matrices, inputs, chosen)
        self._graph = lib.ggml_new_graph_custom(nodes, self._graph_size, False)
        target = ctypes.cast(outputs, ctypes.POINTER(GgmlTensor)).contents
        for index in range(self.nodes):
            node = self._product(nodes, matrices[index % self.matrices], inputs, chosen, index)
            lib.ggml_backend_tensor_alloc(target.buffer, node, target.data)  # all write to one place: nobody reads
            lib.ggml_build_forward_expand(self._graph, node)
        if not lib.ggml_backend_sched_alloc_graph(self._scheduler, self._graph):
            raise QuantplanError(
                f"no memory to multiply {self.quant_type} {self.shape}; end other programs or use fewer types"
            )

    @property
    def _graph_size(self) -> int:
        return self.nodes + self.matrices + self._choices + 8

    @property
    def _choices(self) -> int:
        return min(self.nodes, 64) if self.shape.experts > 1 else 0

    def _product(self, context: int, matrix: int, inputs: int, chosen: list[int], index: int) -> int:
        if chosen:
            return base().ggml_mul_mat_id(context, matrix, inputs, chosen[index % len(chosen)])
        return base().ggml_mul_mat(context, matrix, inputs)

    def _context(self, size: int) -> int:
        context = base().ggml_init(ContextParams(size, None, True))
        self._opened.callback(base().ggml_free, context)
        return context

    @staticmethod
    def _tensor(context: int, ggml_id: int, shape: tuple[int, ...]) -> int:
        return base().ggml_new_tensor(context, ggml_id, len(shape), (ctypes.c_int64 * len(shape))(*shape))

    def _new_scheduler(self, device: int) -> int:
        """GPU, accelerators, CPU: llama.cpp's order."""
        lib, processor = base(), devices_of_type(CPU)[0]
        devices = ([device] if device != processor else []) + devices_of_type(ACCEL) + [processor]
        backends = [lib.ggml_backend_dev_init(device, None) for device in devices]
        for backend in backends:
            self._opened.callback(lib.ggml_backend_free, backend)
        cpu().ggml_backend_cpu_set_n_threads(backends[-1], self.load.threads or cores())
        array = (ctypes.c_void_p * len(backends))(*backends)
        scheduler = lib.ggml_backend_sched_new(array, None, len(backends), self._graph_size, False, True)
        self._opened.callback(lib.ggml_backend_sched_free, scheduler)
        return scheduler

    def _buffer_type(self, device: int, matrix: int, inputs: int, chosen: list[int]) -> int:
        """The first buffer type whose device can multiply from it, as ``weight_buft_supported`` chooses it
        (llama-model-loader.cpp)."""
        lib = base()
        if self.load.gpu:
            return lib.ggml_backend_dev_buffer_type(device)
        view = ctypes.cast(matrix, ctypes.POINTER(GgmlTensor)).contents
        product = self._product(self._context(8 * lib.ggml_tensor_overhead()), matrix, inputs, chosen, 0)
        for buffer_type in _extra_buffer_types(device):
            empty = lib.ggml_backend_buft_alloc_buffer(buffer_type, 0)
            view.buffer = empty
            supported = lib.ggml_backend_dev_supports_op(device, product)
            view.buffer = None
            lib.ggml_backend_buffer_free(empty)
            if supported:
                return buffer_type
        return lib.ggml_backend_dev_buffer_type(device)

    def _allocate(self, context: int, buffer_type: int, usage: int = 0) -> None:
        buffer = base().ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type)
        if not buffer:
            raise QuantplanError(
                f"no memory to multiply {self.quant_type} {self.shape}; end other programs and run again"
            )
        self._opened.callback(base().ggml_backend_buffer_free, buffer)
        base().ggml_backend_buffer_set_usage(buffer, usage)

    def _fill(self, matrices: list[int], inputs: int, chosen: list[int]) -> None:
        lib, shape, random = base(), self.shape, np.random.default_rng(1)
        data = encoded_rows(self.quant_type, shape.rows * shape.experts, shape.columns)
        for matrix in matrices:
            lib.ggml_backend_tensor_set(matrix, data.ctypes.data, 0, data.nbytes)
        values = random.standard_normal((self.load.tokens, shape.columns), np.float32)
        lib.ggml_backend_tensor_set(inputs, values.ctypes.data, 0, values.nbytes)
        for chosen_experts in chosen:
            ranks = random.random((self.load.tokens, shape.experts)).argsort(axis=1)[:, : shape.used]
            experts = np.ascontiguousarray(ranks, np.int32)
            lib.ggml_backend_tensor_set(chosen_experts, experts.ctypes.data, 0, experts.nbytes)
