"""What an imatrix says about the inputs of each tensor: the numbers of ``llama-imatrix --show-statistics``.

Definitions are those of ``compute_statistics`` and ``compute_cossim`` in llama.cpp's tools/imatrix/imatrix.cpp. Sums are
float64 here, while the tool adds float32 numbers one after the other: the digits that it prints agree, to one unit of the last
or to 1e-5 in sums of tens of thousands of columns. v_j = in_sum2_j / count is the mean squared input of column j, experts
without hits left out:

    sum, min, max, mean, std    of v; std is the population's, from mean(v^2) - mean(v)^2
    active                      percent of columns with v_j > 1e-5
    n                           number of columns, over all experts that were hit
    entropy                     -sum p_j log2 p_j in bits, p_j = v_j / sum
    entropy_norm                entropy as percent of log2 n
    zd                          percent of columns with (v_j - mean) / std > 1
    cossim                      cosine of the raw sums with those of the same tensor one block earlier, or 0

NaN marks what is not defined: the cosine with a tensor of another size or with sums of zero, entropy_norm of one column.
The statistics describe the inputs alone, neither the weights nor the error of a quantization.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantplan.errors import BadFile, BadUsage
from quantplan.execution import cores
from quantplan.imatrix import Imatrix, ImatrixEntry

_ACTIVE_ABOVE = np.float32(1e-5)
_BLOCK = re.compile(r"blk\.(\d{1,9})\.")


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """Statistics of one tensor's inputs; see the module for definitions, percent fields are 0 to 100."""

    name: str
    layer: int | None  # block number
    role: str
    sum: float
    min: float
    max: float
    mean: float
    std: float
    active: float
    n: int
    entropy: float
    entropy_norm: float
    zd: float
    cossim: float
    outliers: int  # columns that zd counts
    experts: int | None  # None in legacy files, which do not tell
    unseen_experts: tuple[int, ...]
    rare_experts: tuple[int, ...]  # hit, but fewer than FEW_HITS times
    mean_input: float | None  # mean over columns of E[x_j], where the file carries in_sum
    mean_share: float | None  # percent of sum that is the squared mean input, sum_j E[x_j]^2 / sum_j E[x_j^2]


@dataclass(frozen=True, slots=True)
class Field:
    """How a statistic is shown: heading, unit ("%" or none), decimals as the tool prints them, meaning."""

    title: str
    decimals: int
    meaning: str
    unit: str = ""


FIELDS = {
    "sum": Field("Σ(Act²)", 2, "sum of mean squared inputs"),
    "min": Field("Min", 4, "smallest mean squared input"),
    "max": Field("Max", 4, "largest mean squared input"),
    "mean": Field("μ", 2, "average mean squared input"),
    "std": Field("σ", 2, "standard deviation of mean squared inputs"),
    "active": Field("Active", 2, "columns with mean squared input above 1e-5", "%"),
    "n": Field("N", 0, "columns, over all experts that were hit"),
    "entropy": Field("Entropy", 4, "entropy of the share of each column, in bits"),
    "entropy_norm": Field("E norm", 2, "entropy relative to its maximum", "%"),
    "zd": Field("ZD", 2, "columns more than one standard deviation above the mean", "%"),
    "cossim": Field("CosSim", 4, "cosine with the same tensor one block earlier"),
}


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """Averages over the tensors of a block, weighted with n; zd in percent. NaN where a tensor's value is."""

    layer: int
    sum: float
    zd: float
    cossim: float


@dataclass(frozen=True)
class Statistics:
    """All statistics of an imatrix; tensors by role and falling sum, which is the tool's order."""

    path: Path
    legacy: bool
    tensors: tuple[TensorStatistics, ...]
    layers: tuple[LayerStatistics, ...]
    without_data: tuple[str, ...]  # entries that no token reached: counts all zero, left out above


def statistics(imatrix: Imatrix) -> Statistics:
    """Statistics of every entry that has data; BadFile where none has."""
    entries = {name: entry for name, entry in imatrix.entries.items() if entry.counts.any()}
    if not entries:
        raise BadFile(f"{imatrix.path}: no entry has data, all counts are zero; make it again with `quantplan imatrix`")
    first = _first_with_same_data(entries)
    unique = sorted(set(first.values()))
    pairs = {name: (first[name], first.get(_one_block_earlier(name) or "")) for name in entries}
    unique_pairs = list(set(pairs.values()))
    with ThreadPoolExecutor(cores()) as pool:
        by_data = dict(zip(unique, pool.map(lambda name: _tensor(entries[name], imatrix.legacy), unique), strict=True))
        cosines = dict(
            zip(unique_pairs, pool.map(lambda pair: _cosine(pair[0], pair[1], entries), unique_pairs), strict=True)
        )
    tensors = [_named(by_data[first[name]], name, cosines[pairs[name]]) for name in entries]
    ordered = tuple(sorted(tensors, key=lambda tensor: (tensor.role, -tensor.sum)))
    return Statistics(
        imatrix.path,
        imatrix.legacy,
        ordered,
        layer_averages(ordered),
        tuple(sorted(imatrix.entries.keys() - entries.keys())),
    )


def layer_averages(tensors: Iterable[TensorStatistics]) -> tuple[LayerStatistics, ...]:
    """Averages of each block; tensors outside the blocks belong to none."""
    layers: dict[int, list[TensorStatistics]] = {}
    for tensor in tensors:
        if tensor.layer is not None:
            layers.setdefault(tensor.layer, []).append(tensor)
    return tuple(_layer(layer, members) for layer, members in sorted(layers.items()))


def _layer(layer: int, tensors: Sequence[TensorStatistics]) -> LayerStatistics:
    weights = [tensor.n for tensor in tensors]
    columns = [(tensor.sum, 100 * tensor.outliers / tensor.n, tensor.cossim) for tensor in tensors]
    return LayerStatistics(layer, *map(float, np.average(columns, axis=0, weights=weights)))


def _first_with_same_data(entries: dict[str, ImatrixEntry]) -> dict[str, str]:
    """Name -> first name with equal data.

    attn_q, attn_k and attn_v see the same input, as do gate and up: half of the work would be done twice.
    """
    first: dict[str, str] = {}
    candidates: dict[tuple[object, ...], str] = {}
    for name, entry in entries.items():
        sample = entry.sum2.ravel()[:64].tobytes()
        other = candidates.setdefault((entry.sum2.shape, entry.counts.tobytes(), sample), name)
        first[name] = other if _same_data(entry, entries[other]) else name
    return first


def _same_data(entry: ImatrixEntry, other: ImatrixEntry) -> bool:
    if entry.sum1 is None or other.sum1 is None:
        return entry.sum1 is other.sum1 and np.array_equal(entry.sum2, other.sum2)
    return np.array_equal(entry.sum2, other.sum2) and np.array_equal(entry.sum1, other.sum1)


def _named(tensor: TensorStatistics, name: str, cosine: float) -> TensorStatistics:
    layer, role = layer_and_role(name)
    return replace(tensor, name=name, layer=layer, role=role, cossim=cosine)


def _one_block_earlier(name: str) -> str | None:
    match = _BLOCK.search(name)
    return f"{name[: match.start(1)]}{int(match.group(1)) - 1}{name[match.end(1) :]}" if match else None


@np.errstate(all="ignore")
def _cosine(name: str, before: str | None, entries: Mapping[str, ImatrixEntry]) -> float:
    if before is None:
        return 0.0
    if entries[before].sum2.size != entries[name].sum2.size:
        return float("nan")  # the tool reads beyond the shorter one's end here
    left, right = (entries[key].sum2.ravel().astype(np.float64) for key in (name, before))
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


@np.errstate(all="ignore")
def _tensor(entry: ImatrixEntry, legacy: bool) -> TensorStatistics:
    """All but the cosine."""
    layer, role = layer_and_role(entry.name)
    means = _means(entry)
    values, n = means.astype(np.float64), means.size
    total, mean, std = values.sum(), values.mean(), values.std() if means.min() < means.max() else 0.0
    shares = values[values > 0] / total
    entropy = float(-(shares * np.log2(shares)).sum())
    outliers = int(np.count_nonzero(values > mean + std)) if std > 0 else 0
    mean_input, mean_share = _first_moment(entry)
    return TensorStatistics(
        entry.name,
        layer,
        role,
        sum=float(total),
        min=float(means.min()),
        max=float(means.max()),
        mean=float(mean),
        std=float(std),
        active=100 * float(np.count_nonzero(means > _ACTIVE_ABOVE)) / n,
        n=n,
        entropy=abs(entropy),  # no -0.0
        entropy_norm=float(100 * entropy / np.log2(n)),
        zd=100 * outliers / n,
        cossim=float("nan"),
        outliers=outliers,
        experts=None if legacy else len(entry.counts),
        unseen_experts=() if legacy else tuple(int(index) for index in np.flatnonzero(entry.counts == 0)),
        rare_experts=tuple(int(index) for index in np.flatnonzero(entry.rare)),
        mean_input=mean_input,
        mean_share=mean_share,
    )


def _means(entry: ImatrixEntry) -> np.ndarray:
    """float32 [values]: mean squared inputs of the experts that were hit, in file order."""
    if len(entry.counts) == 1:
        return entry.sum2.ravel() / entry.counts.astype(np.float32)
    hit = entry.counts > 0
    return (entry.sum2[hit] / entry.counts[hit].astype(np.float32)[:, None]).ravel()


def _first_moment(entry: ImatrixEntry) -> tuple[float | None, float | None]:
    """(mean_input, mean_share), which the tool does not print."""
    if entry.sum1 is None:
        return None, None
    seen = np.broadcast_to(entry.counts > 0, len(entry.sum2))
    counts = np.broadcast_to(entry.counts, len(entry.sum2))[seen].astype(np.float64)[:, None]
    first, second = entry.sum1[seen] / counts, entry.sum2[seen] / counts
    return float(first.mean()), float(100 * (first**2).sum() / second.sum())


def layer_and_role(name: str) -> tuple[int | None, str]:
    """Block number and role as the tool reads them off a name (``process_tensor_name``)."""
    parts = name.split(".")
    after = parts[parts.index("blk") + 1 :] if "blk" in parts else []
    number = re.match(r"\d+", after[0]) if after else None
    role = parts[parts.index("weight") - 1] if "weight" in parts[1:] else name
    return (int(number.group()) if number else None), role


def ordered_by(tensors: Iterable[TensorStatistics], field: str) -> tuple[TensorStatistics, ...]:
    """Tensors by name, role or layer (rising) or by a statistic (falling, undefined values last).

    Raises BadUsage with the known fields for any other word.
    """
    keys = {
        "name": lambda tensor: tensor.name,
        "role": lambda tensor: (tensor.role, -tensor.sum),
        "layer": lambda tensor: (math.inf if tensor.layer is None else tensor.layer, tensor.role),
    }
    if field in keys:
        return tuple(sorted(tensors, key=keys[field]))
    check_field(field, (*keys, *FIELDS))
    return tuple(
        sorted(tensors, key=lambda tensor: (math.isnan(getattr(tensor, field)), -getattr(tensor, field), tensor.name))
    )


def check_field(field: str, known: Iterable[str] = tuple(FIELDS)) -> None:
    """BadUsage with the known fields unless ``field`` is one of them."""
    if field not in known:
        raise BadUsage(f"there is no statistic {field!r}; choose one of {', '.join(known)}")
