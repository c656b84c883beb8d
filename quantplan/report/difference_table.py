"""Two plans or files side by side. Nothing is computed here but differences of what stands beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantplan.planning.difference import PlanDifference, TensorDifference

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN = "-"


def difference_table(found: PlanDifference, names: tuple[str, str], every: bool) -> Table:
    """One row a tensor that differs (``every``: all tensors), the files' totals below."""
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("tensor", no_wrap=True)
    for name in names:
        table.add_column(name)
    for heading in ("bytes", "bytes", "more", "damage", "damage", "more"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found.lines if every else found.changed:
        one, other = each.bytes
        table.add_row(each.tensor, *each.types, f"{one:,}", f"{other:,}", f"{other - one:+,}", *_damages(each.damage))
    one, other = found.file_bytes
    klds = tuple(None if each is None else each[0] for each in found.kld)
    table.add_section()
    table.add_row("file, expected KLD", "", "", f"{one:,}", f"{other:,}", f"{other - one:+,}", *_damages(klds))
    return table


def _damages(pair: tuple[float | None, float | None]) -> tuple[str, str, str]:
    one, other = pair
    more = UNKNOWN if one is None or other is None else f"{other - one:+.3g}"
    return _number(one), _number(other), more


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"


def difference_fields(found: PlanDifference, every: bool) -> dict[str, object]:
    return {
        "file_bytes": list(found.file_bytes),
        "predicted_kld": [each and each[0] for each in found.kld],
        "predicted_kld_err": [each and each[1] for each in found.kld],
        "differing": len(found.changed),
        "tensors": [_fields(each) for each in (found.lines if every else found.changed)],
    }


def _fields(line: TensorDifference) -> dict[str, object]:
    return {"name": line.tensor, "types": list(line.types), "bytes": list(line.bytes), "damage": list(line.damage)}
