"""Error-compensated rounding in words, tables and JSON: which tensors have it, what it gains, and what rules leave out."""

from collections.abc import Sequence

from quantplan.plan import Plan
from quantplan.planning.rounding_gain import RoundingGain
from quantplan.report.cells import number
from quantplan.report.table import Columns, Table, table_of

SHOWN = 10


def rules_note(compensated: int) -> str:
    """What every place says that shows rules of a plan with so many compensated tensors; nothing where there are none."""
    if not compensated:
        return ""
    return (
        f"the rules rebuild the types, not the compensated rounding of {_tensors(compensated)}; `quantplan quantize` "
        "builds both"
    )


def rounding_words(compensated: int, tensors: int, kld: float | None, stock_kld: float | None) -> str:
    """How many of the planned ``tensors`` are compensated, and the expected KLD with and without; nothing for none."""
    if not compensated:
        return ""
    words = f"error-compensated for {compensated} of {_tensors(tensors)}"
    if kld is None or stock_kld is None:
        return words
    return f"{words}: expected KLD {number(kld, 3)}, {number(stock_kld, 3)} with llama-quantize's rounding of the same types"


def plan_rounding(plan: Plan) -> str:
    """``rounding_words`` of a plan."""
    tensors = sum(tensor.rule for tensor in plan.tensors)
    return rounding_words(len(plan.compensated), tensors, plan.predicted_kld, plan.stock_rounding_kld)


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def rounding_table(gains: Sequence[RoundingGain]) -> Table:
    """The largest gains, a tensor a row."""
    columns: Columns[RoundingGain] = (
        ("gained most by compensated rounding", lambda gain: gain.tensor),
        ("type", lambda gain: gain.type),
        ("damage", lambda gain: number(gain.damage)),
        ("stock rounding", lambda gain: number(gain.stock_damage)),
        ("gain", lambda gain: number(gain.gain, 3)),
    )
    return table_of("", columns, gains[:SHOWN], texts=(0, 1))


def rounding_fields(plan: Plan, gains: Sequence[RoundingGain] = ()) -> dict[str, object] | None:
    """The ``rounding`` of a plan in JSON; None without compensated tensors. ``gains``: where the table is at hand."""
    if not plan.compensated:
        return None
    known = {gain.tensor: gain for gain in gains}
    return {
        "compensated": len(plan.compensated),
        "predicted_kld": plan.predicted_kld,
        "stock_rounding_kld": plan.stock_rounding_kld,
        "note": rules_note(len(plan.compensated)),
        "tensors": [_fields(name, plan, known.get(name)) for name in plan.compensated],
    }


def _fields(name: str, plan: Plan, gain: RoundingGain | None) -> dict[str, object]:
    fields: dict[str, object] = {"name": name, "type": plan.types[name].name}
    return fields | ({"damage": gain.damage, "stock_damage": gain.stock_damage} if gain else {})
