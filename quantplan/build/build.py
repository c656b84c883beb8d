"""Building what a plan says with llama-quantize, and believing nothing but the file that comes out."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.build.compensated_rounding import (
    Compensation,
    check_cache_space,
    check_compensation,
    compensable,
    compensate_file,
)
from quantplan.build.finished_files import note_finished
from quantplan.build.preflight import (
    SPARE_BYTES,
    check_output,
    check_resolves,
    check_source,
    check_space,
    imatrix_as_planned,
)
from quantplan.errors import NoSpace, ToolFailed
from quantplan.gguf.imatrix_data import imatrix_with_data
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.imatrix_need import check_stock_quant
from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import imatrix_note, imatrix_use, make_plan
from quantplan.gguf.writer import metadata_bytes
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import quantize as tool
from quantplan.llamacpp.quantize import Recipe
from quantplan.plan import Plan
from quantplan.progress import SILENT, Advance, Reporter
from quantplan.recipes.quantize_command import in_imatrix_folder, plan_rules, quantize_command, requantizes
from quantplan.records.files import part_of, remove_leftovers, replacing
from quantplan.tensor import Model, Tensor, padded

MAX_SPELLED_RULES = 4  # more go into a file next to the output: a command line should be readable


@dataclass(frozen=True)
class _BuildSettings:
    """``threads`` 0 takes all cores; ``report`` gets the command line, ``advance`` a 1 for each tensor that is
    done.
    """

    threads: int
    report: Reporter
    advance: Advance | None
    compensation: Compensation | None = None


def stock_plan(model: Model, ftype: str, imatrix: Imatrix | None = None) -> Plan:
    """The stock quant ``ftype`` as a plan: its types and the exact size of its file.

    NothingSelected for an unknown FTYPE, BadUsage where it needs an imatrix and there is none.
    """
    types = tool.stock_quant(model, ftype, imatrix.path if imatrix else None)
    check_stock_quant(model, tool.known_ftype(ftype), types, imatrix)
    assignment = {each.name: types[each.name] for each in tool.quantizable(model)}
    return make_plan(model, assignment, imatrix, made_from={"mix": tool.known_ftype(ftype)})


def stock_bytes(model: Model, ftype: str, imatrix: Imatrix | None = None) -> int:
    """The size of the stock quant's file, also where it could not be made because the imatrix has no data for some tensor.

    NothingSelected for an unknown FTYPE, BadUsage where it needs an imatrix and there is none.
    """
    if imatrix is None:
        return stock_plan(model, ftype).file_bytes
    types = tool.stock_quant(model, ftype, imatrix.path)
    metadata = metadata_bytes(model, imatrix_note(imatrix_use(imatrix)))
    return metadata + sum(padded(tensor.bytes_as(types[tensor.name])) for tensor in model.tensors)


def build(
    plan: Plan,
    source: Model,
    out: Path,
    *,
    imatrix_path: Path | None = None,
    threads: int = 0,
    report: Reporter = SILENT,
    advance: Advance | None = None,
    compensation: Compensation | None = None,
) -> Model:
    """The model that the plan describes, written to ``out`` and read back; an older file there is replaced at
    the end. ``compensation``: for plans with compensated rounding, whose second moments must be those of the plan.

    What can be known beforehand is checked first: the plan belongs to the model, the imatrix is the one it
    was made with, the rules resolve to the plan, the disk has room. The rules are kept next to the output.
    Raises BadFile, BadUsage, ModelMismatch, NoSpace, NotAsPlanned, ToolFailed.
    """
    check_compensation(plan, source, compensation)
    with _recipe(plan, source, imatrix_path) as recipe:
        return _build(plan, source, out, recipe, _BuildSettings(threads, report, advance, compensation))


def check_build(plan: Plan, source: Model, out: Path, imatrix_path: Path | None = None) -> None:
    """What ``build`` checks beforehand, except for the room on the disk."""
    with _recipe(plan, source, imatrix_path) as recipe:
        check_output(source, out)
        check_resolves(plan, source, recipe)


@contextmanager
def _recipe(plan: Plan, source: Model, imatrix_path: Path | None) -> Iterator[Recipe]:
    plan.check_belongs_to(source)
    rules = plan_rules(plan)
    with (
        imatrix_as_planned(plan, imatrix_path) as planned,
        imatrix_with_data(planned, source, plan.imatrix.excluded if plan.imatrix else ()) as imatrix,
    ):
        yield Recipe(
            plan.base_ftype,
            rules,
            imatrix=imatrix,
            allow_requantize=requantizes(plan, source),
            realign=tool.realigns(source),
        )


def build_stock_quant(
    model: Model,
    ftype: str,
    out: Path,
    imatrix_path: Path | None = None,
    *,
    threads: int = 0,
    report: Reporter = SILENT,
    advance: Advance | None = None,
) -> Model:
    """The stock quant ``ftype`` as llama-quantize makes it without any rule, checked like a plan."""
    imatrix = read_imatrix(imatrix_path) if imatrix_path else None
    if imatrix:
        imatrix.check_belongs_to(model)
    plan = stock_plan(model, ftype, imatrix)
    with imatrix_with_data(imatrix_path, model) as data:
        recipe = Recipe(
            tool.known_ftype(ftype),
            imatrix=data,
            allow_requantize=requantizes(plan, model),
            realign=tool.realigns(model),
        )
        return _build(plan, model, out, recipe, _BuildSettings(threads, report, advance))


def stock_quant_command(model: Model, ftype: str, out: Path, imatrix_path: Path | None = None, threads: int = 0) -> str:
    """The llama-quantize command line that builds a stock quant, to be pasted."""
    plan = stock_plan(model, ftype, read_imatrix(imatrix_path) if imatrix_path else None)
    recipe = Recipe(
        tool.known_ftype(ftype),
        imatrix=imatrix_path,
        allow_requantize=requantizes(plan, model),
        realign=tool.realigns(model),
    )
    return quantize_command(recipe, model, out, threads)


def rules_file(out: Path) -> Path:
    """Where a built file's rules are kept: next to it, so that the command can be run again."""
    return out.with_name(f"{out.name.removesuffix('.gguf')}.tensor-types.txt")


def _build(plan: Plan, source: Model, out: Path, recipe: Recipe, settings: _BuildSettings) -> Model:
    check_source(source)
    check_output(source, out)
    check_resolves(plan, source, recipe)
    check_space(out, plan.file_bytes)
    compensated: tuple[Tensor, ...] = ()
    if settings.compensation:
        planned = {name: plan.types[name] for name in plan.compensated}
        compensated = compensable(planned, source, settings.compensation.moments)
        check_cache_space(settings.compensation, compensated, plan, out)
    remove_leftovers(out)
    part = part_of(out, ".gguf")
    try:
        _run(source, part, _with_rules_file(recipe, out), settings)
        plan.check_built(read_model(part))
        if settings.compensation and compensated:
            compensate_file(part, source, settings.compensation, compensated, settings.report)
            note_finished(plan, read_model(part), settings.compensation.cache)
        part.replace(out)
    except ToolFailed as error:
        if shutil.disk_usage(out.parent).free < SPARE_BYTES:
            raise NoSpace(f"the disk of {out.parent} is full: {error}") from None
        raise
    finally:
        part.unlink(missing_ok=True)
    return read_model(out)


def _run(source: Model, part: Path, recipe: Recipe, settings: _BuildSettings) -> None:
    begun = 0

    def started(_name: str) -> None:
        nonlocal begun
        if begun and settings.advance:
            settings.advance(1)
        begun += 1

    recipe, cwd = in_imatrix_folder(recipe)
    tool.quantize(source.path, recipe, part, threads=settings.threads, cwd=cwd, report=settings.report, started=started)
    if begun and settings.advance:
        settings.advance(1)


def _with_rules_file(recipe: Recipe, out: Path) -> Recipe:
    if len(recipe.rules) <= MAX_SPELLED_RULES:
        return recipe
    file = rules_file(out).absolute()
    with replacing(file) as text:
        text.write("".join(f"{rule}\n" for rule in recipe.rules))
    return replace(recipe, rules=(), rules_file=file)
