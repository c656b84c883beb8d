"""Plans of one type for each quantizable tensor, with the exact size of the file that llama-quantize makes of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from quantplan.errors import BadUsage, NothingSelected
from quantplan.gguf.imatrix_need import check_imatrix_data
from quantplan.gguf.writer import ImatrixNote, metadata_bytes
from quantplan.imatrix import Imatrix
from quantplan.plan import ImatrixUse, Plan, PlannedTensor
from quantplan.quant_type import QuantType, fitted
from quantplan.tensor import Model, padded

_BASE_OF_FLOATS = "Q8_0"  # rules only work with a quantized base type


def make_plan(model: Model, assignment: Mapping[str, QuantType], imatrix: Imatrix | None = None, **fields: Any) -> Plan:
    """The plan that stores each tensor of ``assignment`` in its type and copies all others.

    ``assignment`` names every tensor that llama-quantize would quantize (``llamacpp.quantize.quantizable``),
    with the type to be stored; ``fields`` are the remaining fields of Plan (budget, prediction, outcome ...).
    Raises NothingSelected for a tensor that the model does not have, BadUsage for a type that does not fit
    its rows or has no imatrix data.
    """
    check_assignment(model, assignment)
    check_imatrix_data(model, assignment, imatrix)
    use = imatrix_use(imatrix) if imatrix else None
    if imatrix and use:
        zeros = imatrix.entries.keys() - imatrix.with_data(model).entries.keys()
        use = replace(use, excluded=tuple(sorted({*use.excluded, *zeros})))
    tensors = tuple(
        PlannedTensor(tensor.name, quant, tensor.bytes_as(quant), tensor.name in assignment)
        for tensor in model.tensors
        for quant in (assignment.get(tensor.name, tensor.type),)
    )
    metadata = metadata_bytes(model, imatrix_note(use))
    return Plan(
        model_path=str(model.path),
        model_name=model.name,
        model_digest=model.digest,
        tensors=tensors,
        base_ftype=base_ftype(tensors),
        metadata_bytes=metadata,
        file_bytes=metadata + sum(padded(tensor.bytes) for tensor in tensors),
        imatrix=use,
        **fields,
    )


def base_ftype(tensors: Iterable[PlannedTensor]) -> str:
    """The file type of the quantized type with most bytes: it names the file, rules decide the types."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.rule and tensor.type.family != "float" and tensor.type.ftype:
            sizes[tensor.type.ftype] = sizes.get(tensor.type.ftype, 0) + tensor.bytes
    return max(sizes, key=lambda name: sizes[name], default=_BASE_OF_FLOATS)


def imatrix_use(imatrix: Imatrix) -> ImatrixUse:
    return ImatrixUse(
        path=str(imatrix.path),
        digest=imatrix.digest,
        dataset=imatrix.datasets[0] if imatrix.datasets else None,
        entries=len(imatrix.entries),
        chunks=imatrix.chunk_count,
        excluded=tuple(sorted(imatrix.excluded)),
    )


def imatrix_note(use: ImatrixUse | None) -> ImatrixNote | None:
    """What llama-quantize writes into the file when it is given the imatrix by its bare file name."""
    return ImatrixNote(use.file, use.dataset, use.entries, use.chunks) if use else None


def check_assignment(model: Model, assignment: Mapping[str, QuantType]) -> None:
    """NothingSelected for unknown tensors, BadUsage for types that do not fit or cannot be written."""
    for name, quant in assignment.items():
        tensor = model.by_name.get(name)
        if tensor is None:
            raise NothingSelected(f"{model.path.name} has no tensor {name}; was the assignment made for another model?")
        if not quant.fits(tensor.columns):
            raise BadUsage(
                f"{name} cannot be stored as {quant}: its rows of {tensor.columns} do not divide into blocks "
                f"of {quant.block}; llama-quantize would store {fitted(quant, tensor.columns)}"
            )
