"""Which types can be rounded with compensation, by name."""

from quantplan.errors import NothingSelected
from quantplan.quant_type import QuantType
from quantplan.rounding.blocks import ScalarBlocks
from quantplan.rounding.grid_blocks import GRID, GridBlocks
from quantplan.rounding.k_blocks import SUPER
from quantplan.rounding.legacy_blocks import LEGACY

SCALAR: dict[str, ScalarBlocks] = {layout.name: layout for layout in (*LEGACY, *SUPER)}
CODEBOOK: dict[str, GridBlocks] = {layout.name: layout for layout in GRID}
LAYOUTS = SCALAR | CODEBOOK


def can_compensate(kind: QuantType) -> bool:
    """Whether ``compensate`` knows the type's blocks."""
    return kind.name in LAYOUTS


def layout_of(kind: QuantType) -> ScalarBlocks | GridBlocks:
    """The type's layout; NothingSelected for types that cannot be compensated."""
    if not can_compensate(kind):
        raise NothingSelected(f"{kind} cannot be rounded with error compensation; possible: {', '.join(LAYOUTS)}")
    return LAYOUTS[kind.name]


def column_group(kind: QuantType) -> int:
    """Columns that must stay together in the order of rounding: ``group`` of ``prepare``."""
    return 8 if kind.name in CODEBOOK else 1
