"""Errors of rounded tensors in the metric of their inputs' second moments, and rounding that is compensated in it.

    e(t, q, r) = tr(D H D^T) / tr(W H W^T),    D = W - Q,    H = E[x x^T]

the relative energy of the output error on the calibration text. Matrices that are stacked in one tensor (experts, heads of
MLA) have inputs of their own and are taken one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantplan.errors import BadFile
from quantplan.gguf.reader import tensor_rows
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType
from quantplan.rounding.compensate import RoundingOptions, compensate
from quantplan.rounding.feedback import row_energies
from quantplan.rounding.layouts import can_compensate, column_group
from quantplan.rounding.metric import Metric, prepare
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.round_trip import ratio_of_sums, spread
from quantplan.tensor import Model, Tensor

VERSION = 3  # 3: embeddings that are looked up; 2: fewer rows are sampled; 1: first
# Compensated rounding costs some ten times ggml's for each weight, and rows are alike: 64 leave 2 to 4 % for a tensor
_SAMPLE_SHARE, _LEAST_ROWS = 32, 64
_MOST_MATRICES, _LEAST_MATRIX_ROWS = 8, 16  # of a stack


@dataclass(frozen=True)
class MetricErrors:
    """Relative output errors of one tensor by type: ``stock`` of ggml's encoder, ``compensated`` where that is possible.

    ``sampling``: standard error that sampling rows leaves, by type; ``rows``: rows that were measured.
    """

    tensor: str
    stock: dict[str, float]
    compensated: dict[str, float]
    sampling: dict[str, float]
    rows: int


def of_estimate(threads: int) -> RoundingOptions:
    """Rounding as it is estimated: with one sweep errors of all types are 3 to 9 % higher than with three, by 1 to 2 % from
    tensor to tensor, and take half the time.
    """
    return RoundingOptions(sweeps=1, threads=threads)


class _RowErrors:
    """Row by row, what was measured of a tensor."""

    def __init__(self, tensor: Tensor, types: tuple[QuantType, ...]) -> None:
        self.tensor = tensor
        self.energies: list[np.ndarray] = []
        self.stock: dict[str, list[np.ndarray]] = {kind.name: [] for kind in types}
        self.compensated: dict[str, list[np.ndarray]] = {kind.name: [] for kind in types if can_compensate(kind)}

    def add(self, kind: QuantType, compensated: np.ndarray, stock: np.ndarray) -> None:
        """x H x^T of the errors of more rows, float64 each."""
        self.stock[kind.name].append(stock)
        if kind.name in self.compensated:
            self.compensated[kind.name].append(compensated)

    def ratios(self) -> MetricErrors:
        """Of all rows; without a type whose errors are not finite (F16 ends at 65504)."""
        if not self.energies:
            return MetricErrors(self.tensor.name, {}, {}, {}, 0)
        energy, rows = np.concatenate(self.energies), self.tensor.rows
        ratios = {
            name: ratio_of_sums(np.concatenate(parts), energy, rows)
            for name, parts in self.stock.items()
            if all(np.isfinite(part).all() for part in parts)
        }
        return MetricErrors(
            self.tensor.name,
            {name: ratio for name, (ratio, _) in ratios.items()},
            {name: ratio_of_sums(np.concatenate(parts), energy, rows)[0] for name, parts in self.compensated.items()},
            {name: error for name, (_, error) in ratios.items()},
            len(energy),
        )


class MomentMetric:
    """The second moments of one model, factorized as they are asked for: one matrix input in memory at a time."""

    def __init__(self, model: Model, moments: CollectedMoments, options: RoundingOptions | None = None) -> None:
        moments.check_belongs_to(model)
        self.model, self.moments, self.options = model, moments, options or RoundingOptions()
        self._prepared: dict[tuple[str, int], dict[int, Metric]] = {}

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.moments.tensors

    def matrices(self, tensor: Tensor) -> list[slice]:
        """The rows of each matrix that is stacked in the tensor."""
        stack = self.moments.input_of(tensor.name).stack
        rows = tensor.rows // stack
        return [slice(number * rows, (number + 1) * rows) for number in range(stack)]

    def prepared(self, tensor: Tensor, number: int, group: int) -> Metric | None:
        """The factorized second moments of a matrix for a ``column_group``; None where too little text reached it."""
        key = (self.moments.input_of(tensor.name).watched, number)
        if key not in self._prepared:
            self._prepared.clear()
            moments = self.moments.of(tensor.name, number)
            self._prepared[key] = {}
            if not moments.usable:
                return None
            self._prepared[key][group] = self._factorized(moments.matrix, group)
        metrics = self._prepared[key]
        if not metrics:
            return None
        if group not in metrics:
            metrics[group] = self._factorized(next(iter(metrics.values())).hessian, group)
        return metrics[group]

    def _factorized(self, matrix: np.ndarray, group: int) -> Metric:
        return prepare(matrix, self.options.damping, group, self.options.threads)

    def relative_error(self, tensor: Tensor, weights: np.ndarray, changed: np.ndarray) -> float:
        """e of ``changed``; float32 [rows, columns] both. 0 where the tensor gives no output."""
        error = energy = 0.0
        for number, rows in enumerate(self.matrices(tensor)):
            metric = self.prepared(tensor, number, 1)
            if metric is not None:
                error += float(_energies(changed[rows] - weights[rows], metric).sum())
                energy += float(_energies(weights[rows], metric).sum())
        return error / energy if energy > 0 else 0.0

    def rounded(self, tensor: Tensor, weights: np.ndarray, kind: QuantType) -> np.ndarray:
        """float32 [rows, columns]: the weights after rounding to ``kind``, compensated where that is possible."""
        out = np.empty_like(weights)
        for number, rows in enumerate(self.matrices(tensor)):
            metric = self.prepared(tensor, number, column_group(kind)) if can_compensate(kind) else None
            if metric is None:
                blocks = ggml.quantize(weights[rows], kind, self._importance(tensor, number))
            else:
                blocks = compensate(weights[rows], metric, kind, self.options).blocks
            out[rows] = ggml.dequantize(blocks, kind, tensor.columns)
        return out

    def errors(
        self, tensors: Sequence[Tensor], types: tuple[QuantType, ...], sample_elements: int | None
    ) -> list[MetricErrors]:
        """e of every type, by ggml's encoder and compensated, of tensors that share one matrix input and a stored type.

        Rows are sampled (of a stack of matrices some, spread over it), second moments are whole. ``sample_elements``: as
        ``round_trips`` takes it; a share of it is compensated, at least 64 rows of a tensor. BadFile where a tensor has NaN
        or infinite weights.
        """
        measured = [_RowErrors(tensor, types) for tensor in tensors]
        for number in self._sampled_matrices(tensors[0], sample_elements):
            plain = self.prepared(tensors[0], number, 1)
            if plain is None:
                continue
            parts = [self._sampled(tensor, number, sample_elements) for tensor in tensors]
            ends = np.cumsum([len(part) for part in parts])[:-1]
            weights = np.concatenate(parts)
            for rows, energy in zip(measured, np.split(_energies(weights, plain), ends), strict=True):
                rows.energies.append(energy)
            for kind in types:
                ours, ggmls = self._row_errors(tensors[0], number, weights, kind, plain)
                for rows, *errors in zip(measured, np.split(ours, ends), np.split(ggmls, ends), strict=True):
                    rows.add(kind, *errors)
        return [rows.ratios() for rows in measured]

    def _row_errors(
        self, tensor: Tensor, number: int, weights: np.ndarray, kind: QuantType, plain: Metric
    ) -> tuple[np.ndarray, np.ndarray]:
        """float64 [rows] each: x H x^T of the errors, compensated and of ggml's encoder."""
        if kind is tensor.type:  # copied as it is stored
            nothing = np.zeros(len(weights))
            return nothing, nothing
        if can_compensate(kind):
            metric = self.prepared(tensor, number, column_group(kind))
            assert metric is not None
            result = compensate(weights, metric, kind, self.options)
            if not self.moments.input_of(tensor.name).looked_up:
                return result.errors, result.stock_errors
            return result.errors, _energies(self._stock(tensor, weights, kind, plain) - weights, plain)
        errors = _energies(self._stock(tensor, weights, kind, plain) - weights, plain)
        return errors, errors

    def _stock(self, tensor: Tensor, weights: np.ndarray, kind: QuantType, plain: Metric) -> np.ndarray:
        """float32 [rows, columns] after ggml's encoder, with the importance that llama-quantize has: none for embeddings."""
        looked_up = self.moments.input_of(tensor.name).looked_up and not ggml.aborts_without_imatrix(kind)
        return ggml.dequantize(
            ggml.quantize(weights, kind, None if looked_up else plain.diagonal), kind, tensor.columns
        )

    def _sampled_matrices(self, tensor: Tensor, sample_elements: int | None) -> np.ndarray:
        stack = self.moments.input_of(tensor.name).stack
        return spread(stack, sample_size(tensor, stack, sample_elements)[0], tensor.name)

    def _sampled(self, tensor: Tensor, number: int, sample_elements: int | None) -> np.ndarray:
        """float32 [rows, columns]: some rows of a matrix."""
        matrices = self.matrices(tensor)
        rows = matrices[number]
        size = rows.stop - rows.start
        count = sample_size(tensor, len(matrices), sample_elements)[1]
        weights = tensor_rows(self.model, tensor, spread(size, count, tensor.name) + rows.start)
        if not np.isfinite(weights).all():
            raise BadFile(f"{self.model.path}: {tensor.name} has NaN or infinite weights; convert the model again")
        return weights

    def _importance(self, tensor: Tensor, number: int) -> np.ndarray | None:
        diagonal = self.moments.diagonal(tensor.name)[number]
        return diagonal if diagonal.any() else None


def sample_size(tensor: Tensor, stack: int, sample_elements: int | None) -> tuple[int, int]:
    """How many of the matrices that are stacked in a tensor are measured, and rows of each."""
    rows = tensor.rows // stack
    if sample_elements is None:
        return stack, rows
    of_tensor = max(_LEAST_ROWS, sample_elements // (_SAMPLE_SHARE * tensor.columns))
    matrices = min(stack, _MOST_MATRICES)
    return matrices, min(rows, max(_LEAST_MATRIX_ROWS, -(-of_tensor // matrices)))


def _energies(rows: np.ndarray, metric: Metric) -> np.ndarray:
    """float64 [rows]: x H x^T."""
    return row_energies(np.ascontiguousarray(rows.T), metric.hessian)


def sampling_error(errors: MetricErrors) -> float:
    """The typical relative error that sampled rows leave."""
    relative = [errors.sampling[name] / value for name, value in errors.stock.items() if value > 0]
    return float(np.median(relative)) if relative else 0.0
