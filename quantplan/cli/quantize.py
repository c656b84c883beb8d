"""`quantplan quantize`: builds what a plan says, or a stock quant."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from quantplan import api
from quantplan.budget import human_bytes
from quantplan.build.build import check_build, stock_plan, stock_quant_command
from quantplan.build.preflight import check_output
from quantplan.cli import console, options
from quantplan.cli.framework import OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    MEASURING,
    CalibrationOptions,
    ImatrixOptions,
    ModelOptions,
    ThreadOptions,
    memory_bytes,
    memory_option,
)
from quantplan.cli.plan_options import Rounding
from quantplan.cli.plan_output import model_stem, with_stem
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.llamacpp.quantize import ftypes, known_ftype, looks_like_ftype
from quantplan.plan import Plan
from quantplan.progress import Advance, Reporter
from quantplan.recipes.quantize_command import build_command, requantizes
from quantplan.records.formats import PLANS
from quantplan.tensor import Model
from quantplan.text import Text


@dataclass(frozen=True)
class _Build:
    """A file to build: of a plan, or of the stock quant of that name."""

    source: Model
    target: Path
    imatrix: Path | None
    threads: int
    plan: Plan | None = None
    stock_quant: str = ""
    calibration: Text | None = None
    memory: int = 0

    @property
    def command(self) -> str:
        if self.plan:
            check_build(self.plan, self.source, self.target, self.imatrix)
            return build_command(self.plan, self.source, self.target, self.imatrix, self.threads)
        return stock_quant_command(self.source, self.stock_quant, self.target, self.imatrix, self.threads)

    @property
    def file_bytes(self) -> int:
        if self.plan:
            return self.plan.file_bytes
        importance = read_imatrix(self.imatrix) if self.imatrix else None
        return stock_plan(self.source, self.stock_quant, importance).file_bytes

    def run(self) -> Model:
        if self.plan and self.plan.rounding:  # stages with progress of their own
            with console.terminal() as report:
                return self._quantized(report, None)
        with console.progress("quantizing", len(self.source.tensors)) as advance:
            return self._quantized(console.LINES, advance)

    def _quantized(self, report: Reporter, advance: Advance | None) -> Model:
        return api.quantize(
            self.plan or self.stock_quant,
            self.source,
            self.target,
            imatrix=self.imatrix,
            calibration=self.calibration,
            cache=options.cache_folder(),
            execution=Execution(self.threads, memory=self.memory),
            report=report,
            advance=advance,
        )


@command
def quantize(
    plan: Annotated[
        Path, typer.Argument(help="A plan file, or the name of a stock quant: Q4_K_M.", show_default=False)
    ],
    model: ModelOptions,
    imatrix: ImatrixOptions,
    calibration: CalibrationOptions,
    execution: ThreadOptions,
    output: OutputOptions,
    memory: str | None = memory_option(),
    rounding: Rounding = option(
        "auto: as the plan says; stock: the plan's types as llama-quantize rounds them.",
        default=Rounding.auto,
        panel=MEASURING,
    ),
    out: Path | None = out_option("File to build (default: MODEL-PLAN.gguf)."),
) -> None:
    """Build a plan with llama-quantize, read the file back and check every type and the size.

    By default with the plan's own imatrix; another must have the same data. A stock quant is built by its name, with the
    project's imatrix, and checked in the same way. Nothing is left behind when the build fails or is interrupted.

    Example: quantplan quantize plans/prose-10m-q4_k_m.json --out prose-10m-q4_k_m.gguf
    """
    stock_quant = str(plan).upper()
    if not plan.exists() and (stock_quant in ftypes() or looks_like_ftype(stock_quant)):
        known_ftype(stock_quant)
        work = _of_stock_quant(stock_quant, model.file, imatrix.imatrix, out, execution.threads)
    else:
        work = _of_plan(plan, model.file, imatrix.imatrix, out, execution.threads)
        if work.plan and rounding is Rounding.stock:
            work = replace(work, plan=work.plan.with_stock_rounding())
        elif work.plan and work.plan.rounding:
            work = replace(work, calibration=calibration.text(work.source), memory=memory_bytes(memory))
    if output.dry_run:
        _announce(work, output.as_json)
        return
    check_output(work.source, work.target)
    built = work.run()
    console.say(f"all {len(built.tensors)} tensors and {built.file_bytes:,} bytes are as planned")
    if output.as_json:
        console.put_json(_fields(work, written=True) | {"digest": built.digest, "tensors": len(built.tensors)})
    else:
        console.put(str(work.target))


def _of_plan(path: Path, model: Path | None, imatrix: Path | None, out: Path | None, threads: int) -> _Build:
    plan = PLANS.read(path)
    source = options.model(model, plan)
    if requantizes(plan, source):
        console.warn(
            "the source is already quantized, --allow-requantize is passed: expect less than from the original"
        )
    importance = imatrix or options.imatrix_path(None, plan)
    return _Build(source, out or _default_out(source, path), importance, threads, plan)


def _of_stock_quant(name: str, model: Path | None, imatrix: Path | None, out: Path | None, threads: int) -> _Build:
    source, importance = options.model(model), options.imatrix_path(imatrix)
    if importance is None:
        console.warn(f"no imatrix: {name} is made without one; `quantplan imatrix` makes one")
    return _Build(source, out or _default_out(source, Path(name)), importance, threads, stock_quant=name)


def _default_out(source: Model, plan: Path) -> Path:
    return options.folder(None) / f"{with_stem(model_stem(source), plan.stem)}.gguf"


def _fields(work: _Build, *, written: bool) -> dict[str, object]:
    return {"file": str(work.target), "written": written, "command": work.command, "file_bytes": work.file_bytes}


def _announce(work: _Build, as_json: bool) -> None:
    """What would be done, after the checks that cost nothing."""
    if as_json:
        console.put_json(_fields(work, written=False))
        return
    above = work.target.absolute().parents
    folder = next(folder for folder in above if folder.is_dir())
    size = work.file_bytes
    console.put(work.command)
    console.put(f"builds    {work.target}")
    console.put(f"size      {size:,} bytes ({human_bytes(size)}) of {work.source.file_bytes:,}")
    console.put(f"free disk {human_bytes(shutil.disk_usage(folder).free)} in {folder}")
