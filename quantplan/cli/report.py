"""`quantplan report`: one page about a model and all its plans."""

import shlex
import sys
import webbrowser
from datetime import datetime, timezone
from pathlib import Path

import typer

from quantplan.cli import console, options
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option, out_option
from quantplan.cli.option_groups import TARGET
from quantplan.cli.plan_options import budget_option
from quantplan.cli.plan_output import model_stem
from quantplan.cli.plan_requests import PlanningOptions, warn_of_objective
from quantplan.report.card_figures import write_figures
from quantplan.report.commands import Commands
from quantplan.report.page import write_page
from quantplan.report.page_data import page_data
from quantplan.report.report_data import report_data

_OF_THE_PAGE = ("budget", "out", "points", "figures", "open_page", "as_json", "dry_run")  # not of the plans on it


@command
def report(
    context: typer.Context,
    *,
    budget: str | None = budget_option(),
    asked: PlanningOptions,
    output: OutputOptions,
    points: int = option("Budgets to plan for, at even steps.", default=100, panel=TARGET, min=2),
    out: Path | None = out_option("The page (default: reports/index.html of the project)."),
    figures: bool = option("Write frontier and heat map as .png and .svg too.", default=False, panel=OUTPUT),
    open_page: bool = option("Show the page in the browser.", "--open", default=False, panel=OUTPUT),
) -> None:
    """Make one HTML page about a model: plans of every size, stock quants, heat map, statistics, commands.

    The page needs no network and no other file; it opens at --budget (default: the size of Q4_K_M). Measurements and
    comparisons in the project's reports are shown on it. Without calibration text give --sensitivity weights or a table: the
    page then says that it is for ranking only.

    Example, in a project: quantplan report --points 20
    """
    asked = asked.serving()
    request = asked.request(budget)
    warn_of_objective(request)
    path = out or options.folder(None, "reports") / "index.html"
    how = asked.estimation(request)
    if output.dry_run:
        console.put(f"would write {path}: {points} budgets, sensitivities from: {asked.source}")
        return
    table = asked.sensitivities(request, how)
    if not table.calibrated:
        console.warn(
            "not calibrated: sensitivities are a prior, not measured; the page is for ranking only, and says so"
        )
    console.say(f"solving {points} budgets ...")
    speeds = asked.speeds(request, how.types) if request.least_tps is not None else None
    data = report_data(request, table, points, options.records_folder(None), speeds)
    for note in data.notes:
        console.warn(note)
    commands = Commands(_solve_words(context), options.folder(None, "plans"), model_stem(request.model))
    page = page_data(data, commands, shlex.join(["quantplan", *sys.argv[1:]]), _now())
    write_page(page, path)
    written = [path, *(write_figures(data, path.parent) if figures else ())]
    if output.as_json:
        console.put_json(page)
    else:
        for file in written:
            console.put(str(file))
    if open_page:
        webbrowser.open(path.absolute().as_uri())


def _solve_words(context: typer.Context) -> list[str]:
    """`quantplan solve` with the options that were given here and that decide plans; the budget is not among them."""
    words = ["quantplan", "solve"]
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name)
        if name in _OF_THE_PAGE or given is None or given.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [word for part in values for word in (parameter.opts[0], str(getattr(part, "value", part)))]
    return words


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
