"""A plan explained, as tables and JSON. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantplan.budget import human_bytes
from quantplan.planning.explain import ConstraintCost, Explanation, TensorExplanation
from quantplan.solve.explain import MB, GroupGain

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 10
_PER = 100_000_000  # bytes that the shadow price is given for


def summary(found: Explanation, constraints: Sequence[ConstraintCost]) -> list[str]:
    """Prediction, price, and what binds, a line each."""
    plan, outcome = found.plan, found.plan.outcome
    lines = [f"file      {plan.file_bytes:,} bytes ({human_bytes(plan.file_bytes)})"]
    if plan.predicted_kld is not None:
        error = "" if plan.predicted_kld_err is None else f" ± {plan.predicted_kld_err:.2g}"
        note = "" if plan.calibrated else " (not calibrated: for ranking only)"
        lines.append(f"expected  KLD {plan.predicted_kld:.5g}{error} nats/token{note}")
    if found.price is None:
        lines.append(f"price     none: the plan minimises the {outcome.minimised} of damages, not their sum")
    else:
        lines.append(
            f"price     {found.price * _PER:.3g} nats per 100 MB ({found.price * MB:.3g} per MB), at the margin"
        )
    if found.free_bytes is not None:
        binds = "binds" if found.price else "does not bind"
        lines.append(f"budget    {binds}: {found.free_bytes:,} of {plan.budget_bytes:,} bytes are left")
    for each in plan.limits:
        price = outcome.prices.get(each.name, 0.0)
        words = f"binds ({price:.3g} nats per {each.unit})" if price else "does not bind"
        lines.append(f"limit     {each.name} {words}: {each.used:,} of {each.limit:,} {each.unit} are used")
    for constraint in constraints:
        tensors = "1 tensor" if constraint.tensors == 1 else f"{constraint.tensors} tensors"
        lines.append(f"wish      {constraint.constraint} binds for {tensors}: {constraint.nats:.3g} nats net of bytes")
    if found.request.constraints.ties:
        lines.append(f"wish      ties: {', '.join(found.request.constraints.ties)}")
    return lines


def ranked(found: Sequence[GroupGain]) -> dict[str, tuple[GroupGain, ...]]:
    """The ten first of each ranking."""
    upgrades = sorted((each for each in found if each.up), key=lambda each: -each.up.rate)
    return {
        "most damage left": tuple(sorted(found, key=lambda each: -each.chosen.damage)[:SHOWN]),
        "gained most from their bytes": tuple(sorted(found, key=lambda each: -each.surplus)[:SHOWN]),
        "upgraded next": tuple(upgrades[:SHOWN]),
    }


def standings_table(title: str, found: Sequence[GroupGain]) -> Table:
    table = _table(title, "type", "size", "damage", "net gain", "next step", "saves", "per MB")
    for each in found:
        up = each.up
        step = (
            ("", "", "") if up is None else (up.label, f"{each.chosen.damage - up.damage:.3g}", f"{up.rate * MB:.3g}")
        )
        own = each.chosen
        table.add_row(each.group, own.label, human_bytes(own.bytes), f"{own.damage:.4g}", f"{each.surplus:.3g}", *step)
    return table


def curve_table(found: TensorExplanation, price: float | None) -> Table:
    """The curve; the chosen type is marked, rates stand against the price."""
    table = _table(found.group, "bytes", "damage", "saves per MB", "price per MB", "")
    for rung in found.rungs:
        rate = "" if rung.rate is None else f"{rung.rate * MB:.3g}"
        shown = "" if price is None or rung.rate is None else f"{price * MB:.3g}"
        table.add_row(
            rung.label, f"{rung.bytes:,}", f"{rung.damage:.4g}", rate, shown, "<- chosen" if rung.chosen else ""
        )
    return table


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for at, heading in enumerate(headings):
        table.add_column(
            heading, justify="left" if at == 0 or heading in ("type", "next step", "") else "right", no_wrap=True
        )
    return table


def plan_fields(found: Explanation, constraints: Sequence[ConstraintCost]) -> dict[str, object]:
    plan = found.plan
    return {
        "file_bytes": plan.file_bytes,
        "predicted_kld": plan.predicted_kld,
        "predicted_kld_err": plan.predicted_kld_err,
        "price_per_100_mb": None if found.price is None else found.price * _PER,
        "budget_bytes": plan.budget_bytes,
        "free_bytes": found.free_bytes,
        "limits": [
            {
                "name": each.name,
                "unit": each.unit,
                "limit": each.limit,
                "used": each.used,
                "price": plan.outcome.prices.get(each.name, 0.0),
            }
            for each in plan.limits
        ],
        "wishes": [{"wish": each.constraint, "tensors": each.tensors, "nats": each.nats} for each in constraints],
        "tensors": [_standing_fields(each) for each in found.standings],
    }


def _standing_fields(each: GroupGain) -> dict[str, object]:
    up = each.up and {
        "type": each.up.label,
        "bytes": each.up.bytes,
        "damage": each.up.damage,
        "per_mb": each.up.rate * MB,
    }
    own = each.chosen
    return {
        "name": each.group,
        "type": own.label,
        "bytes": own.bytes,
        "damage": own.damage,
        "net_gain": each.surplus,
        "next": up,
    }


def tensor_fields(found: TensorExplanation, price: float | None) -> dict[str, object]:
    return {
        "name": found.group,
        "tensors": list(found.tensors),
        "source": found.source,
        "relative_error": found.relative_error,
        "price_per_mb": None if price is None else price * MB,
        "curve": [
            {
                "type": rung.label,
                "bytes": rung.bytes,
                "damage": rung.damage,
                "chosen": rung.chosen,
                "saves_per_mb": None if rung.rate is None else rung.rate * MB,
            }
            for rung in found.rungs
        ],
        "excluded": found.excluded,
        "verdict": found.verdict,
    }
