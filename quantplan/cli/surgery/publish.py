"""`quantplan surgery publish`: from edits to a folder that can be uploaded, by the commands that a person would type."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantplan.cli import console, options
from quantplan.cli.surgery.publish_steps import UPLOAD, PublishOptions, PublishStep, steps_of
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.surgery.layer_map import LayerMap
    from quantplan.tensor import Model

STOCK = "Q8_0,Q6_K,Q4_K_M,Q3_K_M,Q2_K"  # the quants that published operated models come in
_STDERR = 2  # its number: what stands for it in this process need not be a file

_WhatArgument = Annotated[
    str,
    typer.Argument(
        help="Edits such as 'delete 3; swap 3 4', a file with them, a .layers.json, or the .surgery.json of a search.",
        show_default=False,
    ),
]
_OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Project folder to make (default: NAME).")]
_NameOption = Annotated[str | None, typer.Option("--name", help="Name of the new model (default: MODEL-operated).")]
_BudgetsOption = Annotated[
    list[str] | None,
    typer.Option("--budget", "-b", help="Size to plan for, as for run; repeatable (default: Q4_K_M)."),
]
_FurtherOption = Annotated[
    str, typer.Option("--run-options", help="Further words for quantplan run: '--types k --pin output=Q8_0'.")
]
_StockOption = Annotated[str, typer.Option("--stock", help="Stock quants to make as well, separated by commas.")]
_RepoOption = Annotated[str | None, typer.Option("--repo", metavar="OWNER/REPO", help="Where it will be published.")]
_BaseOption = Annotated[str | None, typer.Option("--base-model", metavar="OWNER/REPO", help="The original model.")]


def publish(
    model: Annotated[Path, typer.Argument(help="The original GGUF, hf:// too.", show_default=False)],
    what: _WhatArgument,
    out: _OutOption = None,
    name: _NameOption = None,
    budget: _BudgetsOption = None,
    run_options: _FurtherOption = "",
    stock: _StockOption = STOCK,
    calibration: options.CalibrationOption = None,
    text: options.TextOption = None,
    ctx: options.CtxOption = None,
    score: Annotated[bool, typer.Option(help="Score the new model and the original by the default suite.")] = True,
    repo: _RepoOption = None,
    base_model: _BaseOption = None,
    license: Annotated[str | None, typer.Option("--license", help="The model's license.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what the rules for the architecture cannot vouch for.")
    ] = False,
    threads: options.ThreadsOption = 0,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Make an operated model and all that is published with it: plans, stock quants, measurements, card and Modelfile.

    A project folder with the new model, the best file of each --budget, the usual stock quants, and in publish/ what can
    be uploaded. Every step is a command of quantplan, shown before it runs; run again, it goes on where it was.

    Example, in a project: quantplan surgery publish prose-10m-f16.gguf "delete 3" --name prose-9 --dry-run
    """
    from quantplan.build.preflight import check_source
    from quantplan.cli.surgery.published_before import check_project, operated_here
    from quantplan.gguf.reader import read_model
    from quantplan.llamacpp.quantize import known_ftype
    from quantplan.records.files import make_folder

    source = read_model(options.local(model))
    called = _name(name or f"{_stem(source)}-operated")
    folder = out or Path(called)
    stock_quants = [known_ftype(word.strip()) for word in stock.split(",") if word.strip()]
    edits, layer_map = _edits(what, source, force)
    wanted = PublishOptions(
        source,
        called,
        edits,
        _budgets(budget, source),
        tuple(stock_quants),
        _texts(calibration, text),
        options.ctx(ctx, source),
        threads,
        score,
        _identity(repo, base_model, license),
        _words(run_options),
        force,
    )
    check_source(source)
    there = operated_here(folder / wanted.file, source, layer_map)
    check_project(folder, folder / wanted.file, wanted.texts, wanted.ctx)
    if dry_run:
        _announce(list(steps_of(wanted, folder)), folder, as_json)
        return
    make_folder(folder)
    _keep_leaderboard(what, folder)
    done = []
    for step in steps_of(wanted, folder):
        left_out = there if step.operates else step.makes and (folder / step.makes).exists()
        if not left_out:
            _run(step, folder, as_json)
        done.append(step)
    if as_json:
        console.put_json(_fields(done, folder, written=True))
    else:
        console.put(str(folder / UPLOAD))


def _name(name: str) -> str:
    if not name.strip() or "/" in name or "\\" in name:
        raise BadUsage(f"--name {name!r}: files are called so: a name without slashes; --out says where they go")
    return name


def _stem(source: Model) -> str:
    from quantplan.cli.plan_output import model_stem

    return model_stem(source)


def _edits(what: str, source: Model, forced: bool) -> tuple[str, LayerMap]:
    """The edits, checked on the model: as typed, of a file, of a layer map's record, or the best of a search."""
    from quantplan.surgery.architectures.suggestions import checked_map
    from quantplan.surgery.edit_sources import edits_from
    from quantplan.surgery.edits import edits_text

    edits = edits_from(what, source)
    layer_map, _ = checked_map(source, edits, forced)
    return edits_text(edits), layer_map


def _budgets(given: list[str] | None, source: Model) -> tuple[str, ...]:
    """Sizes that `run` will understand: a typing mistake shall not cost the steps before it."""
    from quantplan.budget import Budget
    from quantplan.llamacpp.quantize import ftypes

    found = tuple(dict.fromkeys(given or ("Q4_K_M",)))
    for each in found:
        if each.strip().upper() not in ftypes():
            Budget.parse(each, source)
    return found


def _words(run_options: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(run_options))
    except ValueError as error:
        raise BadUsage(f"--run-options {run_options}: {error}; write them as on a command line") from None


def _texts(calibration: Path | None, text: Path | None) -> tuple[Path, Path]:
    from quantplan.project import read_text

    found = options.calibration(calibration)
    if found is None:
        raise BadUsage("no calibration text: give --calibration FILE, of the kind that the model is for")
    both = found, options.heldout(text)
    for each in both:
        read_text(each)
    return both


def _identity(repo: str | None, base_model: str | None, license: str | None) -> tuple[str, ...]:
    from quantplan.cli.card import repository

    checked = (("--repo", repository(repo, "--repo")), ("--base-model", repository(base_model, "--base-model")))
    pairs = (*checked, ("--license", license))
    return tuple(word for option, value in pairs if value for word in (option, value))


def _keep_leaderboard(what: str, folder: Path) -> None:
    """The search that the edits are the best of, for the card."""
    import shutil

    from quantplan.surgery.edit_sources import leaderboard_source

    if leaderboard_source(what):
        (folder / "reports").mkdir(exist_ok=True)
        shutil.copyfile(what, folder / "reports" / Path(what).name)


def _announce(steps: Sequence[PublishStep], folder: Path, as_json: bool) -> None:
    if as_json:
        console.put_json(_fields(steps, folder, written=False))
        return
    for step in steps:
        console.put(str(step))


def _fields(steps: Sequence[PublishStep], folder: Path, *, written: bool) -> dict[str, Any]:
    published = folder / UPLOAD
    files = sorted(str(path) for path in published.iterdir()) if written else []
    return {"out": str(published), "written": written, "commands": [str(step) for step in steps], "files": files}


def _run(step: PublishStep, folder: Path, quiet: bool) -> None:
    """``quiet``: what it prints goes to stderr."""
    console.say(f"\n$ {step}")
    command = [sys.executable, "-m", "quantplan.cli.main", *step.words]
    finished = subprocess.run(command, cwd=folder, check=False, stdout=_STDERR if quiet else None)
    if finished.returncode != 0:
        raise typer.Exit(finished.returncode)
