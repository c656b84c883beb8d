"""The files of a comparison: those that exist, and those that a plan or the name of a stock quant stands for.

A built file carries in its name a digest of all that it was made from, so that a later comparison finds it; it is used only
after its types and size were read back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantplan.build.build import build, build_stock_quant, stock_plan
from quantplan.build.compensated_rounding import Compensation, compensation_for
from quantplan.build.finished_files import rounded_as_planned
from quantplan.comparison import SAME_SIZE
from quantplan.errors import BadFile, BadUsage, NotAsPlanned, NothingSelected
from quantplan.evaluate.compare import CompareEntry
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import known_ftype, published_ftypes
from quantplan.llamacpp.tools import build as tools_build
from quantplan.plan import Plan
from quantplan.progress import SILENT, Reporter
from quantplan.records.formats import PLANS
from quantplan.records.journal import digest_of
from quantplan.tensor import Model
from quantplan.text import Text


@dataclass(frozen=True)
class BuildContext:
    """Where and from what the compared files are built. ``imatrix``: of stock quants, and of plans whose own is gone;
    ``calibration``, ``cache``, ``memory``: text, and folder and memory of second moments, for plans with compensated rounding.
    """

    source: Model
    folder: Path
    imatrix: Path | None = None
    threads: int = 0
    report: Reporter = SILENT
    calibration: Text | None = None
    cache: Path | None = None
    memory: int = 0

    @property
    def rounding_cache(self) -> Path:
        """Where second moments, encoded tensors and digests of finished files are kept."""
        return self.cache or self.folder


def is_gguf(path: Path) -> bool:
    """Whether a compared file is a GGUF, by its name; else it is a plan."""
    return path.suffix.lower() == ".gguf"


def plan_entry(path: Path, context: BuildContext, earlier: Path | None = None) -> CompareEntry:
    """A GGUF as it is, or the file of a plan (.json): ``earlier`` or a former build where it is as planned, else built."""
    if is_gguf(path):
        return CompareEntry(path.name, existing(path))
    plan = PLANS.read(path)
    plan.check_belongs_to(context.source)
    if earlier and as_planned(earlier, plan, context.rounding_cache):
        return CompareEntry(path.stem, earlier)
    return CompareEntry(path.stem, built(plan, path.stem, context))


def baseline(word: str, context: BuildContext) -> CompareEntry:
    """A GGUF or a plan (.json) by its path, or the stock quant of that name, built with the context's imatrix."""
    if word.lower().endswith((".gguf", ".json")):
        return plan_entry(Path(word), context)
    try:
        ftype = known_ftype(word)
    except NothingSelected as error:
        raise NothingSelected(f"{error}; or give the path of a .gguf file or of a plan (.json)") from None
    plan = stock_plan(context.source, ftype, _imatrix(context.imatrix))
    return CompareEntry(ftype, built(plan, f"{context.source.path.stem}-{ftype}", context, ftype))


def file_size(word: str, context: BuildContext | None) -> tuple[str, int]:
    """(name, exact bytes) of the file that ``baseline`` would give, without building it.

    Without a context (there is no model) BadUsage for a stock quant.
    """
    path = Path(word)
    if is_gguf(path):
        return path.name, read_model(path).file_bytes
    if path.suffix.lower() == ".json":
        return path.name, PLANS.read(path).file_bytes
    if context is None:
        raise BadUsage(f"--reference {word}: records do not hold sizes of stock quants; give the path of a .gguf file")
    ftype = known_ftype(word)
    return ftype, stock_plan(context.source, ftype, _imatrix(context.imatrix)).file_bytes


def nearest_stock_quant(model: Model, size: int, imatrix: Path | None) -> str:
    """The stock quant whose file is the largest of those no larger than ``size`` bytes; else the smallest of all.

    Nothing is built. Stock quants that need an imatrix are left out without one.
    """
    sizes = stock_quant_sizes(model, _imatrix(imatrix))
    if not sizes:
        raise NothingSelected(f"llama-quantize makes no stock quant of {model.path}; name files with --with")
    fitting = [name for name, file_bytes in sizes.items() if file_bytes <= size * (1 + SAME_SIZE)]
    return max(fitting, key=lambda name: sizes[name]) if fitting else min(sizes, key=lambda name: sizes[name])


def stock_quant_sizes(model: Model, imatrix: Imatrix | None) -> dict[str, int]:
    """Exact file sizes of the stock quants in llama.cpp's own table; those that need an imatrix are left out without one."""
    return dict(_sizes(model, published_ftypes(), imatrix))


def _sizes(model: Model, names: Iterable[str], imatrix: Imatrix | None) -> Iterable[tuple[str, int]]:
    for name in names:
        try:
            yield name, stock_plan(model, name, imatrix).file_bytes
        except BadUsage:  # needs an imatrix, and there is none
            continue


def _imatrix(path: Path | None) -> Imatrix | None:
    return read_imatrix(path) if path else None


def existing(path: Path) -> Path:
    """The path of a GGUF that can be read; BadFile for any other."""
    if not path.is_file():
        raise BadFile(
            f"{path}: no such file; build it with `quantplan quantize`, or give the plan or the name of a stock quant"
        )
    read_model(path)
    return path


def built(plan: Plan, name: str, context: BuildContext, ftype: str = "") -> Path:
    """The file of a plan, or of the stock quant ``ftype`` that it stands for, in the context's folder; built if need be."""
    out = built_path(plan, name, context)
    if as_planned(out, plan, named_by_content=True):
        return out
    imatrix = context.imatrix if plan.imatrix else None
    if ftype:
        build_stock_quant(context.source, ftype, out, imatrix, threads=context.threads, report=context.report)
        return out
    if plan.imatrix and Path(plan.imatrix.path).is_file():
        imatrix = Path(plan.imatrix.path)
    build(
        plan,
        context.source,
        out,
        imatrix_path=imatrix,
        threads=context.threads,
        report=context.report,
        compensation=_compensation(plan, context),
    )
    return out


def _compensation(plan: Plan, context: BuildContext) -> Compensation | None:
    execution = Execution(context.threads, memory=context.memory)
    return compensation_for(
        plan, context.source, context.calibration, execution, context.rounding_cache, context.report
    )


def built_path(plan: Plan, name: str, context: BuildContext) -> Path:
    """Where ``built`` puts the file: the name holds a digest of all that it is made from."""
    made_from: list[object] = [plan.model_digest, plan.imatrix.digest if plan.imatrix else None, tools_build()]
    made_from.append(plan.encodings)
    if plan.rounding:
        made_from.append([plan.rounding.text_digest, plan.rounding.n_ctx, plan.rounding.chunks])
    return context.folder / f"{name}-{digest_of(made_from)[:12]}.gguf"


def as_planned(file: Path, plan: Plan, cache: Path | None = None, named_by_content: bool = False) -> bool:
    """Whether the file exists and is whole and as planned.

    Rounding cannot be seen in a header: a file is ``named_by_content``, or ``cache`` knows which ones were compensated.
    """
    if not file.is_file():
        return False
    try:
        found = read_model(file)
        plan.check_built(found)
    except (BadFile, NotAsPlanned):
        return False
    return named_by_content or rounded_as_planned(plan, found, cache)
