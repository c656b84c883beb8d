"""The types that a tensor can be stored in."""

from quantplan.errors import NothingSelected
from quantplan.gguf.imatrix_need import has_imatrix_data
from quantplan.imatrix import Imatrix
from quantplan.quant_type import QuantType, fitted
from quantplan.sensitivity.round_trip import stored_candidates
from quantplan.tensor import Tensor


def candidates(tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None) -> tuple[QuantType, ...]:
    """Types that the tensor can be stored in."""
    return stored_candidates(tensor, types, has_imatrix_data(tensor, imatrix))


def check_storable(tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None) -> None:
    """NothingSelected, saying why, where the tensor can be stored in none of the types, nor be copied."""
    if not candidates(tensor, types, imatrix):
        raise _refusal(tensor, types, imatrix)


def check_left(tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None) -> None:
    """NothingSelected, saying why, where the tensor can be stored in none of the types that constraints leave it."""
    if not any(kind in candidates(tensor, (kind,), imatrix) for kind in types):
        raise _refusal(tensor, types, imatrix)


def _refusal(tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None) -> NothingSelected:
    names = ", ".join(kind.name for kind in types)
    reason = (
        f"they are larger than {tensor.type}, as which it is stored now"
        if all(tensor.bytes_as(fitted(kind, tensor.columns)) > tensor.bytes for kind in types)
        else "they need an imatrix; make one with `quantplan imatrix`"
        if imatrix is None
        else f"they need imatrix data, and {imatrix.path.name} has none for it"
    )
    return NothingSelected(
        f"{tensor.name} cannot be stored as {names}: {reason}; or choose other types with --types or --pin"
    )
