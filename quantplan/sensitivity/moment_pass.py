"""One pass over the text: the nodes that are watched, and the sums that their inputs go into."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg.blas import ssyrk

from quantplan.errors import QuantplanError
from quantplan.llamacpp.nodes import node_op, node_rows, node_values
from quantplan.llamacpp.signatures import GgmlTensor
from quantplan.sensitivity import moment_files
from quantplan.sensitivity.matrix_inputs import Graph, input_rows, is_product, name_of, weight_name
from quantplan.tensor import Model

_JOINED_ROWS = 512  # arrays of fewer rows are joined first: ssyrk is slow on few


class MomentSums:
    """Sum of x x^T over inputs x; ``tokens`` of them. Rows wait until ``flush``, so that ssyrk gets many at once."""

    def __init__(self, columns: int) -> None:
        # Fortran order, upper triangle: what ssyrk adds to in place
        self._sums = np.zeros((columns, columns), np.float32, order="F")
        self._waiting: list[np.ndarray] = []
        self.tokens = 0

    def add(self, rows: np.ndarray) -> int:
        """Takes float32 [rows, columns] over, C order; returns its bytes."""
        self._waiting.append(rows)
        self.tokens += len(rows)
        return rows.nbytes

    def flush(self) -> None:
        """Adds all that waits. NaN and infinity reach the diagonal, wherever they are."""
        for rows in _joined(self._waiting):
            self._sums = ssyrk(1.0, rows.T, beta=1.0, c=self._sums, overwrite_c=1)
        self._waiting.clear()

    @property
    def diagonal(self) -> np.ndarray:
        """float32 [columns]: sum of x_j^2."""
        return self._sums.diagonal()

    @property
    def lower(self) -> np.ndarray:
        """float32 [columns, columns], C order; only the lower triangle is filled."""
        return self._sums.T


class DiagonalSums:
    """Sum of x_j^2 alone, for matrices that are never quantized."""

    lower = None

    def __init__(self, columns: int) -> None:
        self._sums = np.zeros(columns)
        self.tokens = 0

    def add(self, rows: np.ndarray) -> int:
        self._sums += np.einsum("ij,ij->j", rows, rows)
        self.tokens += len(rows)
        return 0

    def flush(self) -> None:
        """Nothing waits."""

    @property
    def diagonal(self) -> np.ndarray:
        return self._sums.astype(np.float32)


def _joined(arrays: list[np.ndarray]) -> list[np.ndarray]:
    joined: list[np.ndarray] = []
    small: list[np.ndarray] = []
    for rows in arrays:
        if len(rows) >= _JOINED_ROWS:
            joined.append(rows)
            continue
        small.append(rows)
        if sum(map(len, small)) >= _JOINED_ROWS:
            joined.append(np.concatenate(small))
            small = []
    return joined + ([np.concatenate(small)] if small else [])


@dataclass(frozen=True)
class Sum:
    """The unit of work: the sum of one input (by its number), for one matrix of a stack; ``full`` or the diagonal only."""

    number: int
    expert: int
    columns: int
    full: bool

    @property
    def bytes(self) -> int:
        return 4 * self.columns * self.columns if self.full else 8 * self.columns


class MomentPass:
    """Sums of one pass over the text, and the watching of nodes that fills them."""

    def __init__(self, model: Model, graph: Graph, sums: list[Sum], waiting: int) -> None:
        self._model, self._graph, self._limit, self._waiting = model, graph, waiting, 0
        try:
            self._sums = {
                (each.number, each.expert): (MomentSums if each.full else DiagonalSums)(each.columns) for each in sums
            }
        except MemoryError:
            total = sum(each.bytes for each in sums)
            raise QuantplanError(f"no memory for {total:,} bytes of second moments; allow less with --memory") from None
        self._number = {graph.inputs[each.number].watched: each.number for each in sums}
        self._last = max(self._number, key=lambda name: self._number[name])
        self._stop_node = graph.stop_at.get(self._last)
        self._stopped = False

    def watch(self, node: GgmlTensor, ask: bool) -> bool:
        """llama.cpp's question whether a node's values are needed, and their delivery; False then ends the graph."""
        if self._stopped:
            if not ask or name_of(node) != self._graph.first_node:
                return ask  # one node of each further part of the graph, and no more
            self._stopped = False
        if self._stop_node is not None and name_of(node) == self._stop_node:
            if not ask:
                self._stopped = True
                self._add(self._number[self._last], 0, node_rows(node))
            return ask
        number = self._number.get(weight_name(node))
        if number is None or not is_product(node):
            return False
        if not ask:
            self._read(number, node)
            self._stopped = self._graph.inputs[number].watched == self._last and self._last in self._graph.stop_after
        return ask or not self._stopped

    def _read(self, number: int, node: GgmlTensor) -> None:
        if node_op(node) == "MUL_MAT_ID":
            for expert, part in enumerate(_routed_rows(node, self._graph.inputs[number].stack)):
                self._add(number, expert, part)
            return
        rows = input_rows(node)
        for expert, part in enumerate(rows if isinstance(rows, list) else [rows]):
            self._add(number, expert, part)

    def _add(self, number: int, expert: int, rows: np.ndarray) -> None:
        if (number, expert) in self._sums and len(rows):
            self._waiting += self._sums[number, expert].add(rows)
        if self._waiting > self._limit:
            self.flush()

    def flush(self) -> None:
        """Sums all that waits. Between decodes, where ggml's threads do not wait for it, this is fastest."""
        self._waiting = 0
        for (number, _), sums in self._sums.items():
            sums.flush()
            finite = np.isfinite(sums.diagonal)
            if not finite.all():
                raise QuantplanError(
                    f"{self._model.path}: the inputs of {self._graph.inputs[number].watched} are NaN or infinite on this "
                    f"text, first in column {int(finite.argmin())}; the file may be corrupt (F16 can overflow: try BF16)"
                )

    def finish(self, folder: Path, tokens: int) -> None:
        """Writes the sums of ``tokens`` tokens; QuantplanError where inputs were missed."""
        self.flush()
        for (number, expert), sums in list(self._sums.items()):
            each = self._graph.inputs[number]
            if not each.routed and sums.tokens != round(each.rows_per_token * tokens):
                raise QuantplanError(
                    f"{self._model.path}: {sums.tokens:,} inputs of {each.watched} were seen, "
                    f"{round(each.rows_per_token * tokens):,} expected: its graph changes with the batch, "
                    "which is not supported; use --rounding stock"
                )
            path = moment_files.sums_path(folder, number, expert, sums.lower is not None)
            moment_files.write_sums(path, sums.tokens, sums.diagonal, sums.lower)
            del self._sums[number, expert]


def _routed_rows(node: GgmlTensor, experts: int) -> list[np.ndarray]:
    """For each expert float32 [tokens, columns]: the inputs routed to it by MUL_MAT_ID's third source."""
    ids = node_values(node.src[2].contents)[0, 0]  # [tokens, experts used]
    values = node_values(node.src[1].contents)[0]  # [tokens, 1 or experts used, columns]
    order = np.argsort(ids, axis=None, kind="stable")
    ends = np.searchsorted(ids.ravel()[order], np.arange(experts), side="right")
    token, slot = np.divmod(order, ids.shape[1])
    return [
        values[token[start:end], slot[start:end] % values.shape[1]]
        for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)
    ]
