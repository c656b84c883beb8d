"""What error-compensated rounding is expected to gain, tensor by tensor."""

from dataclasses import dataclass

from quantplan.plan import Plan
from quantplan.sensitivity_table import SensitivityTable


@dataclass(frozen=True)
class RoundingGain:
    """A compensated tensor: its ``damage``, and ``stock_damage`` with ggml's own rounding of the same type; nats per token."""

    tensor: str
    type: str
    damage: float
    stock_damage: float

    @property
    def gain(self) -> float:
        return self.stock_damage - self.damage


def rounding_gains(plan: Plan, table: SensitivityTable) -> tuple[RoundingGain, ...]:
    """The compensated tensors of a plan that the table knows, the largest gain first."""
    compensated, stock = table.rows, table.with_stock_rounding().rows
    gains = (
        RoundingGain(name, kind, compensated[name].damage(kind), stock[name].damage(kind))
        for name, kind in ((name, plan.types[name].name) for name in plan.compensated)
        if name in compensated and compensated[name].is_compensated(kind)
    )
    return tuple(sorted(gains, key=lambda each: -each.gain))
