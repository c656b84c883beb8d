"""`quantplan analyze`: what an imatrix says about the inputs of each tensor."""

from pathlib import Path
from typing import Annotated

import typer

from quantplan.analyze.statistics import Statistics, check_field, ordered_by, statistics
from quantplan.cli import console, options
from quantplan.cli.framework import OUTPUT, command, json_option, option
from quantplan.cli.option_groups import ShortFormat
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.imatrix import FEW_HITS, coverage_notes
from quantplan.report.imatrix_table import NOTE, csv_text, document, expert_table, layer_table, tensor_table
from quantplan.report.statistics_plot import statistics_plot


@command
def analyze(
    file: Annotated[
        Path | None, typer.Argument(help="Imatrix, GGUF or .dat (default: the project's).", show_default=False)
    ] = None,
    sort: str = option("Order by name, role, layer, or a statistic (falling).", default="role", metavar="FIELD"),
    rows: int | None = option("Show the first N tensors, without the averages by layer.", min=1),
    experts: bool = option("List the experts that no token was routed to, or few.", default=False),
    plot: Path | None = option("Draw --statistic by role and block: .png, .svg or .pdf.", metavar="FILE"),
    statistic: str = option("The statistic that --plot draws.", default="sum", metavar="FIELD"),
    form: ShortFormat = option("How to print the tensors.", "--format", default=ShortFormat.table, panel=OUTPUT),
    as_json: bool = json_option(),
) -> None:
    """Show the statistics of an imatrix: those of llama-imatrix --show-statistics, for every tensor.

    Statistics: sum min max mean std active n entropy entropy_norm zd cossim; active, entropy_norm and zd are
    in percent. JSON and CSV also have the number of experts, those never or seldom hit, and the mean input (where
    the file has it).

    Example: quantplan analyze imatrix/prose-10m.gguf --sort zd --plot zd.png --statistic zd
    """
    if as_json and form is ShortFormat.csv:
        raise BadUsage("--json and --format csv both print on stdout: choose one")
    ordered_by((), sort)  # a wrong word is refused before a large file is read
    check_field(statistic)
    path = file or options.imatrix_path(None)
    if path is None:
        raise BadUsage("which imatrix? give its FILE, or make the project's with `quantplan imatrix`")
    importance = read_imatrix(path)
    analyzed = statistics(importance)
    tensors = ordered_by(analyzed.tensors, sort)
    if plot:
        statistics_plot(analyzed.tensors, statistic, plot)
        console.say(f"{plot}: {statistic} by role and block")
    if as_json or form is ShortFormat.json:
        console.put_json(document(analyzed, tensors))
    elif form is ShortFormat.csv:
        console.put(csv_text(tensors).rstrip("\n"))
    else:
        partial = any(tensor.unseen_experts or tensor.rare_experts for tensor in tensors)
        more = [expert_table(tensors)] if experts and partial else []
        layers = [layer_table(analyzed.layers)] if rows is None else []
        console.put_table(tensor_table(tensors[:rows]), *layers, *more)
        console.say(NOTE)
    _report_gaps(analyzed, coverage_notes(importance), experts)


def _report_gaps(analyzed: Statistics, notes: list[str], experts: bool) -> None:
    """What the numbers leave out."""
    for name in analyzed.without_data:
        console.warn(f"{name} has no data (all its counts are zero) and is left out")
    for note in notes:
        console.warn(note)
    if notes and not experts:
        console.say("--experts lists them")
    if experts and not notes:
        console.say(
            "the legacy .dat format does not record which experts were hit"
            if analyzed.legacy
            else f"every expert was hit at least {FEW_HITS} times"
        )
