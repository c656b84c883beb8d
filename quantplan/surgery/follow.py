"""Imatrix and plan of an edited model: those of the original, moved with its tensors."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quantplan import __version__
from quantplan.errors import QuantplanError
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix, ImatrixEntry
from quantplan.plan import Plan
from quantplan.recipes.emit import layer_types_text
from quantplan.recipes.import_plan import import_file
from quantplan.surgery.edited_tensors import EditedTensor
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model


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


def follow_plan(
    plan: Plan, tensors: Sequence[EditedTensor], layer_map: LayerMap, written: Model, imatrix: Imatrix | None
) -> tuple[Plan, tuple[str, ...]]:
    """The plan of the ``written`` model, exact to the byte and pinned to it, and notes on what could not follow.

    Each tensor gets the type of its source in ``plan``, of several sources the type with the most bits. ``imatrix``: that of
    the new model, where the plan was made with one. Raises BadUsage where a type needs imatrix data that is missing.
    """
    planned = {tensor.name: tensor.type for tensor in plan.tensors if tensor.rule}
    types = {
        tensor.name: max((planned[source.name] for source, _ in tensor.sources), key=lambda type_: type_.bits)
        for tensor in tensors
        if all(source.name in planned for source, _ in tensor.sources)
    }
    made_from: dict[str, object] = {
        "quantplan": __version__,
        "followed": {"model": plan.model_name, "digest": plan.model_digest, "layer_map": layer_map.digest},
    }
    followed = make_plan(written, types, imatrix, made_from=made_from)
    notes = _left_out(plan)
    if plan.layer_types:
        followed = _with_layer_types(plan, followed, layer_map, written, imatrix)
        if not followed.layer_types:
            notes.append(
                "LAYER_TYPES of the plan did not follow: stock quants choose types by a layer's number, so in their new "
                "places they mean other types; the new plan lists the type of each tensor"
            )
    return followed, tuple(notes)


def _left_out(plan: Plan) -> list[str]:
    notes = []
    if plan.predicted_kld is not None:
        notes.append("the expected KLD of the plan did not follow: it holds for the original")
    if plan.limits or plan.on_cpu or plan.predicted_tps:
        notes.append(
            "limits, speeds and tensors kept in RAM did not follow from the plan: plan again with `quantplan solve`"
        )
    return notes


def _with_layer_types(plan: Plan, followed: Plan, layer_map: LayerMap, written: Model, imatrix: Imatrix | None) -> Plan:
    """``followed`` with the stock quant of each layer's source, if that still means the same types: they depend on a layer's
    number, too.
    """
    names = dict(plan.layer_types)
    layers = tuple((index, names[block]) for index, block in enumerate(layer_map.source_blocks))
    more = {"layer_names": plan.made_from["layer_names"]} if "layer_names" in plan.made_from else {}
    named = replace(followed, layer_types=layers, flags=plan.flags, made_from=followed.made_from | more)
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        text = Path(folder) / "layer-types.txt"
        text.write_text(layer_types_text(named), encoding="utf-8")
        try:
            meant = import_file(text, written, imatrix).plan
        except QuantplanError:
            return followed
    return named if meant.types == named.types else followed
