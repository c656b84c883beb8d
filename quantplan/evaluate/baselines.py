"""The files of a comparison: those that are there, and those that a plan or the name of a stock mix stands
for.

A built file carries in its name a digest of all that it was made from, so that it is found again; it is
believed only after its types and size were read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantplan.build.build import build, build_stock_quant, stock_plan
from quantplan.comparison import SAME_SIZE
from quantplan.errors import BadFile, BadUsage, NotAsPlanned, NothingSelected
from quantplan.evaluate.compare import CompareEntry
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import known_ftype, published_ftypes
from quantplan.llamacpp.tools import Echo
from quantplan.llamacpp.tools import build as tools_build
from quantplan.plan import Plan
from quantplan.records.journal import digest_of
from quantplan.records.plan_files import read_plan
from quantplan.tensor import Model

# The mixes that people choose from: what llama.cpp's own table of quantizations lists, ternary types left out


@dataclass(frozen=True)
class BuildContext:
    """Where and from what contenders are built. ``imatrix``: the file for all of them, None for none."""

    source: Model
    folder: Path
    imatrix: Path | None = None
    threads: int = 0
    echo: Echo | None = None


def plan_entry(path: Path, context: BuildContext, earlier: Path | None = None) -> CompareEntry:
    """The plan's file: a GGUF as it is, or what a plan file says, built unless ``earlier`` or a former
    build is just that.
    """
    if path.suffix == ".gguf":
        return CompareEntry(path.name, _existing(path))
    plan = read_plan(path)
    plan.check_belongs_to(context.source)
    if earlier and as_planned(earlier, plan):
        return CompareEntry(path.stem, earlier)
    return CompareEntry(path.stem, built(plan, path.stem, context))


def baseline(word: str, context: BuildContext) -> CompareEntry:
    """A GGUF named by its path, or the stock mix of that name, built with the workshop's imatrix."""
    if word.lower().endswith(".gguf"):
        return CompareEntry(Path(word).name, _existing(Path(word)))
    try:
        ftype = known_ftype(word)
    except NothingSelected as error:
        raise NothingSelected(f"{error}; or give the path of a .gguf file") from None
    plan = stock_plan(context.source, ftype, _imatrix(context.imatrix))
    return CompareEntry(ftype, built(plan, f"{context.source.path.stem}-{ftype}", context, ftype))


def nearest_stock_quant(model: Model, size: int, imatrix: Path | None) -> str:
    """The stock mix whose file is the largest of those that are no larger than ``size`` bytes; else the
    smallest of all.

    Sizes are exact and nothing is built for them. StockQuants that cannot be made without an imatrix are left out
    without one.
    """
    sizes = stock_quant_sizes(model, _imatrix(imatrix))
    if not sizes:
        raise NothingSelected(f"llama-quantize makes no stock mix of {model.path}; name files with --with")
    fitting = [name for name, each in sizes.items() if each <= size * (1 + SAME_SIZE)]
    return max(fitting, key=lambda name: sizes[name]) if fitting else min(sizes, key=lambda name: sizes[name])


def stock_quant_sizes(model: Model, imatrix: Imatrix | None) -> dict[str, int]:
    """Exact file sizes of the usual stock mixes; those that need an imatrix are left out without one."""
    return dict(_sizes(model, published_ftypes(), imatrix))


def _sizes(model: Model, names: Iterable[str], imatrix: Imatrix | None) -> Iterable[tuple[str, int]]:
    for name in names:
        try:
            yield name, stock_plan(model, name, imatrix).file_bytes
        except BadUsage:  # needs an imatrix, and there is none
            continue


def _imatrix(path: Path | None) -> Imatrix | None:
    return read_imatrix(path) if path else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise BadFile(
            f"{path}: no such file; build it with `quantplan quantize`, or give the plan or the name of a mix"
        )
    return path


def built(plan: Plan, name: str, context: BuildContext, ftype: str = "") -> Path:
    """The file of a plan, or of the stock mix ``ftype`` that it stands for, in the workshop's folder; built if need be."""
    out = built_path(plan, name, context)
    if not as_planned(out, plan):
        given = context.imatrix if plan.imatrix else None
        if ftype:
            build_stock_quant(context.source, ftype, out, given, threads=context.threads, echo=context.echo)
        else:
            build(plan, context.source, out, imatrix_path=given, threads=context.threads, echo=context.echo)
    return out


def built_path(plan: Plan, name: str, context: BuildContext) -> Path:
    """Where ``built`` puts it: the name holds a digest of all that the file is made from."""
    made_from = [plan.model_digest, plan.imatrix.digest if plan.imatrix else None, tools_build()]
    made_from.append({each.name: each.type.name for each in plan.tensors})
    return context.folder / f"{name}-{digest_of(made_from)[:12]}.gguf"


def as_planned(file: Path, plan: Plan) -> bool:
    """Whether the file is there and whole; anything else is built again."""
    if not file.is_file():
        return False
    try:
        plan.check_built(read_model(file))
    except (BadFile, NotAsPlanned):
        return False
    return True
