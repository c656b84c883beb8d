"""Which types can be rounded with compensation, by name."""

from __future__ import annotations

from quantplan.errors import NothingSelected
from quantplan.quant_type import QuantType
from quantplan.rounding.blocks import ScalarBlocks
from quantplan.rounding.k_blocks import SUPER
from quantplan.rounding.legacy_blocks import LEGACY

SCALAR: dict[str, ScalarBlocks] = {layout.name: layout for layout in (*LEGACY, *SUPER)}


def can_compensate(kind: QuantType) -> bool:
    """Whether ``compensate`` knows the type's blocks."""
    return kind.name in SCALAR


def layout_of(kind: QuantType) -> ScalarBlocks:
    """The type's layout; NothingSelected for types that cannot be compensated."""
    if not can_compensate(kind):
        raise NothingSelected(f"{kind} cannot be rounded with error compensation; possible: {', '.join(SCALAR)}")
    return SCALAR[kind.name]
