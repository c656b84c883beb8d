"""`quantplan frontier`: every size from one sensitivity table."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from quantplan.budget import parse_size
from quantplan.cli import config, console
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    MEASURING,
    TARGET,
    ShortFormat,
)
from quantplan.cli.plan_options import budget_option
from quantplan.cli.plan_requests import PlanningOptions, warn_of_objective
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage
from quantplan.planning import request as planning
from quantplan.planning.frontier import Frontier, best_alternatives, model_frontier, plan_stability
from quantplan.planning.request import PlanRequest
from quantplan.records.files import replacing
from quantplan.report.frontier_plot import Curve, frontier_plot
from quantplan.report.frontier_table import (
    alternatives_table,
    frontier_csv,
    frontier_fields,
    frontier_table,
    stability_table,
    stock_quants_table,
)
from quantplan.report.heat_map import check_picture
from quantplan.sensitivity_table import SensitivityTable


@dataclass(frozen=True)
class CurveOptions:
    panel: ClassVar[str] = TARGET
    points: int = option("Sizes, from the smallest to the largest file.", default=100, min=2, max=10_000)
    stock_quants: tuple[str, ...] = option(
        "Stock quants to score in the same table (default: the usual ones).",
        "--with",
        "-w",
        default=(),
        panel=MEASURING,
    )
    step: str | None = option("Extra bytes whose value is shown (default: 100MB; less for small files).")


@dataclass(frozen=True)
class OneSizeOptions:
    """Questions about the plans of one budget."""

    panel: ClassVar[str] = TARGET
    alternatives: int | None = option("Instead: the N best plans of the size --budget.", min=2)
    differ: int | None = option("Tensors in which alternatives differ (default: 1 in 50).", min=1)
    stability: int | None = option("Instead: solve --budget again with N redrawn sensitivities.", min=1)

    @property
    def any(self) -> bool:
        return self.alternatives is not None or self.stability is not None


@command
def frontier(
    *,
    curve: CurveOptions,
    budget: str | None = budget_option(),
    one_size: OneSizeOptions,
    asked: PlanningOptions,
    output: OutputOptions,
    plot: Path | None = option("Draw size against KLD (.png, .svg, .pdf).", panel=OUTPUT),
    form: ShortFormat = option("How to print the points.", "--format", default=ShortFormat.table, panel=OUTPUT),
    out: Path | None = out_option("Write the points as CSV to this file too."),
) -> None:
    """Show the best plan of every size from one sensitivity table: the knee, stock quants, what more bytes save.

    With --budget: --alternatives N lists the best plans of that size, --stability N tells how many tensors would
    change if what was measured moved within its errors.

    Example, in a project: quantplan frontier --points 20 --with Q4_K_M,Q6_K
    """
    described = config.settings()
    if not one_size.any and budget == described.get("budget"):
        budget = None  # of the project's plan: every size is asked for here
    _check_together(budget, one_size, (plot, out))
    if plot is not None:
        check_picture(plot)
    asked = asked.serving()
    request = asked.request(budget)
    warn_of_objective(request)
    how = asked.estimation(request)
    if output.dry_run:
        console.put(_intentions(request, curve, one_size, asked.source))
        return
    table = asked.sensitivities(request, how)
    speeds = asked.speeds(request, how.types)
    if not table.calibrated:
        console.warn("not calibrated: sensitivities are a prior, not measured; the curve only ranks plans")
    form = ShortFormat.json if output.as_json else form
    if one_size.alternatives is not None:
        _alternatives(request, table, one_size.alternatives, one_size.differ, speeds, form)
    elif one_size.stability is not None:
        _stability(request, table, one_size.stability, speeds, form)
    else:
        _print(_curve(request, table, curve, speeds, (plot, out)), form)


def _check_together(budget: str | None, one_size: OneSizeOptions, files: tuple[Path | None, Path | None]) -> None:
    if one_size.any and budget is None:
        raise BadUsage("--alternatives and --stability are about one size: give --budget, for example --budget 4.5bpw")
    if budget is not None and not one_size.any:
        raise BadUsage("--budget: give --alternatives N or --stability N with it, or use `quantplan solve`")
    if one_size.alternatives is not None and one_size.stability is not None:
        raise BadUsage("--alternatives and --stability: one at a time")
    if one_size.differ is not None and one_size.alternatives is None:
        raise BadUsage("--differ belongs to --alternatives N")
    if one_size.any and any(files):
        raise BadUsage("--plot and --out show the frontier; leave --budget out")


def _intentions(request: PlanRequest, curve: CurveOptions, one_size: OneSizeOptions, source: str) -> str:
    what = f"solve {curve.points} sizes"
    if one_size.any:
        draws, count = one_size.stability, one_size.alternatives
        what = f"solve {draws} redrawn tables" if draws is not None else f"find the {count} best plans"
        budget = planning.parse_budget(request)
        what += f" of {budget.bytes:,} bytes" if budget else ""
    tensors = len(planning.quantizable(request.model))
    return f"would {what} for {tensors} tensors and {len(request.types)} types; sensitivities from: {source}"


def _curve(
    request: PlanRequest,
    table: SensitivityTable,
    curve: CurveOptions,
    speeds: SpeedTable | None,
    files: tuple[Path | None, Path | None],
) -> Frontier:
    """The frontier, drawn and written where that is asked for."""
    step = parse_size(curve.step, "--step") if curve.step else None
    made = model_frontier(request, table, curve.points, curve.stock_quants or None, step, speeds)
    for note in made.notes:
        console.say(note)
    plot, out = files
    if plot is not None:
        drawn = Curve(made.entries, made.stock_quants, made.calibrated, made.knee)
        frontier_plot(drawn, f"{request.model.name or request.model.path.name}: every size", plot)
        console.say(f"wrote {plot}")
    if out is not None:
        with replacing(out) as file:
            file.write(frontier_csv(made))
        console.say(f"wrote {out}")
    return made


def _print(made: Frontier, form: ShortFormat) -> None:
    if form is ShortFormat.json:
        console.put_json(frontier_fields(made))
    elif form is ShortFormat.csv:
        console.put(frontier_csv(made).removesuffix("\n"))
    else:
        console.put_table(frontier_table(made))
        if made.stock_quants:
            console.put("")
            console.put_table(stock_quants_table(made.stock_quants))


def _alternatives(
    request: PlanRequest,
    table: SensitivityTable,
    count: int,
    differ: int | None,
    speeds: SpeedTable | None,
    form: ShortFormat,
) -> None:
    plans = best_alternatives(request, table, count, differ, speeds=speeds)
    if len(plans) < count:
        console.warn(f"only {len(plans)} such plans exist")
    if form is not ShortFormat.json:
        console.put_table(alternatives_table(plans))
        return
    best = plans[0].types
    console.put_json(
        [
            {
                "file_bytes": plan.file_bytes,
                "predicted_kld": plan.kld,
                "predicted_kld_err": plan.kld_err,
                "damage": plan.solution.outcome.objective,
                "gap": plan.solution.outcome.gap,
                "instead": {name: [best[name].name, plan.types[name].name] for name in plan.changed},
            }
            for plan in plans
        ]
    )


def _stability(
    request: PlanRequest, table: SensitivityTable, draws: int, speeds: SpeedTable | None, form: ShortFormat
) -> None:
    formulation, solution, result = plan_stability(request, table, draws, speeds)
    changed, regret = np.quantile(result.changed, (0.05, 0.5, 0.95)), np.quantile(result.regret, (0.5, 0.95))
    groups = formulation.problem.groups
    if form is ShortFormat.json:
        console.put_json(
            {
                "draws": result.draws,
                "groups": len(groups),
                "changed_mean": float(np.mean(result.changed)),
                "changed_quantiles": dict(zip(("0.05", "0.5", "0.95"), changed.tolist(), strict=True)),
                "regret_mean": float(np.mean(result.regret)),
                "regret_quantiles": dict(zip(("0.5", "0.95"), regret.tolist(), strict=True)),
                "instead": {
                    group.name: {"type": group.choices[at].label, "instead": others}
                    for group, at, others in zip(groups, solution.choices, result.instead, strict=True)
                    if others
                },
            }
        )
        return
    console.put_table(stability_table(formulation, solution.choices, result))
    console.put(
        f"of {len(groups)} tensors (or groups) {np.mean(result.changed):.1f} change on average, {changed[0]:.0f} to "
        f"{changed[2]:.0f} in nine of ten draws ({result.draws} draws)"
    )
    console.put(
        f"the plan loses {np.mean(result.regret):.2%} against the best of each draw, at most {regret[1]:.2%} in 95 %"
    )
