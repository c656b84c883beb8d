"""What a tensor costs on each text of several: its KLD there over its KLD on all of them, and how single KLDs add up there.

With two or four chunks of a text a tensor's ratio is noisy. Most of the noise is common to all tensors (a chunk is hard for all
of them) and cancels; what is left is told by the scatter of single chunks, and a ratio counts only as far as the tensors differ
by more than that: each is shrunk towards the mean of its text (Morris, Journal of the American Statistical Association 78, 1983).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quantplan.measurement import Estimate
from quantplan.sensitivity.probe import Probe
from quantplan.sensitivity.scales import LEAST_INTERACTION_ERROR, TensorScale, clear_uniform
from quantplan.sensitivity.swap_scale import bootstrap_error, clear
from quantplan.sensitivity_table import Interaction, SensitivityRow

_LEAST_RATIO = 0.05  # of the text's mean: no tensor is free on any text
_FEWEST = 3  # tensors, of fewer nobody can say how they differ


def domain_ratios(probe: Probe, scales: Mapping[str, TensorScale]) -> dict[str, dict[str, float]]:
    """Tensor -> text -> KLD there over KLD on all texts; of a tensor that was not seen clearly the mean of its text."""
    names = tuple(dict.fromkeys(probe.domains))
    seen = [name for name, klds in probe.klds.items() if clear(float(np.mean(klds)), probe.floor)]
    if not names or not seen:
        return {}
    ratios = {name: _ratios(probe, name, names) for name in seen}
    noise = _noise(probe, seen)
    counts = {name: [max(1, list(_texts(probe, name)).count(text)) for text in names] for name in seen}
    shrunk, means = _shrunk(
        np.array([ratios[name] for name in seen]), noise / np.array([counts[name] for name in seen])
    )
    known = {name: dict(zip(names, row.tolist(), strict=True)) for name, row in zip(seen, shrunk, strict=True)}
    usual = dict(zip(names, means.tolist(), strict=True))
    return {name: known.get(name, usual) for name in scales}


def _texts(probe: Probe, name: str) -> tuple[str, ...]:
    """Of each chunk that the tensor was probed on its text."""
    return probe.domains[: len(probe.klds[name])]


def _ratios(probe: Probe, name: str, texts: tuple[str, ...]) -> list[float]:
    klds, of_chunk = np.array(probe.klds[name]) - probe.floor, np.array(_texts(probe, name))
    return [float(max(klds[of_chunk == text].mean(), 0.0) / klds.mean()) for text in texts]


def _noise(probe: Probe, names: list[str]) -> float:
    """Variance of a tensor's share in one chunk, less what the chunk does to all tensors and what its text does to this one."""
    first = min(len(probe.klds[name]) for name in names)
    shares = np.array([np.array(probe.klds[name][:first]) / np.mean(probe.klds[name][:first]) for name in names])
    residuals = shares - shares.mean(axis=0)
    of_chunk = np.array(probe.domains[:first])
    within = [residuals[:, of_chunk == text] for text in dict.fromkeys(of_chunk.tolist())]
    variances = [part.var(axis=1, ddof=1).mean() for part in within if part.shape[1] > 1]
    return float(np.mean(variances)) if variances else np.inf


def _shrunk(ratios: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([tensors, texts], [texts]): the ratios as far as they tell tensors apart, and their means."""
    means = ratios.mean(axis=0)
    if len(ratios) < _FEWEST or not np.isfinite(noise).all():
        return np.broadcast_to(means, ratios.shape), means
    spread = np.maximum(0.0, ((ratios - means) ** 2).sum(axis=0) / (len(ratios) - 1) - noise.mean(axis=0))
    share = spread / np.maximum(spread + noise, 1e-30)
    return np.maximum(means + share * (ratios - means), _LEAST_RATIO * means), means


def level(probe: Probe, kind: str = "Q4_K") -> dict[str, Estimate]:
    """KLD on each text, nats per token, with all tensors swapped to the type at once; errors by resampling chunks."""
    klds = np.array(probe.uniform[kind]["klds"])
    of_chunk = np.array(probe.domains[: len(klds)])
    parts = {text: klds[of_chunk == text] for text in dict.fromkeys(of_chunk.tolist())}
    return {
        text: Estimate(float(part.mean()), bootstrap_error(part) if len(part) > 1 else None)
        for text, part in parts.items()
    }


def with_domains(
    rows: dict[str, SensitivityRow], ratios: Mapping[str, Mapping[str, float]]
) -> dict[str, SensitivityRow]:
    """The rows of a table, with what each tensor costs on each text."""
    return {name: replace(row, domains=dict(ratios.get(name, {}))) for name, row in rows.items()}


def domain_interactions(
    probe: Probe, scales: Mapping[str, TensorScale], ratios: Mapping[str, Mapping[str, float]], whole: Interaction
) -> dict[str, Interaction]:
    """How single KLDs add up on each text, from the swaps of all tensors at once. The curvature is that of all texts: of one
    there is too little to tell it.
    """
    return {text: _interaction(probe, scales, ratios, text, whole) for text in dict.fromkeys(probe.domains) if ratios}


def _interaction(
    probe: Probe,
    scales: Mapping[str, TensorScale],
    ratios: Mapping[str, Mapping[str, float]],
    text: str,
    whole: Interaction,
) -> Interaction:
    factors, errors = [], []
    for entry in probe.uniform.values():
        of_chunk = np.array(probe.domains[: len(entry["klds"])])
        klds = np.array(entry["klds"])[of_chunk == text]
        total = sum(scales[name].value * ratios[name][text] * error for name, error in entry["errors"].items())
        if total > 0 and len(klds) and clear_uniform(float(klds.mean()), probe.floor):
            factors.append(float(klds.mean()) / (total * (1 + whole.curvature * total)))
            errors.append(bootstrap_error(klds) / float(klds.mean()) if len(klds) > 1 else 1.0)
    if not factors:
        return whole
    spread = float(np.std(factors)) / float(np.mean(factors))
    error = float(np.hypot(max(spread, LEAST_INTERACTION_ERROR), min(errors)))
    return Interaction(float(np.mean(factors)), whole.curvature, error)
