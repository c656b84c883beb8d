"""What the swap of one tensor says: KLD per unit of relative squared error, and how sure that is."""

from dataclasses import dataclass

import numpy as np

_BOOTSTRAPS = 500


@dataclass(frozen=True)
class Scale:
    """Nats per token per unit of relative squared error; ``error``: that of the swap, as it stood in memory."""

    tensor: str
    kld: float
    error: float
    value: float
    stderr: float
    chunks: int


def bootstrap_error(values: np.ndarray, seed: int = 0) -> float:
    """Standard error of the mean of chunk values by resampling chunks, widened by n/(n-1)."""
    count = len(values)
    if count < 2:
        return float("nan")
    draws = np.random.default_rng(seed).integers(0, count, (_BOOTSTRAPS, count))
    return float(values[draws].mean(axis=1).std() * np.sqrt(count / (count - 1)))


def clear(kld: float, floor: float) -> bool:
    """Whether a KLD is more than the noise of the forward pass."""
    return bool(kld > 2 * floor)


def scale_of(name: str, entry: dict, floor: float) -> Scale:
    klds, error = np.array(entry["klds"]), entry["error"]
    kld = float(klds.mean())
    if error <= 0:  # a tensor of zeros: no rounding hurts it
        return Scale(name, kld, error, 0.0, 0.0, len(klds))
    # below twice the noise floor nothing was seen: the floor itself is what the KLD may be, and its own error
    signal = kld - floor
    seen = clear(kld, floor)
    value = (signal if seen else floor) / error
    stderr = bootstrap_error(klds) / error
    return Scale(name, kld, error, value, stderr if seen else max(stderr, value), len(klds))
