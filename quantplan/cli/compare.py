"""`quantplan compare`: a plan beside stock mixes or other files, same text, paired window by window."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.measure import WindowsOption
from quantplan.cli.plan_output import model_stem, with_stem
from quantplan.hub import is_reference

if TYPE_CHECKING:
    from quantplan.comparison import Comparison
    from quantplan.experiments.compare import Entry
    from quantplan.experiments.contenders import Workshop
    from quantplan.tensor import Model

_PlanArgument = Annotated[Path, typer.Argument(help="A plan (.json), built if need be, or a GGUF.", show_default=False)]
_OthersArgument = Annotated[list[Path] | None, typer.Argument(help="More GGUF files.", show_default=False)]
_WithOption = Annotated[
    str,
    typer.Option(
        "--with",
        "-w",
        help="Stock mixes to build, or GGUF files, separated by commas (default: the mix nearest in size).",
    ),
]
_OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder that keeps the built files and the result.")
]


def compare(
    plan: _PlanArgument,
    others: _OthersArgument = None,
    contenders: _WithOption = "",
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    text: options.TextOption = None,
    calibration: options.CalibrationOption = None,
    ctx: options.CtxOption = None,
    windows: WindowsOption = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    out: _OutOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compare a plan with stock mixes or other files, and say in one sentence which loses less.

    kld_ratio is the plan's KLD over the other file's: below 1 the plan is better. Its interval comes from a
    bootstrap over windows, the same for both files. Stock mixes are built with the plan's imatrix. Built
    files are kept in --out, or in the project's reports/builds; elsewhere they are removed at the end.

    Example: quantplan compare plans/prose-10m-q4_k_m.json --with Q4_K_M --text calibration/heldout.txt
    """
    from quantplan.experiments.compare import check_options
    from quantplan.experiments.compare import compare as run
    from quantplan.experiments.measure import MeasureOptions
    from quantplan.project import read_text

    plan = options.local(plan)
    base = options.model(_base(options.local_or_hub(model, hub), plan))
    path = options.heldout(text)
    judging = read_text(path)
    _warn_of_overlap(path, judging, options.calibration(calibration))
    chosen = MeasureOptions(options.ctx(ctx, base), windows, threads, gpu_layers)
    check_options(chosen)
    with _folder(out) as folder:
        words = [str(each) for each in others or ()] + [word.strip() for word in contenders.split(",") if word.strip()]
        words = [str(options.local(Path(word))) if is_reference(word) else word for word in words]
        entries = _entries(plan, words, _workshop(base, folder, _imatrix(imatrix, plan), threads))
        with console.progress("measuring", 100) as bar:
            found = run(base.path, entries, judging, chosen, lambda share: bar(100 * share), options.cache_folder())
    _write(found, plan, out)
    _show(found, as_json)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where built files go: --out or the project, else a folder that is gone afterwards."""
    here = options.project()
    if out or here:
        yield out or here.reports / "builds"  # type: ignore[union-attr]
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        yield Path(folder)


def _workshop(base: Model, folder: Path, imatrix: Path | None, threads: int) -> Workshop:
    from quantplan.experiments.contenders import Workshop

    return Workshop(base, folder, imatrix, threads, console.say)


def _base(option: Path | None, plan: Path) -> Path | None:
    """The model: the option, the one that the plan names where it is there; None leaves it to the project."""
    from quantplan.formats.plan_files import read_plan

    if option or plan.suffix == ".gguf":
        return option
    named = Path(read_plan(plan).model_path)
    return named if named.is_file() else None


def _imatrix(option: Path | None, plan: Path) -> Path | None:
    """The imatrix of all files: the option, else the plan's own where it still is, else the project's.

    A plan made without an imatrix stands against mixes made without one.
    """
    from quantplan.formats.plan_files import read_plan

    if option or plan.suffix == ".gguf":
        return options.imatrix_path(option)
    own = read_plan(plan).imatrix
    if own is None:
        return None
    return Path(own.path) if Path(own.path).is_file() else options.imatrix_path(None)


def _entries(plan: Path, words: list[str], workshop: Workshop) -> list[Entry]:
    """The plan first. Everything is there or built when this returns."""
    from quantplan.experiments.contenders import contender, nearest_mix, plan_entry

    here = options.project()
    earlier = f"{with_stem(model_stem(workshop.source), plan.stem)}.gguf"  # where `quantplan quantize` puts it
    first = plan_entry(plan, workshop, (here.folder if here else Path()) / earlier)
    if not words:
        words = [nearest_mix(workshop.source, first.file.stat().st_size, workshop.imatrix)]
        console.say(f"comparing with {words[0]}, the stock mix nearest in size")
    return [first, *(contender(word, workshop) for word in words)]


def _warn_of_overlap(path: Path, judging: str, calibration: Path | None) -> None:
    from quantplan.analyze.overlap import WORRYING, overlap
    from quantplan.project import read_text

    share = overlap(judging, read_text(calibration)) if calibration else 0.0
    if share > WORRYING:
        console.warn(
            f"{share:.0%} of the long lines of {path} stand in the calibration text {calibration} "
            "too: the plan was tuned on them; judge on a text that calibration never saw"
        )


def _write(found: Comparison, plan: Path, out: Path | None) -> None:
    from quantplan.formats.comparison_files import write_comparison

    here = options.project()
    folder = out or (here.reports if here else None)
    if folder:
        write_comparison(found, folder / f"{plan.stem}.comparison.json")
        console.say(f"written: {folder / plan.stem}.comparison.json")


def _show(found: Comparison, as_json: bool) -> None:
    from quantplan.formats.comparison_files import comparison_fields
    from quantplan.report.measurement_table import comparison_table

    if as_json:
        console.put_json(comparison_fields(found))
        return
    console.put_table(comparison_table(found))
    console.put(found.verdict)
