"""The scale of every tensor, probed or taken from its neighbours, and how single KLDs add up when many tensors change."""

import math
from dataclasses import dataclass

import numpy as np

from quantplan.sensitivity import prior
from quantplan.sensitivity.probe import Probe
from quantplan.sensitivity.swap_scale import bootstrap_error
from quantplan.sensitivity_table import Interaction
from quantplan.tensor import Model, Tensor

LEAST_INTERACTION_ERROR = 0.03
_CLEAR = 20  # noise floors: below, the KLD of a uniform swap says nothing (a type whose grid the weights lie on)


@dataclass(frozen=True)
class TensorScale:
    """Nats per token per unit of relative squared error; ``source``: probed, borrowed, prior or "not run"."""

    value: float
    relative_error: float
    source: str


def all_scales(model: Model, tensors: tuple[Tensor, ...], probe: Probe) -> dict[str, TensorScale]:
    """Of ``tensors`` by name; a tensor that was not probed borrows of its neighbours."""
    scales = {}
    for tensor in tensors:
        scale = probe.scales.get(tensor.name)
        if not model.runs(tensor):
            scales[tensor.name] = TensorScale(0.0, 0.0, "not run")
        elif scale is not None:
            relative = scale.stderr / scale.value if scale.value > 0 else 0.0
            scales[tensor.name] = TensorScale(scale.value, relative, "probed")
        else:
            scales[tensor.name] = _borrowed(model, tensor, probe)
    return scales


def _borrowed(model: Model, tensor: Tensor, probe: Probe) -> TensorScale:
    """Geometric mean over the two nearest blocks of the same role, else over all tensors; its error is their spread."""
    known = [(model.by_name[name], scale.value) for name, scale in probe.scales.items() if scale.value > 0]
    peers = [(abs((t.block or 0) - (tensor.block or 0)), value) for t, value in known if t.role == tensor.role]
    values = [value for _, value in sorted(peers)[:2]] or [value for _, value in known]
    if not values:
        return TensorScale(prior.scale(model, tensor), prior.RELATIVE_ERROR, "prior")
    logs = np.log(values)
    spread = float(logs.std()) if len(logs) > 1 else 1.0
    return TensorScale(float(np.exp(logs.mean())), max(spread, 0.3), "borrowed")


def clear_uniform(kld: float, floor: float) -> bool:
    """Whether the KLD of a swap of all tensors at once says how single ones add up."""
    return kld > _CLEAR * floor


def interaction(probe: Probe, scales: dict[str, TensorScale]) -> Interaction:
    """Least squares of KLD/S = factor * (1 + curvature * S) over the uniform swaps.

    The swaps run on more text than the scales, so the factor also sets the level right. Its error joins what the fit
    leaves with the bootstrap error of the swaps themselves, which all tensors share.
    """
    sums, ratios, text_errors = [], [], []
    for entry in probe.uniform.values():
        total = sum(scales[name].value * error for name, error in entry["errors"].items())
        klds = np.array(entry["klds"])
        if total > 0 and clear_uniform(float(klds.mean()), probe.floor):
            sums.append(total)
            ratios.append(float(klds.mean()) / total)
            text_errors.append(bootstrap_error(klds) / float(klds.mean()))
    if len(sums) < 2:
        return Interaction()
    slope, factor = np.polyfit(sums, ratios, 1)
    if factor <= 0 or slope < 0:  # no curvature to be seen: the mean ratio alone
        slope, factor = 0.0, float(np.mean(ratios))
    left = np.array(ratios) / (factor + slope * np.array(sums)) - 1
    error = math.hypot(max(float(np.sqrt((left**2).mean())), LEAST_INTERACTION_ERROR), min(text_errors))
    return Interaction(float(factor), float(slope / factor), error)
