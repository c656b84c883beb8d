"""What the backend's kernels add: they quantize activations to 8 bits before multiplying them with quantized weights.

The activation type (ggml: ``vec_dot_type``) of K- and IQ-types is Q8_K on the CPU (blocks of 256), that of Q8_0, Q5_0, Q4_0,
IQ4_NL and their like Q8_0 (blocks of 32). The error at the output of a matrix, relative to its energy, is as that of quantized
weights, with the roles exchanged:

    r(t, a) = sum_j c_j (x - x')_j^2 / sum_j c_j x_j^2        c_j = sum_i W_ij^2,  a: the activation type

and it costs as much: KLD = scale(t) * r(t, a). Measured on real activations of the calibration text.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from quantplan.execution import Execution
from quantplan.gguf.reader import tensor_rows
from quantplan.llamacpp import ggml, rpc
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.nodes import node_rows
from quantplan.llamacpp.signatures import GgmlTensor
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import BY_NAME
from quantplan.records.cache import Cache
from quantplan.sensitivity.probe_text import chunk_order
from quantplan.tensor import Model, Tensor
from quantplan.text import Text

VERSION = 2  # 2: more chunks; 1: first
_ACTIVATION_TYPES = (8, 9, 15)  # ggml's numbers of Q8_0, Q8_1 and Q8_K
_ROWS = 1024  # activations per tensor, spread over the chunks: outliers come in few of them
_ROWS_AT_ONCE = 128
_WEIGHT_ROWS = 2048
_CHUNKS = 16
_LIKE_CPU = "rounds like the cpu"


@dataclass(frozen=True)
class ActivationQuantization:
    """``relative[tensor][activation type]``: relative squared error; tensors that no activations meet are absent."""

    backend: str
    relative: dict[str, dict[int, float]]

    def of(self, tensor: str, type_name: str) -> float:
        """Relative error for a weight type; 0 where the kernels take the activations as they are."""
        return self.relative.get(tensor, {}).get(ggml.activation_type(BY_NAME[type_name]), 0.0)


def activation_quantization(
    model: Model,
    tensors: tuple[Tensor, ...],
    text: Text,
    n_ctx: int,
    execution: Execution,
    results: Cache[Any],
) -> ActivationQuantization:
    """Measures r of all tensors that are multiplied with activations, or takes it from the cache."""
    if "relative" not in results:
        results.put("relative", _measured(model, tensors, text, EngineOptions(n_ctx, execution)))
    stored = results["relative"]
    return ActivationQuantization(
        execution.backend,
        {name: {int(number): error for number, error in errors.items()} for name, errors in stored.items()},
    )


def on_servers(
    model: Model,
    tensors: tuple[Tensor, ...],
    text: Text,
    n_ctx: int,
    execution: Execution,
    results: Cache[Any],
    report: Reporter = SILENT,
) -> ActivationQuantization | None:
    """The same on RPC servers; None where a device quantizes otherwise than ggml's CPU kernels do."""
    if _LIKE_CPU not in results:
        results.put(_LIKE_CPU, rpc.rounds_like_the_cpu(execution.rpc))
    if not results[_LIKE_CPU]:
        return None
    return activation_quantization(model, tensors, text, n_ctx, execution, results)


def known(results: Cache[Any]) -> bool:
    """Whether ``on_servers`` would ask the servers nothing."""
    return results.get(_LIKE_CPU) is False or "relative" in results


def _measured(
    model: Model, tensors: tuple[Tensor, ...], text: Text, options: EngineOptions
) -> dict[str, dict[int, float]]:
    by_name = {tensor.name: tensor for tensor in tensors}
    energies: dict[str, np.ndarray] = {}
    sums: dict[str, np.ndarray] = {}
    seen: dict[str, int] = {}

    def watch(node: GgmlTensor, ask: bool) -> bool:
        weight = node.src[0].contents if node.src[0] else None
        name = weight.name.decode("utf-8", "replace") if weight else ""
        if name not in by_name or not node.src[1] or not _is_product(node) or seen.get(name, 0) >= _ROWS:
            return False
        if ask:
            return True
        rows = node_rows(node.src[1].contents)
        rows = rows[:: max(1, len(rows) // _ROWS_AT_ONCE)][:_ROWS_AT_ONCE]
        if name not in energies:
            energies[name] = column_energy(model, by_name[name])
        sums[name] = sums.get(name, 0) + _error_sums(rows, energies[name])
        seen[name] = seen.get(name, 0) + len(rows)
        return True

    with Engine(model, options, watch=watch) as engine:
        chunks = engine.chunks(text)
        for _ in engine.logits(chunks[chunk_order(len(chunks))[:_CHUNKS]]):
            pass
    return {
        name: dict(zip(_ACTIVATION_TYPES, (total[1:] / total[0]).tolist(), strict=True))
        for name, total in sums.items()
        if total[0] > 0
    }


def _is_product(node: GgmlTensor) -> bool:
    """Whether the node multiplies a matrix: its input has as many columns as the weights, is float32 and not empty."""
    weights, inputs = node.src[0].contents, node.src[1].contents
    fits = inputs.ne[0] == weights.ne[0] and node.ne[0] == weights.ne[1]
    return inputs.type == 0 and fits and inputs.ne[1] * inputs.ne[2] * inputs.ne[3] > 0


def column_energy(model: Model, tensor: Tensor) -> np.ndarray:
    rows = np.linspace(0, tensor.rows - 1, min(tensor.rows, _WEIGHT_ROWS)).astype(int)
    return np.einsum("ij,ij->j", *(2 * [tensor_rows(model, tensor, rows)]))


def _error_sums(rows: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """float64 [1 + activation types]: weighted energy of the activations, then of the error for each type."""
    errors = [ggml.quantize_activations(rows, number) - rows for number in _ACTIVATION_TYPES]
    return np.array([float((values**2 @ energy).sum()) for values in (rows, *errors)])
