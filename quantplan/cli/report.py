"""`quantplan report`: one page about a model and all its plans."""

from __future__ import annotations

import shlex
import sys
import webbrowser
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import constraint_options as asked
from quantplan.cli.probe_options import ChunksOption, SampleOption

_OF_THE_PAGE = ("budget", "out", "points", "figures", "open_page", "as_json", "dry_run")  # not of the plans on it


def report(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page (default: reports/index.html of the project).")
    ] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="Budgets to plan for, at even steps.")] = 100,
    budget: Annotated[
        str | None, typer.Option("--budget", "-b", help="Size that the page opens at (default: as large as Q4_K_M).")
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Beside the page, frontier and heat map as .png and .svg.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
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
    """Make one HTML page about a model: plans of every size beside stock mixes, heat map, statistics, commands.

    The page needs no network and no other file. Measurements and comparisons in the project's reports are shown on it.
    Without calibration text give --no-probe or --damage: the page then says that it is for ranking only.

    Example, in a project: quantplan report --points 20
    """
    from quantplan.cli.plan_output import model_stem
    from quantplan.cli.probe_options import sensitivity_options
    from quantplan.planning import request as planning
    from quantplan.report.card_figures import write_figures
    from quantplan.report.commands import Commands
    from quantplan.report.page import write_page
    from quantplan.report.page_data import page_data
    from quantplan.report.report_data import report_data

    wanted = asked.constraints(pin, minimum, maximum, only, tie, max_types, monotone, valley, allow_1_bit)
    request = asked.request(options.local_or_hub(model, hub), imatrix, types, budget, wanted, per)
    path = out or _default_page()
    prices = sensitivity_options(
        request.model,
        planning.types_to_estimate(request),
        chunk,
        chunks,
        sample,
        options.execution(threads, gpu_layers),
    )
    if dry_run:
        source = asked.sensitivity_source(damage, no_probe, calibration)
        console.put(f"would write {path}: {points} budgets, damage from: {source}")
        return
    table = asked.sensitivity_table(request, prices, damage, no_probe, calibration)
    if not table.calibrated:
        console.warn("uncalibrated: scales are not measured; the page is for ranking only, and says so")
    console.say(f"solving {points} budgets ...")
    here = options.project()
    found = report_data(request, table, points, here.reports if here else None)
    for note in found.notes:
        console.warn(note)
    commands = Commands(_solve_words(context), here.plans if here else Path("plans"), model_stem(request.model))
    data = page_data(found, commands, shlex.join(["quantplan", *sys.argv[1:]]), _now())
    write_page(data, path)
    written = [path, *(write_figures(found, path.parent) if figures else ())]
    if as_json:
        console.put_json(data)
    else:
        for each in written:
            console.put(str(each))
    if open_page:
        webbrowser.open(path.absolute().as_uri())


def _default_page() -> Path:
    here = options.project()
    return (here.reports if here else Path("reports")) / "index.html"


def _solve_words(context: typer.Context) -> list[str]:
    """`quantplan solve` with the options that were given here and that decide plans; the budget is not among them."""
    words = ["quantplan", "solve"]
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name)
        if name in _OF_THE_PAGE or given is None or given.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words += [option.opts[0]] if value else []
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [word for each in values for word in (option.opts[0], str(each))]
    return words


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
