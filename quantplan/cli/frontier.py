"""`quantplan frontier`: every size from one damage table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import constraint_options as asked
from quantplan.cli.probe_options import ChunksOption, SampleOption

if TYPE_CHECKING:
    from quantplan.planning.request import PlanRequest
    from quantplan.sensitivity_table import SensitivityTable


def frontier(
    points: Annotated[int, typer.Option("--points", min=2, help="Sizes from the smallest to the largest file.")] = 100,
    stock_quants: Annotated[
        str | None, typer.Option("--mixes", help="Stock mixes to score beside the plans (default: the usual ones).")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", help="Extra bytes whose worth is shown (default: 100MB; less for small files)."),
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw size against KLD (.png, .svg, .pdf).")] = None,
    table_file: Annotated[Path | None, typer.Option("--csv", help="Write the points as CSV.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="The budget of --alternatives and --stability.")] = None,
    count: Annotated[
        int | None, typer.Option("--alternatives", min=2, help="Instead: the K best plans of the size --at.")
    ] = None,
    differ: Annotated[
        int | None, typer.Option("--differ", min=1, help="Tensors in which alternatives differ (default: 1 in 50).")
    ] = None,
    draws: Annotated[
        int | None, typer.Option("--stability", min=1, help="Instead: solve --at again with N redrawn damages.")
    ] = None,
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    calibration: options.CalibrationOption = None,
    types: options.TypesOption = "all",
    pin: asked.PinOption = None,
    minimum: asked.FloorOption = None,
    maximum: asked.CeilingOption = None,
    only: asked.OnlyOption = None,
    tie: asked.TieOption = None,
    max_types: asked.MostTypesOption = None,
    allow_1_bit: asked.OneBitOption = False,
    per: asked.PerOption = "tensor",
    monotone: asked.MonotoneOption = False,
    valley: asked.ValleyOption = False,
    damage: asked.SensitivityOption = None,
    no_probe: asked.NoProbeOption = False,
    chunk: options.ChunkOption = None,
    chunks: ChunksOption = 0,
    sample: SampleOption = "512k",
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show the best plan of every size from one damage table: the knee, stock mixes beside it, what more bytes save.

    With --at BUDGET: --alternatives K lists the best plans of that size, --stability N tells how many tensors would
    change if what was measured moved within its errors.

    Example, in a project: quantplan frontier --points 20 --mixes Q4_K_M,Q6_K
    """
    from quantplan.cli.probe_options import sensitivity_options
    from quantplan.planning import request as planning
    from quantplan.report.heat_map import check_picture

    _check_together(at, count, differ, draws, (plot, table_file))
    if plot is not None:
        check_picture(plot)
    step_bytes = _step(step)
    wanted = asked.constraints(pin, minimum, maximum, only, tie, max_types, monotone, valley, allow_1_bit)
    request = asked.request(options.local_or_hub(model, hub), imatrix, types, at, wanted, per)
    prices = sensitivity_options(
        request.model,
        planning.types_to_estimate(request),
        chunk,
        chunks,
        sample,
        options.execution(threads, gpu_layers),
    )
    if dry_run:
        console.put(_intentions(request, points, count, draws, asked.sensitivity_source(damage, no_probe, calibration)))
        return
    table = asked.sensitivity_table(request, prices, damage, no_probe, calibration)
    if not table.calibrated:
        console.warn("not calibrated: scales are a prior, not measured; the curve ranks plans, no more")
    if count is not None:
        _alternatives(request, table, count, differ, as_json)
    if draws is not None:
        _stability(request, table, draws, as_json)
    if at is None:
        _frontier(request, table, points, _names(stock_quants), step_bytes, (plot, table_file), as_json)


def _check_together(
    at: str | None, count: int | None, differ: int | None, draws: int | None, files: tuple[Path | None, Path | None]
) -> None:
    from quantplan.errors import BadUsage

    single = count is not None or draws is not None
    if single and at is None:
        raise BadUsage("--alternatives and --stability speak of one size: give --at BUDGET, for example --at 4.5bpw")
    if at is not None and not single:
        raise BadUsage("--at BUDGET: give --alternatives K or --stability N with it, or use `quantplan solve`")
    if count is not None and draws is not None:
        raise BadUsage("--alternatives and --stability: one at a time")
    if differ is not None and count is None:
        raise BadUsage("--differ speaks of --alternatives K")
    if single and any(files):
        raise BadUsage("--plot and --csv show the frontier; leave --at out")


def _step(text: str | None) -> int | None:
    from quantplan.budget import parse_size

    return parse_size(text, "--step") if text else None


def _names(stock_quants: str | None) -> tuple[str, ...] | None:
    if stock_quants is None:
        return None
    return tuple(word.strip() for word in stock_quants.split(",") if word.strip())


def _intentions(request: PlanRequest, points: int, count: int | None, draws: int | None, source: str) -> str:
    from quantplan.planning.request import parse_budget, quantizable

    what = f"solve {points} sizes" if request.budget is None else f"find the {count} best plans"
    if draws is not None:
        what = f"solve {draws} redrawn tables"
    within = "" if request.budget is None else f" of {parse_budget(request).bytes:,} bytes"
    tensors = len(quantizable(request.model))
    return f"would {what}{within} for {tensors} tensors and {len(request.types)} types; damage from: {source}"


def _frontier(
    request: PlanRequest,
    table: SensitivityTable,
    points: int,
    stock_quants: tuple[str, ...] | None,
    step: int | None,
    files: tuple[Path | None, Path | None],
    as_json: bool,
) -> None:
    from quantplan.planning.frontier import model_frontier
    from quantplan.report.frontier_plot import frontier_plot
    from quantplan.report.frontier_table import frontier_fields, frontier_table, stock_quants_table, write_csv

    found = model_frontier(request, table, points, stock_quants, step)
    for reason in found.unscored:
        console.say(f"mix left out: {reason}")
    plot, table_file = files
    if plot is not None:
        frontier_plot(found, f"{request.model.name or request.model.path.name}: every size", plot)
        console.say(f"wrote {plot}")
    if table_file is not None:
        write_csv(found, table_file)
        console.say(f"wrote {table_file}")
    if as_json:
        console.put_json(frontier_fields(found))
        return
    console.put_table(frontier_table(found))
    if found.stock_quants:
        console.put("")
        console.put_table(stock_quants_table(found.stock_quants))


def _alternatives(request: PlanRequest, table: SensitivityTable, count: int, differ: int | None, as_json: bool) -> None:
    from quantplan.planning.frontier import best_alternatives
    from quantplan.report.frontier_table import alternatives_table

    found = best_alternatives(request, table, count, differ)
    if len(found) < count:
        console.warn(f"only {len(found)} such plans exist")
    if not as_json:
        console.put_table(alternatives_table(found))
        return
    best = found[0].types
    console.put_json(
        [
            {
                "file_bytes": each.file_bytes,
                "predicted_kld": each.kld,
                "predicted_kld_err": each.kld_err,
                "damage": each.solution.outcome.objective,
                "gap": each.solution.outcome.gap,
                "instead": {name: [best[name].name, each.types[name].name] for name in each.changed},
            }
            for each in found
        ]
    )


def _stability(request: PlanRequest, table: SensitivityTable, draws: int, as_json: bool) -> None:
    import numpy as np

    from quantplan.planning.frontier import plan_stability
    from quantplan.report.frontier_table import stability_table

    formulation, solution, found = plan_stability(request, table, draws)
    changed, regret = np.quantile(found.changed, (0.05, 0.5, 0.95)), np.quantile(found.regret, (0.5, 0.95))
    groups = formulation.problem.groups
    if as_json:
        console.put_json(
            {
                "draws": found.draws,
                "groups": len(groups),
                "changed_mean": float(np.mean(found.changed)),
                "changed_quantiles": dict(zip(("0.05", "0.5", "0.95"), changed.tolist(), strict=True)),
                "regret_mean": float(np.mean(found.regret)),
                "regret_quantiles": dict(zip(("0.5", "0.95"), regret.tolist(), strict=True)),
                "instead": {
                    group.name: {"type": group.choices[at].label, "instead": others}
                    for group, at, others in zip(groups, solution.choices, found.instead, strict=True)
                    if others
                },
            }
        )
        return
    console.put_table(stability_table(formulation, solution.choices, found))
    console.put(
        f"of {len(groups)} tensors (or groups) {np.mean(found.changed):.1f} change on average, {changed[0]:.0f} to "
        f"{changed[2]:.0f} in nine of ten draws ({found.draws} draws)"
    )
    console.put(
        f"the plan loses {np.mean(found.regret):.2%} beside the best of each draw, at most {regret[1]:.2%} in 95 %"
    )
