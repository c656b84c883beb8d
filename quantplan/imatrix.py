"""The importance matrix: mean squared input of each column of each matrix, over a calibration text."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantplan.block_ranges import runs_text
from quantplan.errors import ModelMismatch
from quantplan.tensor import Model, Tensor, is_expert_name, role_of

# An expert's own mean squares and those of all experts weigh the same at so many hits. The best number is the
# variance of x^2 over that between experts: 5 to 8 squared means (measured, inputs of gate and up) over a quarter
# of one (experts that differ by half, assumed).
FEW_HITS = 32
_EXTREME = (
    1e7  # times the median column; 1e4 does no harm yet (plain error 1.0 to 1.9 times), 1e10 does (4 to 10 times)
)


@dataclass(frozen=True)
class ImatrixEntry:
    """Raw sums for one tensor.

    ``sum2``: float32 [matrices, columns], sum of x_j^2; ``counts``: int64 [matrices or 1], tokens seen by each
    expert (dense tensors: one); ``sum1``: float32 like sum2, sum of x_j, where the file carries it.
    In the legacy format sums are scaled to ``counts`` = number of chunks; the ratio is what means something.
    """

    name: str
    sum2: np.ndarray
    counts: np.ndarray
    sum1: np.ndarray | None = None

    @property
    def unseen(self) -> np.ndarray:
        """bool [matrices]: experts that no token was routed to, by their counts or by sums of zero. Invisible in legacy files."""
        return np.broadcast_to(self.counts == 0, (self.sum2.shape[0],)) | ~self.sum2.any(axis=1)

    @property
    def routed(self) -> bool:
        """Whether its counts are hits of experts that a router chooses among; legacy files do not tell."""
        return self.counts.size > 1 and is_expert_name(self.name)

    @property
    def rare(self) -> np.ndarray:
        """bool [matrices]: experts with some hits, but fewer than ``FEW_HITS``."""
        few = (self.counts > 0) & (self.counts < FEW_HITS) & self.routed
        return np.broadcast_to(few, (self.sum2.shape[0],)) & ~self.unseen

    def mean_square(self) -> np.ndarray:
        """float32 [matrices, columns]: E[x_j^2]; NaN for experts never hit, never a made-up value."""
        counts = self.counts.astype(np.float32).reshape(-1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, self.sum2 / counts, np.float32("nan")).astype(np.float32)


@dataclass(frozen=True)
class Imatrix:
    """All entries of an imatrix file by tensor name. A tensor that is not in it has no data."""

    path: Path
    entries: dict[str, ImatrixEntry]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int  # tokens per chunk; 0 where the legacy format does not tell
    legacy: bool
    digest: str
    excluded: frozenset[str] = frozenset()  # tensors of the file whose data are left out on purpose

    def mean_squares(self, tensor: Tensor) -> np.ndarray | None:
        """float32 [experts, columns]: E[x_j^2], NaN for matrices without data; None where no matrix of the tensor has any.

        Sums that are all zero are no data, whatever was counted: an input that is always zero has no weights to tell apart.
        """
        entry = self.entries.get(tensor.name)
        if entry is None or entry.sum2.size != tensor.columns * tensor.experts:
            return None
        means = entry.mean_square().reshape(tensor.experts, tensor.columns)
        means[~means.any(axis=1)] = np.nan
        return None if np.isnan(means).all() else means

    def quantize_weights(self, tensor: Tensor) -> np.ndarray | None:
        """float32 [experts, columns] as llama-quantize would use them, or None where it would use none.

        Source: ``load_imatrix`` in tools/quantize/quantize.cpp: experts without hits get weights of one. Those whose sums are
        zero would get zeros; they are handed over as experts without hits (``gguf.imatrix_data``).
        """
        means = self.mean_squares(tensor)
        return None if means is None else np.nan_to_num(means, nan=1.0)

    def error_weights(self, tensor: Tensor) -> np.ndarray | None:
        """float32 [experts, columns] for estimating errors: experts with few hits are shrunk to the tensor's mean.

        With n hits: n/(n + FEW_HITS) of the expert's own means, the rest the mean of all experts, each weighted in
        it as it is trusted here (James and Stein); without hits that mean alone. Anything but routed experts
        stays as it is.
        """
        means = self.mean_squares(tensor)
        if means is None:
            return None
        entry, seen = self.entries[tensor.name], ~np.isnan(means).any(axis=1)
        if seen.all() and not entry.routed:
            return means
        hits = np.maximum(entry.counts, 1)
        trust = np.where(seen, hits / (hits + (FEW_HITS if entry.routed else 0)), 0).astype(np.float32)
        known, trusted = np.nan_to_num(means, nan=0.0), trust[:, None]
        mean = (trusted * known).sum(axis=0) / trust.sum()
        return trusted * known + (1 - trusted) * mean

    def foreign_entries(self, model: Model) -> tuple[str, ...]:
        """The names of entries that are no tensors of the model: llama-quantize passes over them."""
        return tuple(name for name in self.entries if name not in model.by_name)

    def without(self, names: Collection[str]) -> "Imatrix":
        """Without the data of these tensors. It has the same digest: the file is the same."""
        entries = {name: entry for name, entry in self.entries.items() if name not in names}
        return replace(self, entries=entries, excluded=self.excluded | frozenset(names))

    def with_data(self, model: Model) -> "Imatrix":
        """Itself, without what is no data: entries of zeros left out, experts of zeros without hits. It has the same digest."""
        entries = {name: _with_data(self, name, entry, model) for name, entry in self.entries.items()}
        return replace(self, entries={name: entry for name, entry in entries.items() if entry})

    def check_belongs_to(self, model: Model) -> None:
        """ModelMismatch where a tensor has another size or most entries are no tensors of the model: then the imatrix was made
        from another model. A few entries too many prove nothing, see ``foreign_entries``.
        """
        again = "it was made from another model; make one with `quantplan imatrix`"
        for name, entry in self.entries.items():
            tensor = model.by_name.get(name)
            if tensor and entry.sum2.size != tensor.columns * tensor.experts:
                raise ModelMismatch(
                    f"{self.path}: the imatrix has {entry.sum2.size} values for {name}, the model {model.path.name} has "
                    f"{tensor.experts} x {tensor.columns}: {again}"
                )
        foreign = self.foreign_entries(model)
        if 2 * len(foreign) > len(self.entries) or len(foreign) == len(self.entries):
            raise ModelMismatch(
                f"{self.path}: {len(foreign)} of {len(self.entries)} entries ({foreign[0]} ...) are no tensors of "
                f"{model.path.name}: {again}"
                if foreign
                else f"{self.path}: the imatrix has no entries; make one with `quantplan imatrix`"
            )


def foreign_notes(imatrix: Imatrix, model: Model) -> list[str]:
    """What a person should know about entries that are no tensors of the model."""
    foreign = imatrix.foreign_entries(model)
    if not foreign:
        return []
    shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
    return [
        f"{imatrix.path.name} has {len(foreign)} entries that are no tensors of {model.path.name}, which are ignored: {shown}"
    ]


def _with_data(imatrix: Imatrix, name: str, entry: ImatrixEntry, model: Model) -> ImatrixEntry | None:
    tensor = model.by_name.get(name)
    if tensor is None or entry.sum2.size != tensor.columns * tensor.experts:
        return entry
    means = imatrix.mean_squares(tensor)
    if means is None:
        return None
    empty = np.isnan(means).any(axis=1)
    if not (empty & np.broadcast_to(entry.counts > 0, len(empty))).any():
        return entry
    sums = entry.sum2.reshape(means.shape)
    counts = np.where(empty, 0, entry.counts)
    return ImatrixEntry(name, sums, counts, None if entry.sum1 is None else entry.sum1.reshape(means.shape))


@dataclass(frozen=True)
class Coverage:
    """How many experts of a tensor the calibration text reached. ``rare``: with hits, but fewer than FEW_HITS."""

    tensor: str
    experts: int
    unseen: int
    rare: int


def coverage(imatrix: Imatrix) -> tuple[Coverage, ...]:
    """One for each tensor of routed experts, in the file's order; none from legacy files, which do not tell."""
    return tuple(
        Coverage(name, entry.counts.size, int(entry.unseen.sum()), int(entry.rare.sum()))
        for name, entry in imatrix.entries.items()
        if entry.routed
    )


def coverage_notes(imatrix: Imatrix, model: Model | None = None) -> list[str]:
    """What a person should know about experts that the calibration text missed or hardly reached, a sentence each.

    Also about sums that are all zero; with ``model`` also which of its tensors the file does not have.
    """
    coverages = coverage(imatrix)
    notes = _zero_notes(imatrix, model)
    if partial := [tensor for tensor in coverages if tensor.unseen]:
        worst = max(partial, key=lambda tensor: tensor.unseen)
        notes.append(
            f"{len(partial)} of {len(coverages)} expert tensors have experts that no token reached, most {worst.tensor} "
            f"({worst.unseen} of {worst.experts}): their errors are estimated from the mean of the others, and "
            "llama-quantize encodes them unweighted; more or other calibration text may reach them"
        )
    if thin := [tensor for tensor in coverages if tensor.rare]:
        worst = max(thin, key=lambda tensor: tensor.rare)
        notes.append(
            f"{len(thin)} of {len(coverages)} expert tensors have experts with fewer than {FEW_HITS} hits, most {worst.tensor} "
            f"({worst.rare} of {worst.experts}): their errors are estimated mostly from the mean of all experts"
        )
    notes += _extreme_notes(imatrix)
    return notes + (_untold(imatrix, model) + _gaps(imatrix, model) if model else [])


def zero_sums(imatrix: Imatrix, model: Model | None = None) -> dict[str, int]:
    """By tensor how many matrices have sums of zero although tokens were counted; experts of legacy files need ``model``."""
    found = {}
    for name, entry in imatrix.entries.items():
        tensor = model.by_name.get(name) if model else None
        sums = entry.sum2.reshape(tensor.experts if tensor else len(entry.sum2), -1)
        zero = ~sums.any(axis=1) & np.broadcast_to(entry.counts > 0, len(sums))
        if zero.any():
            found[name] = int(zero.sum())
    return found


def _zero_notes(imatrix: Imatrix, model: Model | None) -> list[str]:
    zero = zero_sums(imatrix, model)
    if not zero:
        return []
    return [
        f"{imatrix.path.name}: all sums of {_some(zero)} are zero, in whole or for single experts: that is no data. They are "
        "judged by plain squares, and llama-quantize gets an imatrix without them"
    ]


def _extreme_notes(imatrix: Imatrix) -> list[str]:
    extreme = []
    for name, entry in imatrix.entries.items():
        median = np.median(entry.sum2, axis=1)
        if (entry.sum2.max(axis=1) > _EXTREME * median)[median > 0].any():
            extreme.append(name)
    if not extreme:
        return []
    return [
        f"columns of {_some(extreme)} are more than {_EXTREME:g} times the median: such importance may spoil all other columns; "
        "a plan is made after both encodings were tried"
    ]


def _gaps(imatrix: Imatrix, model: Model) -> list[str]:
    """The matrices in blocks without data, experts left out: they have a note of their own."""
    matrices = [t for t in model.tensors if _has_data_elsewhere(t, imatrix)]
    named = zero_sums(imatrix, model)
    missing = [t for t in matrices if t.name not in named and imatrix.mean_squares(t) is None]
    if not missing:
        return []
    blocks = runs_text(sorted({tensor.block for tensor in missing if tensor.block is not None}))
    return [
        f"{imatrix.path.name} has no data for {len(missing)} of {len(matrices)} matrices in blocks ({missing[0].name}; blocks "
        f"{blocks}): they are judged by plain squares and take no type that needs data"
    ]


def _has_data_elsewhere(tensor: Tensor, imatrix: Imatrix) -> bool:
    """Whether it is a matrix in a block whose role the imatrix knows: what no block has data for, nobody collects."""
    if tensor.block is None or len(tensor.shape) < 2 or tensor.routed:
        return False
    return any(role_of(name) == tensor.role for name in imatrix.entries)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _untold(imatrix: Imatrix, model: Model) -> list[str]:
    routed = [tensor.name for tensor in model.tensors if tensor.routed]
    missing = [name for name in routed if name not in imatrix.entries]
    notes = []
    if missing:
        notes.append(
            f"{imatrix.path.name} has no data for {len(missing)} of {len(routed)} expert tensors ({missing[0]})"
        )
    if len(missing) < len(routed) and not any(entry.routed for entry in imatrix.entries.values()):
        notes.append(
            f"{imatrix.path.name} is of the legacy .dat form, which does not record how often experts were hit"
        )
    return notes
