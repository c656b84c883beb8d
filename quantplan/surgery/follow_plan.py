"""The plan of an edited model: the types that the original's plan gives, moved with their tensors."""

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
from quantplan.surgery.edited_tensors import EditedTensor
from quantplan.surgery.layer_map import LayerMap
from quantplan.tensor import Model


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
