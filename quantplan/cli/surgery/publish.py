"""`quantplan surgery publish`: from edits to a folder that can be uploaded, by the commands that a person would type."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from quantplan.budget import Budget
from quantplan.build.preflight import check_source
from quantplan.cli import console, options
from quantplan.cli.bench_options import BenchOptions
from quantplan.cli.card_options import IdentityOptions, ModelfileOptions
from quantplan.cli.framework import OutputOptions, command, option, out_option
from quantplan.cli.option_groups import CalibrationOptions, ChunkOptions, TextOptions, ThreadOptions
from quantplan.cli.plan_options import budgets_option
from quantplan.cli.plan_output import model_stem
from quantplan.cli.steps import run_step
from quantplan.cli.surgery.apply import edits_and_map, skip_check_option
from quantplan.cli.surgery.publish_steps import UPLOAD, PublishOptions, PublishStep, steps_of
from quantplan.cli.surgery.published_before import check_project, operated_here
from quantplan.errors import BadUsage
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.quantize import ftypes, known_ftype, looks_like_ftype
from quantplan.records.files import make_folder, replacing
from quantplan.records.lock import locked
from quantplan.surgery.edit_sources import leaderboard_source
from quantplan.tensor import Model

STOCK = "Q8_0,Q6_K,Q4_K_M,Q3_K_M,Q2_K"  # the quants that published models with edited layers come in


@command
def publish(
    model: Annotated[Path, typer.Argument(help="The original GGUF, hf:// too.", show_default=False)],
    what: Annotated[
        str,
        typer.Argument(
            help="Edits such as 'delete 3; swap 3 4', a file with them, a .layers.json, or the .surgery.json of a search.",
            show_default=False,
        ),
    ],
    identity: IdentityOptions,
    modelfile: ModelfileOptions,
    bench: BenchOptions,
    calibration: CalibrationOptions,
    text: TextOptions,
    measuring: ChunkOptions,
    execution: ThreadOptions,
    output: OutputOptions,
    name: str | None = option("Name of the new model (default: MODEL-operated)."),
    budget: tuple[str, ...] = budgets_option(),
    run_options: str = option("More options for quantplan run: '--types k --pin output=Q8_0'.", default=""),
    stock: tuple[str, ...] = option("Stock quants to make as well; repeatable.", default=(), show_default=STOCK),
    score: bool = option(
        "Score the new model and the original by the suite short.", "--score/--no-score", default=True
    ),
    skip_check: bool = skip_check_option(),
    out: Path | None = out_option("Project folder to make (default: NAME)."),
) -> None:
    """Make a model with edited layers and all that is published with it: plans, stock quants, measurements, card.

    A project folder with the new model, the best file of each --budget (default: Q4_K_M), the usual stock quants, and in
    publish/ what can be uploaded. Every step is a command of quantplan, shown before it runs; run again, it resumes.

    Example, in a project: quantplan surgery publish prose-10m-f16.gguf "delete 3" --name prose-9 --dry-run
    """
    card_words = (*identity.words, *modelfile.words, *bench.words)
    source = read_model(options.local(model))
    called = _name(name or f"{model_stem(source)}-operated")
    folder = out or Path(called)
    edits, layer_map = edits_and_map(what, source, skip_check)
    job = PublishOptions(
        source,
        called,
        edits,
        _budgets(budget, source),
        tuple(known_ftype(word) for word in stock or STOCK.split(",")),
        _texts(source, calibration, text),
        options.ctx(measuring.ctx, source),
        execution.threads,
        score,
        card_words,
        _words(run_options),
        skip_check,
        calibration.parse_special,
    )
    check_source(source)
    there = operated_here(folder / job.file, source, layer_map)
    check_project(folder, folder / job.file, job.texts, job.ctx, job.parse_special)
    if output.dry_run:
        _announce(list(steps_of(job, folder)), folder, output.as_json)
        return
    make_folder(folder)
    with locked(folder):
        done = _carried_out(job, what, folder, there, quiet=output.as_json)
    if output.as_json:
        console.put_json(_fields(done, folder, written=True))
    else:
        console.put(str(folder / UPLOAD))


def _carried_out(job: PublishOptions, what: str, folder: Path, operated: bool, *, quiet: bool) -> list[PublishStep]:
    """All steps, those that are not done yet run now."""
    _keep_leaderboard(what, folder)
    done = []
    for step in steps_of(job, folder):
        finished = operated if step.operates else step.makes and (folder / step.makes).exists()
        if not finished:
            run_step(step.words, folder, quiet=quiet)
        done.append(step)
    return done


def _name(name: str) -> str:
    if not name.strip() or "/" in name or "\\" in name:
        raise BadUsage(f"--name {name!r}: files get this name, so no slashes; --out is the folder")
    return name


def _budgets(given: Sequence[str], source: Model) -> tuple[str, ...]:
    """Sizes that `run` will understand: a typing mistake must not cost the steps before it."""
    budgets = tuple(dict.fromkeys(given or ("Q4_K_M",)))
    for budget in budgets:
        if looks_like_ftype(budget):
            known_ftype(budget)
        elif budget.strip().upper() not in ftypes():
            Budget.parse(budget, source)
    return budgets


def _words(run_options: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(run_options))
    except ValueError as error:
        raise BadUsage(f"--run-options {run_options}: {error}; write them as on a command line") from None


def _texts(source: Model, calibration: CalibrationOptions, text: TextOptions) -> tuple[Path, Path]:
    """Calibration and evaluation text, which can be read."""
    both = (
        (options.calibration_files(calibration.calibration), "--calibration"),
        (options.evaluation_files(text.text), "--text"),
    )
    for files, name in both:
        if len(files) != 1:
            raise BadUsage(f"give {name} one file or one folder: the project that is made names it")
        calibration.reader(source).text(files)
    return both[0][0][0], both[1][0][0]


def _keep_leaderboard(what: str, folder: Path) -> None:
    """The search that the edits are the best of, for the card."""
    if leaderboard_source(what):
        with replacing(folder / "reports" / Path(what).name, "wb") as copy:
            copy.write(Path(what).read_bytes())


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
