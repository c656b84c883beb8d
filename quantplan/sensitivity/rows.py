"""Rows of the sensitivity table: rounding errors times a scale, and what activation quantization adds."""

import math
from collections.abc import Iterable

import numpy as np

from quantplan import __version__
from quantplan.imatrix import Imatrix
from quantplan.quant_type import QuantType
from quantplan.sensitivity import activation_quantization, moment_metric, prior, round_trip
from quantplan.sensitivity.candidates import candidates
from quantplan.sensitivity.moment_metric import MetricErrors
from quantplan.sensitivity.scales import TensorScale
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor

# the errors of a prior are not independent: another model may cost half or twice as much throughout
PRIOR_INTERACTION = Interaction(relative_error=prior.RELATIVE_ERROR)


def probed_row(
    tensor: Tensor,
    errors: round_trip.RoundTrip,
    scale: TensorScale,
    activations: activation_quantization.ActivationQuantization | None,
) -> SensitivityRow:
    weights = {name: scale.value * error for name, error in errors.errors.items()}
    added = _activation_damage(tensor, weights, scale, activations)
    relative = math.hypot(scale.relative_error, _sampling(errors))
    return SensitivityRow(tensor.name, weights, added, relative, scale.source)


def metric_row(
    tensor: Tensor,
    errors: MetricErrors,
    scale: TensorScale,
    activations: activation_quantization.ActivationQuantization | None,
) -> SensitivityRow:
    better = {name: error for name, error in errors.compensated.items() if error < errors.stock[name]}
    weights = {name: scale.value * error for name, error in (errors.stock | better).items()}
    stock = {name: scale.value * errors.stock[name] for name in better}
    added = _activation_damage(tensor, weights, scale, activations)
    relative = math.hypot(scale.relative_error, moment_metric.sampling_error(errors))
    return SensitivityRow(tensor.name, weights, added, relative, scale.source, stock)


def _sampling(errors: round_trip.RoundTrip) -> float:
    """The typical relative error that sampled rows leave."""
    relative = [errors.sampling_errors[name] / value for name, value in errors.errors.items() if value > 0]
    return float(np.median(relative)) if relative else 0.0


def prior_row(model: Model, tensor: Tensor, errors: round_trip.RoundTrip) -> SensitivityRow:
    scale = prior.scale(model, tensor)
    weights = {name: scale * error for name, error in errors.errors.items()}
    return SensitivityRow(tensor.name, weights, {}, prior.RELATIVE_ERROR, "prior")


def _activation_damage(
    tensor: Tensor,
    names: Iterable[str],
    scale: TensorScale,
    activations: activation_quantization.ActivationQuantization | None,
) -> dict[str, float]:
    """By type what the kernels add to those of the type that the tensor has: nothing for that type itself."""
    if activations is None:
        return {}
    return {
        name: 0.0 if name == tensor.type.name else scale.value * activations.of(tensor.name, name) for name in names
    }


def _prior_error(tensor: Tensor, kind: QuantType) -> float:
    return 0.0 if kind == tensor.type else prior.error(kind)


def prior_table(
    model: Model, tensors: tuple[Tensor, ...], types: tuple[QuantType, ...], imatrix: Imatrix | None
) -> SensitivityTable:
    """A table from shapes alone: typical error of each type times the prior scale. Reads no weights."""
    rows = {}
    for tensor in tensors:
        scale = prior.scale(model, tensor)
        kinds = candidates(tensor, types, imatrix)
        rows[tensor.name] = SensitivityRow(
            tensor.name,
            {kind.name: scale * _prior_error(tensor, kind) for kind in kinds},
            {},
            prior.RELATIVE_ERROR,
            "prior",
        )
    made_from: dict[str, object] = {"scales": "prior", "errors": "prior", "quantplan": __version__}
    return SensitivityTable(model.digest, rows, PRIOR_INTERACTION, made_from=made_from).described(model)
