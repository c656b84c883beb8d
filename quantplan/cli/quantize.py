"""quantplan quantize: builds what a plan says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.plan_output import model_stem, with_stem

if TYPE_CHECKING:
    from quantplan.plan import Plan
    from quantplan.tensor import Model


def quantize(
    plan: Annotated[Path, typer.Argument(help="A plan file.")],
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", help="Importance matrix (default: the plan's own; must be the same)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to build (default: MODEL-PLAN.gguf).")] = None,
    threads: options.ThreadsOption = 0,
    dry_run: options.DryRunOption = False,
) -> None:
    """Build a plan with llama-quantize, read the file back and check every type and the size.

    Nothing is left behind when the build fails or is interrupted.

    Example: quantplan quantize plans/prose-10m-q4_k_m.json --out prose-10m-q4_k_m.gguf
    """
    from quantplan.experiments.build import build
    from quantplan.formats.plan_files import read_plan

    wanted = read_plan(plan)
    source = _source(wanted, options.local_or_hub(model, hub))
    imatrix = imatrix or _imatrix(wanted)
    target = out or _default_out(source, plan)
    if dry_run:
        _explain(wanted, source, target, imatrix, threads)
        return
    with console.progress("quantizing", len(source.tensors)) as advance:
        built = build(wanted, source, target, imatrix_path=imatrix, threads=threads, echo=console.say, advance=advance)
    console.say(f"all {len(built.tensors)} tensors and {built.file_bytes:,} bytes as planned")
    console.put(str(target))


def _source(plan: Plan, option: Path | None) -> Model:
    """The model: the option, the one that the plan names where that is there, or the project's."""
    from quantplan.experiments.build import requantizes

    named = Path(plan.model_path)
    source = options.model(option or (named if named.is_file() else None))
    plan.check_belongs_to(source)
    if requantizes(plan, source):
        console.warn(
            "the source is quantized already, --allow-requantize is passed: expect less than from the original"
        )
    return source


def _imatrix(plan: Plan) -> Path | None:
    """Where the plan's imatrix is now: the project's, if it has gone from where it was planned with."""
    if plan.imatrix is None or Path(plan.imatrix.path).is_file():
        return None
    return options.imatrix_path(None)


def _default_out(source: Model, plan: Path) -> Path:
    here = options.project()
    return (here.folder if here else Path()) / f"{with_stem(model_stem(source), plan.stem)}.gguf"


def _explain(plan: Plan, source: Model, target: Path, imatrix: Path | None, threads: int) -> None:
    """What would be done, after the checks that cost nothing."""
    import shutil

    from quantplan.budget import human_bytes
    from quantplan.experiments.build import build_command, check_build

    check_build(plan, source, target, imatrix)
    folder = next(each for each in (target.absolute().parent, *target.absolute().parents) if each.is_dir())
    console.put(build_command(plan, source, target, imatrix, threads))
    console.put(f"builds    {target}")
    console.put(f"size      {plan.file_bytes:,} bytes ({human_bytes(plan.file_bytes)}) of {source.file_bytes:,}")
    console.put(f"free disk {human_bytes(shutil.disk_usage(folder).free)} in {folder}")
