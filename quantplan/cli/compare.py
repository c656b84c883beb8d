"""`quantplan compare`: a plan beside stock mixes or other files, same text, paired window by window."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import task_options as evidence_options
from quantplan.cli.measure import ChunksOption
from quantplan.cli.plan_output import model_stem, with_stem
from quantplan.cli.task_options import EvidenceOptions, RepetitionsOption, SpeedOption, TaskOption, TasksOption
from quantplan.hub.reference import is_reference

if TYPE_CHECKING:
    from quantplan.comparison import ComparedFile, Comparison
    from quantplan.evaluate.baselines import BuildContext
    from quantplan.evaluate.compare import CompareEntry, CompareOptions
    from quantplan.evaluate.measure import MeasureOptions
    from quantplan.tensor import Model


class TableFormat(str, Enum):
    """How the result is printed."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    html = "html"


_PlanArgument = Annotated[
    Path,
    typer.Argument(help="A plan (.json), built if need be, a GGUF, or a record of `measure`.", show_default=False),
]
_OthersArgument = Annotated[list[Path] | None, typer.Argument(help="More GGUF files, or records.", show_default=False)]
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
_FormOption = Annotated[TableFormat, typer.Option("--format", "-f", help="How to print the result.")]
_SortOption = Annotated[
    str | None,
    typer.Option("--sort", help="Leaderboard by kld, ppl, size, average, a task's name, pp512, tg128 or pp512+tg128."),
]
_ReferenceOption = Annotated[
    str | None,
    typer.Option("--reference", help="GGUF or stock mix that shrinkage is counted from (default: the base model)."),
]


def compare(
    plan: _PlanArgument,
    others: _OthersArgument = None,
    baselines: _WithOption = "",
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    text: options.TextOption = None,
    calibration: options.CalibrationOption = None,
    ctx: options.CtxOption = None,
    chunks: ChunksOption = None,
    task: TaskOption = None,
    tasks: TasksOption = None,
    speed: SpeedOption = False,
    repetitions: RepetitionsOption = 5,
    reference: _ReferenceOption = None,
    sort: _SortOption = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    jobs: options.JobsOption = 1,
    scheduler: options.SchedulerOption = None,
    rpc: options.RpcOption = None,
    out: _OutOption = None,
    dry_run: options.DryRunOption = False,
    form: _FormOption = TableFormat.table,
    as_json: options.JsonOption = False,
) -> None:
    """Compare a plan with stock mixes or other files, and say in one sentence which loses less.

    The first file, or with --sort the best, is what all others are held against: kld_ratio is its KLD over the other
    file's, below 1 the first is better. Both files are compared chunk by chunk; ≈ marks differences that are not
    significant (p > 0.05). Stock mixes are built with the plan's imatrix. Built files are kept in --out, or in the
    project's reports/builds; elsewhere they are removed at the end. Records that `quantplan measure` wrote compare
    without measuring anything.

    Example: quantplan compare plans/prose-10m-q4_k_m.json --with Q4_K_M --text calibration/heldout.txt
    """
    from quantplan.evaluate.compare import check_options, compare_files
    from quantplan.evaluate.from_records import are_records
    from quantplan.evaluate.measure import MeasureOptions

    form = TableFormat.json if as_json else form
    if are_records([plan, *(others or ())]):
        _show(_of_records([plan, *(others or ())], reference, sort), form)
        return
    asked = evidence_options.wanted(task, tasks, speed, repetitions)
    asked.check_sort(sort)
    plan = options.local(plan)
    base = options.model(_base(options.local_or_hub(model, hub), plan))
    execution = options.execution(threads, gpu_layers, jobs, scheduler, rpc, "--task and --speed" if asked else "")
    chosen = MeasureOptions(options.ctx(ctx, base), chunks, execution)
    check_options(chosen)
    judged = _judged(options.heldout(text), options.calibration(calibration))
    with _folder(out) as folder:
        words = [str(each) for each in others or ()] + [word.strip() for word in baselines.split(",") if word.strip()]
        words = [str(options.local(Path(word))) if is_reference(word) else word for word in words]
        context = _build_context(base, folder, _imatrix(imatrix, plan), threads)
        judging = _compare_options(plan, context, reference, sort)
        if dry_run:
            _announce(plan, words, context, asked)
            return
        entries = _entries(plan, words, context)
        found = compare_files(_measured(base, entries, judged, chosen, asked), judging)
    _write(found, plan, out)
    _show(found, form)


def _announce(plan: Path, words: list[str], context: BuildContext, asked: EvidenceOptions) -> None:
    """Files and their sizes, then what would be measured of each."""
    from quantplan.evaluate.baselines import file_size as reference_size
    from quantplan.evaluate.baselines import nearest_stock_quant
    from quantplan.records.formats import PLANS

    is_file = plan.suffix == ".gguf"
    own = reference_size(str(plan), context)[1] if is_file else PLANS.read(plan).file_bytes
    words = words or [nearest_stock_quant(context.source, own, context.imatrix)]
    sizes = [(plan.name, own), *(reference_size(word, context) for word in words)]
    for name, size in sizes:
        made = "" if name.endswith(".gguf") else ", built unless it is there"
        console.put(f"{name}: {size:,} bytes{made}")
    console.put(f"PPL and KLD: {context.source.path.name} once, then {len(sizes)} files")
    for line in asked.lines([Path(name) for name, _ in sizes]):
        console.put(line)


def _of_records(files: list[Path], reference: str | None, sort: str | None) -> Comparison:
    """What was measured earlier, perhaps elsewhere."""
    from quantplan.evaluate.baselines import file_size as reference_size
    from quantplan.evaluate.compare import CompareOptions, compare_files
    from quantplan.evaluate.from_records import read_compared_files

    found = read_compared_files(files)
    size = reference_size(reference, None) if reference else None
    return compare_files(found, CompareOptions(size, found[0].name, sort))


def _compare_options(plan: Path, context: BuildContext, reference: str | None, sort: str | None) -> CompareOptions:
    from quantplan.evaluate.baselines import file_size as reference_size
    from quantplan.evaluate.compare import CompareOptions

    base = context.source
    size = reference_size(reference, context) if reference else (base.path.name, base.file_bytes)
    return CompareOptions(size, plan.name if plan.suffix == ".gguf" else "the plan", sort)


def _measured(
    base: Model, entries: list[CompareEntry], text: str, chosen: MeasureOptions, asked: EvidenceOptions
) -> list[ComparedFile]:
    from quantplan.evaluate.compare import compared_files
    from quantplan.evaluate.measure import measure

    files = [entry.file for entry in entries]
    with console.progress("measuring", 100) as bar:
        losses = measure(base.path, files, text, chosen, lambda share: bar(100 * share), options.cache_folder())
    return compared_files(entries, losses, *evidence_options.gather(files, asked, chosen))


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where built files go: --out or the project, else a folder that is gone afterwards."""
    here = options.project()
    if out or here:
        yield out or here.reports / "builds"  # type: ignore[union-attr]
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        yield Path(folder)


def _build_context(base: Model, folder: Path, imatrix: Path | None, threads: int) -> BuildContext:
    from quantplan.evaluate.baselines import BuildContext

    return BuildContext(base, folder, imatrix, threads, console.LINES)


def _base(option: Path | None, plan: Path) -> Path | None:
    """The model: the option, the one that the plan names where it is there; None leaves it to the project."""
    from quantplan.records.formats import PLANS

    if option or plan.suffix == ".gguf":
        return option
    named = Path(PLANS.read(plan).model_path)
    return named if named.is_file() else None


def _imatrix(option: Path | None, plan: Path) -> Path | None:
    """The imatrix of all files: the option, else the plan's own where it still is, else the project's.

    A plan made without an imatrix stands against mixes made without one.
    """
    from quantplan.records.formats import PLANS

    if option or plan.suffix == ".gguf":
        return options.imatrix_path(option)
    own = PLANS.read(plan).imatrix
    if own is None:
        return None
    return Path(own.path) if Path(own.path).is_file() else options.imatrix_path(None)


def _entries(plan: Path, words: list[str], context: BuildContext) -> list[CompareEntry]:
    """The plan first. Everything is there or built when this returns."""
    from quantplan.evaluate.baselines import baseline, nearest_stock_quant, plan_entry

    here = options.project()
    earlier = f"{with_stem(model_stem(context.source), plan.stem)}.gguf"  # where `quantplan quantize` puts it
    first = plan_entry(plan, context, (here.folder if here else Path()) / earlier)
    if not words:
        words = [nearest_stock_quant(context.source, first.file.stat().st_size, context.imatrix)]
        console.say(f"comparing with {words[0]}, the stock mix nearest in size")
    return [first, *(baseline(word, context) for word in words)]


def _judged(path: Path, calibration: Path | None) -> str:
    """The text that judges, with a warning where calibration saw it."""
    from quantplan.evaluate.leakage import WORRYING, overlap
    from quantplan.project import read_text

    text = read_text(path)
    share = overlap(text, read_text(calibration)) if calibration else 0.0
    if share > WORRYING:
        console.warn(
            f"{share:.0%} of the long lines of {path} stand in the calibration text {calibration} "
            "too: the plan was tuned on them; judge on a text that calibration never saw"
        )
    return text


def _write(found: Comparison, plan: Path, out: Path | None) -> None:
    from quantplan.records.formats import COMPARISONS

    here = options.project()
    folder = out or (here.reports if here else None)
    if folder:
        COMPARISONS.write(found, folder / f"{plan.stem}.comparison.json")
        console.say(f"written: {folder / plan.stem}.comparison.json")


def _show(found: Comparison, form: TableFormat) -> None:
    from quantplan.records.comparison_csv import comparison_csv
    from quantplan.records.formats import COMPARISONS
    from quantplan.report.comparison_tables import comparison_tables
    from quantplan.report.table import as_html, as_markdown

    if form is TableFormat.json:
        console.put_json(COMPARISONS.encode(found))
    elif form is TableFormat.csv:
        console.put(comparison_csv(found).removesuffix("\n"))
    elif form is TableFormat.markdown:
        console.put(as_markdown(comparison_tables(found), found.verdict).removesuffix("\n"))
    elif form is TableFormat.html:
        console.put(
            as_html(comparison_tables(found), f"{found.rows[0].name} compared", found.verdict).removesuffix("\n")
        )
    else:
        console.put_table(*comparison_tables(found))
        console.put(found.verdict)
