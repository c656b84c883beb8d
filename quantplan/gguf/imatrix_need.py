"""Which types a tensor can only take with imatrix data, and which tensors of an assignment do not have it."""

from collections.abc import Mapping

from quantplan.errors import ImatrixNeeded
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import ggml
from quantplan.quant_type import QuantType
from quantplan.tensor import Model, Tensor

# llama-quantize refuses no type for these (``tensor_requires_imatrix`` in llama-quant.cpp), ggml refuses some
_EXEMPT = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
_WITHOUT_NEED = ("Q2_K", "Q3_K", "IQ3_S", "Q4_K", "IQ4_XS", "Q5_K", "Q6_K", "Q8_0")


def needs_imatrix(name: str, quant: QuantType) -> bool:
    """Whether llama-quantize, or ggml below it, refuses the type for the tensor of that name without imatrix data."""
    return (quant.needs_imatrix and name not in _EXEMPT) or ggml.aborts_without_imatrix(quant)


def check_stock_quant(model: Model, ftype: str, types: Mapping[str, QuantType], imatrix: Imatrix | None) -> None:
    """ImatrixNeeded for a stock quant that llama-quantize refuses without imatrix data whose types it takes elsewhere."""
    changed = (name for name, quant in types.items() if quant.name == "Q2_K" and quant != model.by_name[name].type)
    refused = next((name for name in changed if name not in _EXEMPT), None)
    if ftype == "Q2_K_S" and imatrix is None and refused:
        raise ImatrixNeeded(
            f"llama-quantize makes no {ftype} without imatrix data ({refused}); give --imatrix FILE, or take Q2_K"
        )


def has_imatrix_data(tensor: Tensor, imatrix: Imatrix | None) -> bool:
    """Whether llama-quantize finds data for the tensor in the imatrix."""
    return imatrix is not None and imatrix.quantize_weights(tensor) is not None


def without_imatrix_data(model: Model, assignment: Mapping[str, QuantType], imatrix: Imatrix | None) -> list[str]:
    """``tensor (type)`` for each tensor whose type needs imatrix data that is not there; copied tensors need none."""
    return [
        f"{name} ({quant})"
        for name, quant in assignment.items()
        if quant != model.by_name[name].type
        and needs_imatrix(name, quant)
        and not has_imatrix_data(model.by_name[name], imatrix)
    ]


def check_imatrix_data(model: Model, assignment: Mapping[str, QuantType], imatrix: Imatrix | None) -> None:
    """ImatrixNeeded naming the tensors whose type needs imatrix data that is not there."""
    missing = without_imatrix_data(model, assignment, imatrix)
    if missing:
        where = (
            "there is no imatrix; give --imatrix FILE"
            if imatrix is None
            else f"{imatrix.path.name} has no data for them"
        )
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ImatrixNeeded(
            f"{', '.join(missing[:3])}{more} cannot be made without imatrix data and {where}, or choose "
            f"larger types (these need no data: {', '.join(_WITHOUT_NEED)})"
        )
