"""What belongs to a model's tensors goes where they go: the types that a plan gives them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quantplan import __version__
from quantplan.errors import QuantplanError
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix
from quantplan.plan import Plan
from quantplan.recipes.emit import layer_types_text
from quantplan.recipes.import_plan import import_file
from quantplan.surgery.assembly import TensorPart
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model


def follow_plan(
    plan: Plan, parts: Sequence[TensorPart], layer_map: LayerMap, written: Model, imatrix: Imatrix | None
) -> tuple[Plan, tuple[str, ...]]:
    """The plan of the ``written`` model, exact to the byte and pinned to it, and notes on what could not follow.

    Each tensor gets the type that its source has in ``plan``, a sum of several the one of most bits. ``imatrix``: that of the
    new model, where the plan was made with one. Raises BadUsage where a type needs imatrix data that is not there.
    """
    ruled = {tensor.name: tensor.type for tensor in plan.tensors if tensor.rule}
    types = {
        part.name: max((ruled[tensor.name] for tensor, _ in part.sources), key=lambda kind: kind.bits)
        for part in parts
        if all(tensor.name in ruled for tensor, _ in part.sources)
    }
    made_from: dict[str, object] = {
        "quantplan": __version__,
        "followed": {"model": plan.model_name, "digest": plan.model_digest, "layer_map": layer_map.digest},
    }
    bare = make_plan(written, types, imatrix, made_from=made_from)
    notes = [f"{what} of the plan did not follow: {why}" for what, why in _left_out(plan)]
    named = _with_layer_types(plan, bare, layer_map, written, imatrix)
    if plan.layer_types and not named.layer_types:
        notes.append(
            "the plan's LAYER_TYPES did not follow: in their new places these mixes stand for other types; the plan says the "
            "type of each tensor"
        )
    return named, tuple(notes)


def _left_out(plan: Plan) -> list[tuple[str, str]]:
    left = []
    if plan.predicted_kld is not None:
        left.append(("the expected KLD", "it is that of the original"))
    if plan.limits or plan.on_cpu or plan.predicted_tps:
        left.append(("limits, speeds and tensors kept in RAM", "plan them anew with `quantplan solve`"))
    return left


def _with_layer_types(plan: Plan, bare: Plan, layer_map: LayerMap, written: Model, imatrix: Imatrix | None) -> Plan:
    """With the FTYPE of each layer's source, where that still stands for the same types: mixes go by a layer's number too."""
    if not plan.layer_types:
        return bare
    names = dict(plan.layer_types)
    layers = tuple((index, names[layer.blocks[0]]) for index, layer in enumerate(layer_map.layers))
    more = {"layer_names": plan.made_from["layer_names"]} if "layer_names" in plan.made_from else {}
    mapped = replace(bare, layer_types=layers, flags=plan.flags, made_from=bare.made_from | more)
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        text = Path(folder) / "layer-types.txt"
        text.write_text(layer_types_text(mapped), encoding="utf-8")
        try:
            meant = import_file(text, written, imatrix).plan
        except QuantplanError:
            return bare
    return mapped if meant.types == mapped.types else bare
