"""Errors of rounded tensors in the metric of their inputs' second moments, and rounding that is compensated in it.

    e(t, q, r) = tr(D H D^T) / tr(W H W^T),    D = W - Q,    H = E[x x^T]

the relative energy of the output error on the calibration text. Matrices that are stacked in one tensor (experts, heads of
MLA) have inputs of their own and are taken one by one.
"""

from collections.abc import Iterator
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
from quantplan.sensitivity.round_trip import ratio_of_sums, sampled_rows
from quantplan.tensor import Model, Tensor

VERSION = 1


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

    def errors(self, tensor: Tensor, types: tuple[QuantType, ...], sample_elements: int | None) -> MetricErrors:
        """e of every type, by ggml's encoder and compensated; rows are sampled, second moments are whole.

        BadFile where the tensor has NaN or infinite weights.
        """
        energies: list[np.ndarray] = []
        stock: dict[str, list[np.ndarray]] = {kind.name: [] for kind in types}
        compensated: dict[str, list[np.ndarray]] = {kind.name: [] for kind in types if can_compensate(kind)}
        for number, weights in self._sampled(tensor, sample_elements):
            plain = self.prepared(tensor, number, 1)
            if plain is None:
                continue
            energies.append(_energies(weights, plain))
            for kind in types:
                ours, ggmls = self._row_errors(tensor, number, weights, kind, plain)
                stock[kind.name].append(ggmls)
                if kind.name in compensated:
                    compensated[kind.name].append(ours)
        if not energies:
            return MetricErrors(tensor.name, {}, {}, {}, 0)
        energy = np.concatenate(energies)
        ratios = {
            name: ratio_of_sums(np.concatenate(parts), energy, tensor.rows)
            for name, parts in stock.items()
            if all(np.isfinite(part).all() for part in parts)
        }
        return MetricErrors(
            tensor.name,
            {name: ratio for name, (ratio, _) in ratios.items()},
            {name: ratio_of_sums(np.concatenate(compensated[name]), energy, tensor.rows)[0] for name in compensated},
            {name: error for name, (_, error) in ratios.items()},
            len(energy),
        )

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
            return result.errors, result.stock_errors
        back = ggml.dequantize(ggml.quantize(weights, kind, plain.diagonal), kind, tensor.columns)
        errors = _energies(back - weights, plain)
        return errors, errors

    def _sampled(self, tensor: Tensor, sample_elements: int | None) -> Iterator[tuple[int, np.ndarray]]:
        for number, rows in enumerate(self.matrices(tensor)):
            chosen = sampled_rows(rows.stop - rows.start, tensor, sample_elements) + rows.start
            weights = tensor_rows(self.model, tensor, chosen)
            if not np.isfinite(weights).all():
                raise BadFile(f"{self.model.path}: {tensor.name} has NaN or infinite weights; convert the model again")
            yield number, weights

    def _importance(self, tensor: Tensor, number: int) -> np.ndarray | None:
        diagonal = self.moments.diagonal(tensor.name)[number]
        return diagonal if diagonal.any() else None


def _energies(rows: np.ndarray, metric: Metric) -> np.ndarray:
    """float64 [rows]: x H x^T."""
    return row_energies(np.ascontiguousarray(rows.T), metric.hessian)


def sampling_error(errors: MetricErrors) -> float:
    """The typical relative error that sampled rows leave."""
    relative = [errors.sampling[name] / value for name, value in errors.stock.items() if value > 0]
    return float(np.median(relative)) if relative else 0.0
