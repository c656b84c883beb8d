"""What built files tell about the sensitivity table: factors for what the table is unsure of, shrunk towards the table as it is.

A table predicts log KLD of a file as log f (S (1 + c S) + K). Here every entry has a factor,

    S = sum_t w(t,q) exp(x),  K = sum_t k(t,q) exp(y),     x = b (bits(q) - reference) + family(q) + role(t) + row(t)
                                                           y = feed(q) + role(t) + row(t)

b and family (iq and legacy against k) are the super- and sub-additivity by bits and kinds of types that one curvature leaves,
feed is the activation quantization by activation type (Q8_K, Q8_0), role and row are the errors of the probed scales. A plan is
solved from scales that are too low here and too high there and leans on those that are too low: it comes out worse than
predicted by more than a stock quant does, and how much tells the rows apart. All logarithms have normal priors around 0 with the
table's own errors, so that without observations the table stays as it is.

The errors of observations are those of chunks (the same for all files: contrasts are measured far better than levels) and of
single entries, since one scale prices the types of a tensor only to about the interaction's error: files share it where they
share tensor and type. The posterior is that of a linear Gaussian model (Rasmussen and Williams, Gaussian Processes for
Machine Learning (2006), section 2.1), iterated because exp is not linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from quantplan.llamacpp import ggml
from quantplan.quant_type import BY_NAME
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.tensor import role_of

LEVEL, BITS, FAMILIES, FEEDS = "level", "bits", ("iq", "legacy"), ("Q8_K", "Q8_0")
TYPE_FACTORS = (LEVEL, BITS, *FAMILIES, *FEEDS)
_FEED_NAMES = {8: "Q8_0", 9: "Q8_0", 15: "Q8_K"}  # ggml's numbers; Q8_1 is Q8_0 with a sum
_LEAST_ERROR = 0.03  # as in pricing: no table is surer of its types than that
_LEVEL_ERROR = 0.3  # texts differ in level by as much, and no plan depends on it
_MOST_ERROR = 1.0  # of a row: a factor of e, beyond which a logarithm is no error any more
_STEPS = 8  # of Gauss-Newton; two are enough for the factors that priors allow


@dataclass(frozen=True)
class Observed:
    """A built file: the stored types of the quantized tensors, and its KLD on each chunk, KLD."""

    types: dict[str, str]
    klds: tuple[float, ...]


@dataclass(frozen=True)
class Correction:
    """Natural logarithms of factors and their errors: ``types`` by TYPE_FACTORS (BITS: for each bit above ``reference``),
    ``rows`` by tensor, its role's included.
    """

    reference: float  # bits
    types: dict[str, float]
    type_errors: dict[str, float]
    rows: dict[str, float]
    row_errors: dict[str, float]

    def weights_factor(self, tensor: str, type_name: str) -> float:
        """What the weights' part of an entry is multiplied with."""
        return float(np.exp(_weight_features(type_name, self.reference) @ self._vector + self.rows[tensor]))

    def kernel_factor(self, tensor: str, type_name: str) -> float:
        return float(np.exp(_kernel_features(type_name) @ self._vector + self.rows[tensor]))

    @cached_property
    def _vector(self) -> np.ndarray:
        return np.array([self.types[name] for name in TYPE_FACTORS])


def correction(table: SensitivityTable, observed: Sequence[Observed]) -> Correction:
    """The posterior mean; all files of the same chunks, at least two of them. ValueError for anything else."""
    if len({len(each.klds) for each in observed}) > 1 or any(len(each.klds) < 2 for each in observed):
        raise ValueError("files of different chunks, or of fewer than two, cannot be taken together")
    space = _Space(table, _reference(table, observed))
    if not observed:
        return space.named(np.zeros(len(space.prior)), space.prior)
    files = [_File(space, each.types) for each in observed]
    klds = np.array([each.klds for each in observed])
    measured = np.log(klds.mean(axis=1))
    noise = _chunk_covariance(klds) + _entry_covariance(table, files)
    logs = np.zeros(len(space.prior))
    for _ in range(_STEPS):
        predicted, slopes = map(np.array, zip(*(each.log_kld(logs) for each in files), strict=True))
        spread = slopes * space.prior
        gain = np.linalg.solve(spread @ slopes.T + noise, spread).T
        logs = gain @ (measured - predicted + slopes @ logs)
    return space.named(logs, space.prior - (gain * spread.T).sum(axis=1))


def corrected(table: SensitivityTable, by: Correction) -> SensitivityTable:
    """The table with the factors in it; the level joins the interaction."""
    rows = {name: _corrected_row(row, by) for name, row in table.rows.items()}
    interaction = replace(table.interaction, factor=table.interaction.factor * float(np.exp(by.types[LEVEL])))
    note = {"corrected_by": {"logs": by.types, "errors": by.type_errors, "reference_bits": by.reference}}
    return replace(table, rows=rows, interaction=interaction, made_from=table.made_from | note)


def _corrected_row(row: SensitivityRow, by: Correction) -> SensitivityRow:
    name = row.tensor
    weights = {kind: value * by.weights_factor(name, kind) for kind, value in row.weights.items()}
    kernel = {kind: value * by.kernel_factor(name, kind) for kind, value in row.kernel.items()}
    return replace(row, weights=weights, kernel=kernel, relative_error=min(row.relative_error, by.row_errors[name]))


def uncertainty(table: SensitivityTable) -> float:
    """Relative error of a single entry besides its row's: what the interaction leaves unexplained of uniform files."""
    return max(table.interaction.relative_error, _LEAST_ERROR)


# --- the model


class _Space:
    """The parameters: factors of types, of roles, of rows. ``prior``: their variances, float64 [parameters].

    Kernels are priced by the rows' scales and by an estimate of their own: their factors are as unsure as both together.
    """

    def __init__(self, table: SensitivityTable, reference: float) -> None:
        self.table, self.reference = table, reference
        self.names = list(table.rows)
        self.at = {name: index for index, name in enumerate(self.names)}
        of_tensor = [role_of(name) for name in self.names]
        roles = sorted(set(of_tensor))
        self.role_at = np.array([len(TYPE_FACTORS) + roles.index(role) for role in of_tensor], int)
        self.row_at = len(TYPE_FACTORS) + len(roles) + np.arange(len(self.names))
        types = uncertainty(table)
        own = np.array([min(table.rows[name].relative_error, _MOST_ERROR) for name in self.names])
        kernels = float(np.hypot(types, np.median(own))) if len(own) else types
        sigmas = (
            {LEVEL: max(_LEVEL_ERROR, types)} | dict.fromkeys((BITS, *FAMILIES), types) | dict.fromkeys(FEEDS, kernels)
        )
        first = [sigmas[name] for name in TYPE_FACTORS]
        self.prior = np.concatenate([first, [types] * len(roles), own]) ** 2

    def named(self, logs: np.ndarray, variances: np.ndarray) -> Correction:
        errors = np.sqrt(np.maximum(variances, 0))
        rows = logs[self.row_at] + logs[self.role_at]
        return Correction(
            self.reference,
            dict(zip(TYPE_FACTORS, logs.tolist(), strict=False)),
            dict(zip(TYPE_FACTORS, errors.tolist(), strict=False)),
            dict(zip(self.names, rows.tolist(), strict=True)),
            dict(zip(self.names, errors[self.row_at].tolist(), strict=True)),
        )


class _File:
    """A file's entries, by tensor: float64 [tensors] of weights' and kernels' damage, [tensors, TYPE_FACTORS] of features."""

    def __init__(self, space: _Space, types: dict[str, str]) -> None:
        self.space, self.types = space, types
        rows = space.table.rows
        self.index = np.array([space.at[name] for name in types], int)
        self.weights = np.array([rows[name].weights[kind] for name, kind in types.items()])
        self.kernels = np.array([rows[name].kernel.get(kind, 0.0) for name, kind in types.items()])
        by_weight = {kind: _weight_features(kind, space.reference) for kind in set(types.values())}
        by_kernel = {kind: _kernel_features(kind) for kind in by_weight}
        self.by_weight = np.array([by_weight[kind] for kind in types.values()])
        self.by_kernel = np.array([by_kernel[kind] for kind in types.values()])

    def log_kld(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """At these parameters, and its derivative by them."""
        space, curve = self.space, self.space.table.interaction
        types = logs[: len(TYPE_FACTORS)]
        scales = logs[space.role_at[self.index]] + logs[space.row_at[self.index]]
        weights = self.weights * np.exp(self.by_weight @ types + scales)
        kernels = self.kernels * np.exp(self.by_kernel @ types + scales)
        s, k = weights.sum(), kernels.sum()
        whole = s * (1 + curve.curvature * s) + k
        weights, kernels = (1 + 2 * curve.curvature * s) * weights / whole, kernels / whole
        slope = np.zeros(len(logs))
        slope[: len(TYPE_FACTORS)] = weights @ self.by_weight + kernels @ self.by_kernel
        np.add.at(slope, space.role_at[self.index], weights + kernels)
        slope[space.row_at[self.index]] = weights + kernels
        slope[0] = 1.0
        return float(np.log(curve.factor * whole) + types[0]), slope


def _weight_features(type_name: str, reference: float) -> np.ndarray:
    """What the logarithm of a weights' part is made of, the level left out."""
    kind = BY_NAME[type_name]
    features = {BITS: kind.bits - reference, **{family: float(kind.family == family) for family in FAMILIES}}
    return np.array([features.get(name, 0.0) for name in TYPE_FACTORS])


def _kernel_features(type_name: str) -> np.ndarray:
    feed = _FEED_NAMES.get(ggml.activation_type(BY_NAME[type_name]))
    return np.array([float(name == feed) for name in TYPE_FACTORS])


def _reference(table: SensitivityTable, observed: Sequence[Observed]) -> float:
    """Mean bits of the files' types, weighted by damage: around it slope and level are best separated."""
    pairs = [
        (table.rows[name].damage(kind), BY_NAME[kind].bits) for each in observed for name, kind in each.types.items()
    ]
    total = sum(damage for damage, _ in pairs)
    return sum(damage * bits for damage, bits in pairs) / total if total else 0.0


# --- errors of observations


def _chunk_covariance(klds: np.ndarray) -> np.ndarray:
    """[files, files] of the logarithms of means over chunks [files, chunks], to first order.

    As many covariances as files have pairs are not told by few chunks: the sample's are drawn towards variances with one
    correlation for all pairs (Ledoit and Wolf, Journal of Portfolio Management 30, 2004), with the weight of ``files`` chunks.
    """
    files, chunks = klds.shape
    sample = np.atleast_2d(np.cov(klds / klds.mean(axis=1, keepdims=True))) / chunks
    own = np.sqrt(np.diag(sample))
    pairs = np.outer(own, own)
    others = ~np.eye(files, dtype=bool)
    common = float((sample[others] / np.maximum(pairs[others], 1e-300)).mean()) if files > 1 else 0.0
    target = np.where(others, common * pairs, pairs)
    return (chunks * sample + files * target) / (chunks + files)


def _entry_covariance(table: SensitivityTable, files: Sequence[_File]) -> np.ndarray:
    """Each (tensor, type) has an error of its own, which files with that entry share."""
    entries: dict[tuple[str, str], int] = {}
    for each in files:
        for entry in each.types.items():
            entries.setdefault(entry, len(entries))
    shares = np.zeros((len(files), len(entries)))
    for row, each in zip(shares, files, strict=True):
        damages = each.weights + each.kernels
        row[[entries[entry] for entry in each.types.items()]] = damages / damages.sum()
    return uncertainty(table) ** 2 * (shares @ shares.T)
