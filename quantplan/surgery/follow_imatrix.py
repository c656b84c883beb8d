"""The imatrix of an edited model: the original's entries, moved with their tensors."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.surgery.edited_tensors import EditedTensor


def followed_entry(tensor: EditedTensor, imatrix: Imatrix) -> ImatrixEntry | None:
    """The entry of a tensor of the new model; None where a source has none, or where the sources' entries differ in shape.

    A copy has its source's entry. The inputs of a blend were never measured: the sources' sums and counts are averaged by share.
    """
    entries = [imatrix.entries[source.name] for source, _ in tensor.sources if source.name in imatrix.entries]
    if len(entries) < len(tensor.sources):
        return None
    if len(entries) == 1:
        return replace(entries[0], name=tensor.name)
    if len({(entry.sum2.shape, entry.counts.shape) for entry in entries}) > 1:
        return None
    shares = [abs(factor) for _, factor in tensor.sources]
    sums = [entry.sum1 for entry in entries if entry.sum1 is not None]
    return ImatrixEntry(
        tensor.name,
        _average([entry.sum2 for entry in entries], shares).astype(np.float32),
        np.rint(_average([entry.counts for entry in entries], shares)).astype(np.int64),
        _average(sums, shares).astype(np.float32) if len(sums) == len(entries) else None,
    )


def _average(arrays: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    return np.average(np.asarray(arrays, np.float64), axis=0, weights=shares)


def follow_imatrix(imatrix: Imatrix, tensors: Sequence[EditedTensor], path: Path) -> Imatrix:
    """The imatrix of the new model, to be written to ``path``; its digest is known once it is written."""
    entries = {tensor.name: entry for tensor in tensors if (entry := followed_entry(tensor, imatrix)) is not None}
    return replace(imatrix, path=path, entries=entries, digest="")


def imatrix_notes(imatrix: Imatrix, tensors: Sequence[EditedTensor]) -> tuple[str, ...]:
    """Notes for a person on an imatrix that followed; none where every tensor stayed in its place."""
    if all(tensor.copied and tensor.name == tensor.first.name for tensor in tensors):
        return ()
    averaged = [
        tensor.name
        for tensor in tensors
        if len(tensor.sources) > 1 and all(source.name in imatrix.entries for source, _ in tensor.sources)
    ]
    notes = [
        "the imatrix was measured on the original; after the first edited layer the activations differ, so an imatrix of the "
        "new model is better: `quantplan imatrix`"
    ]
    if averaged:
        notes.append(
            f"{len(averaged)} imatrix entries of blended tensors, such as {averaged[0]}, are averages of their sources' "
            "entries by share: an approximation, their inputs were not measured"
        )
    return tuple(notes)
