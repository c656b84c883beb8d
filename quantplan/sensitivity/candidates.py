"""The types that a tensor can be stored in."""

from quantplan.errors import NothingSelected
from quantplan.gguf.imatrix_need import has_imatrix_data
from quantplan.imatrix import Imatrix
from quantplan.quant_type import QuantType
from quantplan.sensitivity.round_trip import stored_candidates
from quantplan.tensor import Tensor


def candidates(tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None) -> tuple[QuantType, ...]:
    """Types that the tensor can be stored in."""
    return stored_candidates(tensor, types, has_imatrix_data(tensor, imatrix))


def check_storable(tensor: Tensor, types: tuple[QuantType, ...], imatrix: Imatrix | None) -> None:
    """NothingSelected, saying why, where the tensor can be stored in none of the types."""
    if candidates(tensor, types, imatrix):
        return
    names = ", ".join(kind.name for kind in types)
    without = stored_candidates(tensor, types, has_importance=True)
    reason = (
        f"they are larger than {tensor.type}, as which it is stored now"
        if not without
        else "they need an imatrix; make one with `quantplan imatrix`"
        if imatrix is None
        else f"they need imatrix data, and {imatrix.path.name} has none for it"
    )
    raise NothingSelected(
        f"{tensor.name} cannot be stored as {names}: {reason}; or choose other types with --types or --pin"
    )
