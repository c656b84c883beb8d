"""A plan explained, as lines, tables and JSON."""

from collections.abc import Callable, Sequence

from quantplan.budget import human_bytes
from quantplan.planning.explain import ConstraintCost, Explanation, TensorExplanation
from quantplan.planning.rounding_gain import rounding_gains
from quantplan.planning.whole_plan import WholePlanCost
from quantplan.report.cells import number
from quantplan.report.drafts import drafts_note
from quantplan.report.rounding import plan_rounding, rounding_fields, rules_note
from quantplan.report.table import Columns, Table, table_of
from quantplan.solver.explain import MB, CurvePoint, GroupGain

SHOWN = 10
_PER = 100_000_000  # bytes that the shadow price is given for


def summary(
    explanation: Explanation, constraints: Sequence[ConstraintCost], whole: Sequence[WholePlanCost] = ()
) -> list[str]:
    """Prediction, price, and what binds, a line each."""
    plan, outcome = explanation.plan, explanation.plan.outcome
    lines = [f"file        {plan.file_bytes:,} bytes ({human_bytes(plan.file_bytes)})"]
    if plan.predicted_kld is not None:
        error = "" if plan.predicted_kld_err is None else f" ± {plan.predicted_kld_err:.2g}"
        note = "" if plan.calibrated else " (not calibrated: for ranking only)"
        lines.append(f"expected    KLD {plan.predicted_kld:.5g}{error} nats/token{note}")
    if plan.compensated:
        lines.append(f"rounding    {plan_rounding(plan)}")
        lines.append(f"rules       {rules_note(len(plan.compensated))}")
    if explanation.price is None:
        lines.append(f"price       none: the plan minimises the {outcome.minimised} of damages, not their sum")
    else:
        price = explanation.price
        lines.append(f"price       {price * _PER:.3g} nats per 100 MB ({price * MB:.3g} per MB), at the margin")
    lines += [f"drafts      {note}" for note in [drafts_note(plan, explanation.request.model)] if note]
    if explanation.free_bytes is not None:
        binds = "binds" if explanation.price else "does not bind"
        lines.append(f"budget      {binds}: {explanation.free_bytes:,} of {plan.budget_bytes:,} bytes are left")
    if plan.imatrix and plan.imatrix.excluded:
        lines.append(f"importance  left out where its data are zeros or extreme: {', '.join(plan.imatrix.excluded)}")
    for limit in plan.limits:
        price = outcome.prices.get(limit.name, 0.0)
        words = f"binds ({price:.3g} nats per {limit.unit})" if price else "does not bind"
        lines.append(f"limit       {limit.name} {words}: {limit.used:,} of {limit.limit:,} {limit.unit} are used")
    for cost in constraints:
        tensors = "1 tensor" if cost.tensors == 1 else f"{cost.tensors} tensors"
        lines.append(f"constraint  {cost.constraint} binds for {tensors}: {cost.nats:.3g} nats net of bytes")
    for each in whole:
        lines.append(
            f"constraint  {each.constraint} binds: it costs {each.share:.1%} more KLD; {each.without:.5g} nats/token are "
            "expected of the best plan of this budget without it"
        )
    if explanation.request.constraints.ties and not any("--tie" in each.constraint for each in whole):
        lines.append(f"constraint  ties: {', '.join(explanation.request.constraints.ties)}")
    return lines


def ranked(gains: Sequence[GroupGain]) -> dict[str, tuple[GroupGain, ...]]:
    """The ten first of each ranking."""
    upgrades = sorted((gain for gain in gains if gain.up), key=lambda gain: -gain.up.step_rate if gain.up else 0.0)
    return {
        "most damage left": tuple(sorted(gains, key=lambda gain: -gain.chosen.damage)[:SHOWN]),
        "gained most from their bytes": tuple(sorted(gains, key=lambda gain: -gain.surplus)[:SHOWN]),
        "upgraded next": tuple(upgrades[:SHOWN]),
    }


def gains_table(title: str, gains: Sequence[GroupGain]) -> Table:
    columns: Columns[GroupGain] = (
        (title, lambda gain: gain.group),
        ("type", lambda gain: gain.chosen.label),
        ("size", lambda gain: human_bytes(gain.chosen.bytes)),
        ("damage", lambda gain: f"{gain.chosen.damage:.4g}"),
        ("net gain", lambda gain: f"{gain.surplus:.3g}"),
        ("next step", lambda gain: gain.up.label if gain.up else ""),
        ("saves", lambda gain: f"{gain.chosen.damage - gain.up.damage:.3g}" if gain.up else ""),
        ("per MB", lambda gain: f"{gain.up.step_rate * MB:.3g}" if gain.up else ""),
    )
    return table_of("", columns, gains, texts=(0, 1, 5))


def curve_table(tensor: TensorExplanation, price: float | None) -> Table:
    """Every type of the tensor; the chosen one is marked, rates stand against the price."""

    def per_mb(rate: float | None) -> str:
        return "" if rate is None else f"{rate * MB:.3g}"

    columns: list[tuple[str, Callable[[CurvePoint], str]]] = [
        (tensor.group, lambda rung: rung.label),
        ("bytes", lambda rung: f"{rung.bytes:,}"),
        ("damage", lambda rung: f"{rung.damage:.4g}"),
        ("saves per MB", lambda rung: per_mb(rung.rate)),
        ("price per MB", lambda rung: "" if rung.rate is None else per_mb(price)),
        ("", lambda rung: "<- chosen" if rung.chosen else ""),
    ]
    if tensor.stock_damage:
        columns.insert(3, ("stock rounding", lambda rung: number(tensor.stock_damage.get(rung.label))))
    return table_of("", columns, tensor.rungs, texts=(0, len(columns) - 1))


def importance_line(tensor: TensorExplanation) -> str:
    """Which types are encoded without importance, and what that was decided by; empty where nothing is wrong with it."""
    if not tensor.encodings:
        return ""
    kinds = ", ".join(tensor.without_importance) or "no type"
    return f"importance, whose columns are extreme, is left out for {kinds} ({tensor.encodings})"


def plan_fields(
    explanation: Explanation, constraints: Sequence[ConstraintCost], whole: Sequence[WholePlanCost] = ()
) -> dict[str, object]:
    plan = explanation.plan
    return {
        "file_bytes": plan.file_bytes,
        "predicted_kld": plan.predicted_kld,
        "predicted_kld_err": plan.predicted_kld_err,
        "price_per_100_mb": None if explanation.price is None else explanation.price * _PER,
        "budget_bytes": plan.budget_bytes,
        "free_bytes": explanation.free_bytes,
        "limits": [
            {name: getattr(limit, name) for name in ("name", "unit", "limit", "used")}
            | {"price": plan.outcome.prices.get(limit.name, 0.0)}
            for limit in plan.limits
        ],
        "wishes": [{"wish": cost.constraint, "tensors": cost.tensors, "nats": cost.nats} for cost in constraints],
        "whole_plan": [
            {"constraint": each.constraint, "kld": each.kld, "kld_without": each.without, "share": each.share}
            for each in whole
        ],
        "tensors": [_gain_fields(gain) for gain in explanation.standings],
        "rounding": rounding_fields(plan, rounding_gains(plan, explanation.table)),
        "drafts": explanation.drafts,
    }


def _gain_fields(gain: GroupGain) -> dict[str, object]:
    chosen, up = gain.chosen, gain.up
    return {
        "name": gain.group,
        "type": chosen.label,
        "bytes": chosen.bytes,
        "damage": chosen.damage,
        "net_gain": gain.surplus,
        "next": up and {"type": up.label, "bytes": up.bytes, "damage": up.damage, "per_mb": up.step_rate * MB},
    }


def tensor_fields(tensor: TensorExplanation, price: float | None) -> dict[str, object]:
    return {
        "name": tensor.group,
        "tensors": list(tensor.tensors),
        "source": tensor.source,
        "relative_error": tensor.relative_error,
        "price_per_mb": None if price is None else price * MB,
        "curve": [
            {
                "type": rung.label,
                "bytes": rung.bytes,
                "damage": rung.damage,
                "stock_damage": tensor.stock_damage.get(rung.label),
                "chosen": rung.chosen,
                "saves_per_mb": None if rung.rate is None else rung.rate * MB,
            }
            for rung in tensor.rungs
        ],
        "excluded": tensor.excluded,
        "without_importance": list(tensor.without_importance),
        "encodings": tensor.encodings,
        "verdict": tensor.verdict,
    }
