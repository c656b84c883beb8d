"""What belongs to a model's tensors goes where they go: the entries of an imatrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantplan.imatrix import Imatrix, ImatrixEntry

if TYPE_CHECKING:
    from quantplan.surgery.assembly import TensorPart


def followed_entry(part: TensorPart, imatrix: Imatrix) -> ImatrixEntry | None:
    """The entry of a tensor of the new model; None where a source of it has none.

    A copy has its source's. The inputs of a blend were never seen: sums and counts of its sources are averaged by their shares.
    """
    found = [imatrix.entries.get(tensor.name) for tensor, _ in part.sources]
    entries = [entry for entry in found if entry is not None]
    if len(entries) < len(found):
        return None
    if len(entries) == 1:
        return replace(entries[0], name=part.name)
    shapes = {(entry.sum2.shape, entry.counts.shape) for entry in entries}
    if len(shapes) > 1:
        return None
    shares = np.abs([factor for _, factor in part.sources])
    shares = shares / shares.sum()
    first = [entry.sum1 for entry in entries if entry.sum1 is not None]
    return ImatrixEntry(
        part.name,
        _average([entry.sum2 for entry in entries], shares).astype(np.float32),
        np.rint(_average([entry.counts for entry in entries], shares)).astype(np.int64),
        _average(first, shares).astype(np.float32) if len(first) == len(entries) else None,
    )


def _average(arrays: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    return sum(array.astype(np.float64) * share for array, share in zip(arrays, shares, strict=True))  # type: ignore[return-value]


def follow_imatrix(imatrix: Imatrix, parts: Sequence[TensorPart], path: Path) -> Imatrix:
    """The imatrix of the new model, to be written to ``path``; the digest is known when it is."""
    found = {part.name: followed_entry(part, imatrix) for part in parts}
    entries = {name: entry for name, entry in found.items() if entry is not None}
    return replace(imatrix, path=path, entries=entries, digest="")


def imatrix_notes(imatrix: Imatrix, parts: Sequence[TensorPart]) -> tuple[str, ...]:
    """What a person should know about an imatrix that followed; nothing where all stayed in its place."""
    if all(part.copied and part.name == part.first.name for part in parts):
        return ()
    followed = [part for part in parts if all(tensor.name in imatrix.entries for tensor, _ in part.sources)]
    averaged = [part.name for part in followed if len(part.sources) > 1]
    notes = [
        "the imatrix holds what went into the original's layers; behind the first edit activations are others, so one made "
        "from the new model is better: `quantplan imatrix`"
    ]
    if averaged:
        notes.append(
            f"{len(averaged)} entries of the imatrix, of blended tensors such as {averaged[0]}, are averages of their "
            "sources' by share, an approximation: nobody measured their inputs"
        )
    return tuple(notes)
