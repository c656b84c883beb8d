"""quantplan quantize: builds what a plan says, or a stock mix."""

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
    plan: Annotated[Path, typer.Argument(help="A plan file, or the name of a stock mix: Q4_K_M.", show_default=False)],
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

    A stock mix is built by its name, with the project's imatrix, and checked in the same way. Nothing is left behind when
    the build fails or is interrupted.

    Example: quantplan quantize plans/prose-10m-q4_k_m.json --out prose-10m-q4_k_m.gguf
    """
    from quantplan.build.build import build, check_build
    from quantplan.recipes.quantize_command import build_command
    from quantplan.records.formats import PLANS

    if stock_quant := _stock_quant(plan):
        _quantize_mix(
            stock_quant, options.local_or_hub(model, hub), options.imatrix_path(imatrix), out, threads, dry_run
        )
        return
    wanted = PLANS.read(plan)
    source = _source(wanted, options.local_or_hub(model, hub))
    imatrix = imatrix or _imatrix(wanted)
    target = out or _default_out(source, plan)
    if dry_run:
        check_build(wanted, source, target, imatrix)
        _explain(build_command(wanted, source, target, imatrix, threads), source, target, wanted.file_bytes)
        return
    with console.progress("quantizing", len(source.tensors)) as advance:
        built = build(
            wanted, source, target, imatrix_path=imatrix, threads=threads, report=console.LINES, advance=advance
        )
    _tell(built, target)


def _tell(built: Model, target: Path) -> None:
    console.say(f"all {len(built.tensors)} tensors and {built.file_bytes:,} bytes as planned")
    console.put(str(target))


def _stock_quant(plan: Path) -> str | None:
    """The stock mix that is named in a plan's place, None for a file."""
    from quantplan.llamacpp.quantize import ftypes

    word = str(plan).upper()
    return word if not plan.exists() and word in ftypes() else None


def _quantize_mix(
    stock_quant: str, model: Path | None, imatrix: Path | None, out: Path | None, threads: int, dry_run: bool
) -> None:
    from quantplan.build.build import build_stock_quant, stock_plan, stock_quant_command
    from quantplan.gguf.imatrix_files import read_imatrix

    source = options.model(model)
    if imatrix is None:
        console.warn(f"no imatrix: {stock_quant} is made without one; `quantplan imatrix` makes one")
    target = out or _default_out(source, Path(stock_quant))
    if dry_run:
        size = stock_plan(source, stock_quant, read_imatrix(imatrix) if imatrix else None).file_bytes
        _explain(stock_quant_command(source, stock_quant, target, imatrix, threads), source, target, size)
        return
    with console.progress("quantizing", len(source.tensors)) as advance:
        built = build_stock_quant(
            source, stock_quant, target, imatrix, threads=threads, report=console.LINES, advance=advance
        )
    _tell(built, target)


def _source(plan: Plan, option: Path | None) -> Model:
    """The model: the option, the one that the plan names where that is there, or the project's."""
    from quantplan.recipes.quantize_command import requantizes

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


def _explain(command: str, source: Model, target: Path, size: int) -> None:
    """What would be done, after the checks that cost nothing."""
    import shutil

    from quantplan.budget import human_bytes

    folder = next(each for each in (target.absolute().parent, *target.absolute().parents) if each.is_dir())
    console.put(command)
    console.put(f"builds    {target}")
    console.put(f"size      {size:,} bytes ({human_bytes(size)}) of {source.file_bytes:,}")
    console.put(f"free disk {human_bytes(shutil.disk_usage(folder).free)} in {folder}")
