"""Making plans: from one type for each quantizable tensor to a plan whose size is exact to the byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.writer import ImatrixNote, metadata_bytes
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.plan import ImatrixUse, Plan, PlannedTensor
from quantplan.quant_type import QuantType, fitted
from quantplan.tensor import Model, padded

# llama-quantize refuses no type for these (``tensor_requires_imatrix`` in llama-quant.cpp), ggml refuses some
_EXEMPT = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
_FREE = ("Q2_K", "Q3_K", "IQ3_S", "Q4_K", "IQ4_XS", "Q5_K", "Q6_K", "Q8_0")
_BASE_OF_FLOATS = "Q8_0"  # rules only work beside a quantized base type


def make_plan(model: Model, assignment: Mapping[str, QuantType], imatrix: Imatrix | None = None, **fields: Any) -> Plan:
    """The plan that stores each tensor of ``assignment`` as told and copies all others.

    ``assignment`` names every tensor that llama-quantize would quantize (``llamacpp.quantize.quantizable``),
    with the type to be stored; ``fields`` are the remaining fields of Plan (budget, prediction, outcome ...).
    Raises NothingSelected for a tensor that the model does not have, BadUsage for a type that does not fit
    its rows or lacks its imatrix data.
    """
    check_assignment(model, assignment)
    check_imatrix_data(model, assignment, imatrix)
    use = imatrix_use(imatrix) if imatrix else None
    tensors = tuple(
        PlannedTensor(each.name, kind, each.bytes_as(kind), each.name in assignment)
        for each in model.tensors
        for kind in (assignment.get(each.name, each.type),)
    )
    metadata = metadata_bytes(model, imatrix_note(use))
    return Plan(
        model_path=str(model.path),
        model_name=model.name,
        model_digest=model.digest,
        tensors=tensors,
        base_ftype=base_ftype(tensors),
        metadata_bytes=metadata,
        file_bytes=metadata + sum(padded(each.bytes) for each in tensors),
        imatrix=use,
        **fields,
    )


def base_ftype(tensors: Iterable[PlannedTensor]) -> str:
    """The file type of the quantized type with most bytes: it names the file, rules decide the types."""
    sizes: dict[str, int] = {}
    for each in tensors:
        if each.rule and each.type.family != "float" and each.type.ftype:
            sizes[each.type.ftype] = sizes.get(each.type.ftype, 0) + each.bytes
    return max(sizes, key=lambda name: sizes[name], default=_BASE_OF_FLOATS)


def imatrix_use(imatrix: Imatrix) -> ImatrixUse:
    return ImatrixUse(
        path=str(imatrix.path),
        digest=imatrix.digest,
        dataset=imatrix.datasets[0] if imatrix.datasets else None,
        entries=len(imatrix.entries),
        chunks=imatrix.chunk_count,
    )


def imatrix_note(use: ImatrixUse | None) -> ImatrixNote | None:
    """What llama-quantize writes into the file when it is given the imatrix by its bare file name."""
    return ImatrixNote(use.file, use.dataset, use.entries, use.chunks) if use else None


def check_assignment(model: Model, assignment: Mapping[str, QuantType]) -> None:
    """NothingSelected for unknown tensors, BadUsage for types that do not fit or cannot be written."""
    for name, kind in assignment.items():
        tensor = model.by_name.get(name)
        if tensor is None:
            raise NothingSelected(f"{model.path.name} has no tensor {name}; was the assignment made for another model?")
        if not kind.fits(tensor.columns):
            raise BadUsage(
                f"{name} cannot be stored as {kind}: its rows of {tensor.columns} do not divide into blocks "
                f"of {kind.block}; llama-quantize would store {fitted(kind, tensor.columns)}"
            )


def needs_imatrix(name: str, kind: QuantType) -> bool:
    """Whether llama-quantize, or ggml below it, refuses this type without imatrix data."""
    return (kind.needs_imatrix and name not in _EXEMPT) or ggml.aborts_without_imatrix(kind)


def lacking_imatrix(model: Model, assignment: Mapping[str, QuantType], imatrix: Imatrix | None) -> list[str]:
    """``tensor (type)`` for each tensor whose type needs imatrix data that is not there."""
    return [
        f"{name} ({kind})"
        for name, kind in assignment.items()
        if kind != model.by_name[name].type
        and needs_imatrix(name, kind)
        and (imatrix is None or imatrix.quantize_weights(model.by_name[name]) is None)
    ]


def check_imatrix_data(model: Model, assignment: Mapping[str, QuantType], imatrix: Imatrix | None) -> None:
    """BadUsage naming the tensors whose type needs imatrix data that is not there."""
    lacking = lacking_imatrix(model, assignment, imatrix)
    if lacking:
        where = (
            "there is no imatrix; give --imatrix FILE"
            if imatrix is None
            else f"{imatrix.path.name} has no data for them"
        )
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise BadUsage(
            f"{', '.join(lacking[:3])}{more} cannot be made without imatrix data and {where}, or choose "
            f"larger types (these need no data: {', '.join(_FREE)})"
        )
