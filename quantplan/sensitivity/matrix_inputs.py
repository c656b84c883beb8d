"""The distinct matrix inputs of a loaded model: which activations each weight matrix is multiplied with.

Found by watching the nodes of one short decode. Matrices that are multiplied with the very same tensor of the graph (attn_q,
attn_k and attn_v) share an input.
"""

import ctypes
import re
from collections import Counter
from dataclasses import dataclass
from math import prod

import numpy as np

from quantplan.errors import NothingSelected
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.nodes import node_op, node_rows, node_values
from quantplan.llamacpp.signatures import GgmlTensor
from quantplan.tensor import Model

_TOKENS = 32  # of the short decode: enough for kernels made for many tokens
_F32 = 0  # ggml's number
_COPY = re.compile(r"^[^#]*#(.*)#\d+$")  # a copy made for another device: CUDA0#blk.0.attn_q.weight#0


@dataclass(frozen=True)
class MatrixInput:
    """An input of matrices, by the names of those that share it, in the order of the graph.

    ``stack``: matrices stacked in each of them, 1 for plain ones; ``routed``: a router chooses among them; ``rows_per_token``:
    inputs that each matrix of the stack sees per token (routed: those of all experts together), 0 for embeddings that are
    looked up (embedding_metric.py).
    """

    tensors: tuple[str, ...]
    columns: int
    stack: int
    routed: bool
    rows_per_token: float

    @property
    def watched(self) -> str:
        """The matrix whose node is watched: at its node the input is still in memory."""
        return self.tensors[0]

    @property
    def looked_up(self) -> bool:
        """Whether these are embeddings that nothing is multiplied with; their metric is made of weights, not of inputs."""
        return self.rows_per_token == 0


@dataclass(frozen=True)
class Graph:
    """The inputs in the order of evaluation, and where evaluation may stop when no later input is needed.

    ``stop_at``: watched matrix -> the node that computes its input, where no other input is read between the two: stopping
    there spares the product (that of the output matrix is a large part of all). ``stop_after``: watched matrices that are
    multiplied once. Both are empty where several devices share the work: what runs on another one cannot be stopped.
    """

    inputs: tuple[MatrixInput, ...]
    stop_at: dict[str, str]
    stop_after: frozenset[str]
    first_node: str


def read_graph(engine: Engine, model: Model) -> Graph:
    """Watches one decode. NothingSelected where no matrix of the model is multiplied with anything."""
    survey = _Survey(model)
    tokens = min(engine.options.n_ctx, _TOKENS)
    context = engine.new_context(tokens, 1, survey)
    try:
        engine.forward(context, np.zeros((1, tokens), np.int32))
    finally:
        engine.free_context(context)
    inputs = survey.inputs(tokens)
    if not inputs:
        raise NothingSelected(
            f"{model.path}: no matrix of this model takes part in a forward pass; is it a language model?"
        )
    stops = [] if survey.several_devices else [each for each in inputs if survey.used_once(each)]
    stop_at = {each.watched: source for each in stops if (source := survey.source(each))}
    return Graph(inputs, stop_at, frozenset(each.watched for each in stops), survey.first_node)


def weight_name(node: GgmlTensor) -> str:
    """Name of the node's weights, whatever device a copy of them lies on."""
    name = name_of(node.src[0].contents) if node.src[0] else ""
    match = _COPY.match(name)
    return match.group(1) if match else name


def name_of(node: GgmlTensor) -> str:
    return node.name.decode("utf-8", "replace")


def input_rows(node: GgmlTensor) -> np.ndarray | list[np.ndarray]:
    """Inputs of a MUL_MAT: float32 [rows, columns], or a list of one array for each matrix of the stack."""
    weights, inputs = node.src[0].contents, node.src[1].contents
    stack = weights.ne[2]
    if stack == 1:
        return node_rows(inputs)
    values = node_values(inputs)  # [1, heads, tokens, columns]; ggml repeats each matrix for heads/stack of them
    repeats = inputs.ne[2] // stack
    return [values[:, index * repeats : (index + 1) * repeats].reshape(-1, inputs.ne[0]) for index in range(stack)]


class _Survey:
    """Notes all uses of weights in one graph."""

    def __init__(self, model: Model) -> None:
        self._names = {tensor.name for tensor in model.tensors}
        self._uses: dict[str, list[tuple[int, ...]]] = {}  # matrix -> addresses of what it is multiplied with
        self._shapes: dict[str, tuple[int, int, bool]] = {}
        self._rows: Counter[str] = Counter()
        self._sources: dict[str, str] = {}
        self._nodes: list[str] = []
        self._products: dict[int, str] = {}  # place in the graph -> matrix
        self.first_node = ""
        self.several_devices = False

    def __call__(self, node: GgmlTensor, ask: bool) -> bool:
        self.first_node = self.first_node or name_of(node)
        self._nodes.append(name_of(node))
        self.several_devices |= any(_COPY.match(name_of(source.contents)) for source in node.src if source)
        weight = weight_name(node)
        if weight in self._names and is_product(node):
            self._note(weight, node)
        return False

    def _note(self, weight: str, node: GgmlTensor) -> None:
        weights, inputs, routed = node.src[0].contents, node.src[1].contents, node_op(node) == "MUL_MAT_ID"
        sources = [node.src[index].contents for index in ((1, 2) if routed else (1,))]
        self._uses.setdefault(weight, []).append(tuple(map(ctypes.addressof, sources)))
        self._shapes[weight] = (weights.ne[0], weights.ne[2], routed)
        self._rows[weight] += prod(sources[-1].ne[:2]) if routed else prod(inputs.ne[1:]) // weights.ne[2]
        self._sources[weight] = name_of(inputs)
        self._products[len(self._nodes) - 1] = weight

    def inputs(self, tokens: int) -> tuple[MatrixInput, ...]:
        groups: dict[tuple[object, ...], list[str]] = {}
        for weight, uses in self._uses.items():
            groups.setdefault((*uses, self._shapes[weight]), []).append(weight)
        return tuple(
            MatrixInput(tuple(names), *self._shapes[names[0]], self._rows[names[0]] / tokens)
            for names in groups.values()
        )

    def used_once(self, matrix_input: MatrixInput) -> bool:
        return len(self._uses[matrix_input.watched]) == 1

    def source(self, matrix_input: MatrixInput) -> str | None:
        """Name of the node that computes a plain matrix's input; None where it may not be stopped at."""
        source = self._sources[matrix_input.watched]
        if matrix_input.stack > 1 or matrix_input.routed or self._nodes.count(source) != 1:
            return None
        between = (weight for place, weight in self._products.items() if place > self._nodes.index(source))
        return source if next(between) == matrix_input.watched else None


def is_product(node: GgmlTensor) -> bool:
    """Whether the node multiplies a matrix, or a stack of them, with float32 inputs."""
    if node_op(node) not in ("MUL_MAT", "MUL_MAT_ID") or not node.src[1]:
        return False
    weights, inputs = node.src[0].contents, node.src[1].contents
    if inputs.type != _F32 or inputs.ne[0] != weights.ne[0] or weights.ne[3] != 1:
        return False
    return node_op(node) == "MUL_MAT_ID" or inputs.ne[2] % weights.ne[2] == 0
