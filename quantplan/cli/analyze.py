"""`quantplan analyze`: what an imatrix says about the inputs of each tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli.console import put, put_json, put_table, say, warn
from quantplan.cli.options import JsonOption, project_imatrix
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.analyze.statistics import Statistics

_FileArgument = Annotated[
    Path | None, typer.Argument(help="Imatrix, GGUF or .dat (default: the project's).", show_default=False)
]
_SortOption = Annotated[
    str, typer.Option("--sort", "-s", metavar="FIELD", help="name, role, layer, or a statistic (falling).")
]
_CsvOption = Annotated[bool, typer.Option("--csv", help="Print the tensors as CSV on stdout instead of a table.")]
_PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw --statistic by role and block: .png, .svg or .pdf."),
]
_StatisticOption = Annotated[str, typer.Option("--statistic", metavar="FIELD", help="What --plot draws.")]
_ExpertsOption = Annotated[
    bool, typer.Option("--experts", help="List the experts that no token was routed to, or few.")
]


def analyze(
    file: _FileArgument = None,
    sort: _SortOption = "role",
    as_json: JsonOption = False,
    as_csv: _CsvOption = False,
    plot: _PlotOption = None,
    statistic: _StatisticOption = "sum",
    experts: _ExpertsOption = False,
) -> None:
    """Show the statistics of an imatrix: those of llama-imatrix --show-statistics.

    Statistics: sum min max mean std active n entropy entropy_norm zd cossim; active, entropy_norm and zd are
    in percent. JSON and CSV carry the number of experts, those never or seldom hit, and the mean input (where
    the file has it) as well.

    Example: quantplan analyze imatrix/prose-10m.gguf --sort zd --plot zd.png --statistic zd
    """
    from quantplan.analyze.statistics import ordered_by, statistics
    from quantplan.gguf.imatrix_files import read_imatrix
    from quantplan.imatrix import coverage_notes
    from quantplan.report.imatrix_table import (
        NOTE,
        csv_text,
        document,
        expert_table,
        layer_table,
        tensor_table,
    )

    _check(as_json, as_csv, sort, statistic)
    imatrix = read_imatrix(_file(file))
    found = statistics(imatrix)
    tensors = ordered_by(found.tensors, sort)
    if plot:
        _draw(found, statistic, plot)
    if as_json:
        put_json(document(found, tensors))
    elif as_csv:
        put(csv_text(tensors).rstrip("\n"))
    else:
        partial = any(each.unseen_experts or each.rare_experts for each in tensors)
        put_table(
            tensor_table(tensors),
            layer_table(found.layers),
            *([expert_table(tensors)] if experts and partial else []),
        )
        say(NOTE)
    _report_gaps(found, coverage_notes(imatrix), experts)


def _check(as_json: bool, as_csv: bool, sort: str, statistic: str) -> None:
    """Wrong words are refused before a large file is read."""
    from quantplan.analyze.statistics import check_field, ordered_by

    if as_json and as_csv:
        raise BadUsage("--json and --csv both print on stdout: choose one")
    ordered_by((), sort)
    check_field(statistic)


def _file(given: Path | None) -> Path:
    file = given or project_imatrix()
    if file is None:
        raise BadUsage("which imatrix? give its FILE, or make the project's with `quantplan imatrix`")
    return file


def _draw(found: Statistics, statistic: str, plot: Path) -> None:
    from quantplan.report.statistics_plot import statistics_plot

    statistics_plot(found.tensors, statistic, plot)
    say(f"{plot}: {statistic} by role and block")


def _report_gaps(found: Statistics, notes: list[str], experts: bool) -> None:
    """Says what the numbers leave out."""
    from quantplan.imatrix import FEW_HITS

    for name in found.without_data:
        warn(f"{name} has no data (all its counts are zero) and is left out")
    for note in notes:
        warn(note)
    if notes and not experts:
        say("--experts lists them")
    if experts and not notes:
        say(
            "the legacy .dat form does not tell which experts were hit"
            if found.legacy
            else f"every expert was hit, {FEW_HITS} times at least"
        )
