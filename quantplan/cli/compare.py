"""`quantplan compare`: a plan against stock quants or other files, same text, paired chunk by chunk."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantplan.build.compensated_rounding import calibration_of
from quantplan.cli import console, options
from quantplan.cli.cache_options import MeasuredCacheOptions
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    MEASURING,
    CalibrationOptions,
    EvaluationOptions,
    ImatrixOptions,
    ModelOptions,
    MomentExecutionOptions,
    TableFormat,
    TextOptions,
)
from quantplan.cli.plan_output import model_stem, with_stem
from quantplan.cli.task_options import Evidence, TaskOptions
from quantplan.comparison import ComparedFile, Comparison
from quantplan.evaluate.baselines import (
    BuildContext,
    baseline,
    existing,
    file_size,
    is_gguf,
    nearest_stock_quant,
    plan_entry,
)
from quantplan.evaluate.compare import CompareEntry, CompareOptions, check_options, compare_files, compared_files
from quantplan.evaluate.from_records import are_records, read_compared_files
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.hub.reference import is_reference
from quantplan.llamacpp.quantize import ftypes
from quantplan.plan import Plan
from quantplan.records.comparison_csv import comparison_csv
from quantplan.records.formats import COMPARISONS, PLANS
from quantplan.report.comparison_tables import comparison_tables
from quantplan.report.table import as_html, as_markdown
from quantplan.tensor import Model
from quantplan.text import Text


@command
def compare(
    plan: Annotated[
        Path,
        typer.Argument(help="A plan (.json), built if need be, a GGUF, or a record of `measure`.", show_default=False),
    ],
    model: ModelOptions,
    imatrix: ImatrixOptions,
    text: TextOptions,
    calibration: CalibrationOptions,
    measuring: EvaluationOptions,
    cache: MeasuredCacheOptions,
    tasks: TaskOptions,
    execution: MomentExecutionOptions,
    output: OutputOptions,
    others: Annotated[
        list[Path] | None, typer.Argument(help="More plans, GGUF files, or records.", show_default=False)
    ] = None,
    baselines: tuple[str, ...] = option(
        "Stock quants to build, or GGUF files; repeatable (default: the stock quant nearest in size).",
        "--with",
        "-w",
        default=(),
        panel=MEASURING,
    ),
    reference: str | None = option(
        "GGUF or stock quant that shrinkage is relative to (default: the base model).", panel=MEASURING
    ),
    sort: str | None = option(
        "Leaderboard by kld, ppl, size, average, a task's name, or a test of speed such as tg128.", panel=OUTPUT
    ),
    form: TableFormat = option("How to print the result.", "--format", default=TableFormat.table, panel=OUTPUT),
    out: Path | None = out_option("Folder that keeps the built files and the result."),
) -> None:
    """Compare a plan with stock quants or other files, and say in one sentence which loses less.

    The first file, or with --sort the best, is what all others are compared with: kld_ratio is its KLD over the other
    file's, below 1 the first is better. Both files are compared chunk by chunk; ≈ marks differences that are not
    significant (p > 0.05). Stock quants are built with the plan's imatrix. Built files are kept in --out, or
    in the project's reports/builds; elsewhere they are removed at the end. Records that `quantplan measure` wrote compare
    without measuring anything.

    Example: quantplan compare plans/prose-10m-q4_k_m.json --with Q4_K_M --text calibration/evaluation.txt
    """
    form = TableFormat.json if output.as_json else form
    if are_records([plan, *(others or ())]):
        _show(_of_records([plan, *(others or ())], reference, sort), form)
        return
    evidence = tasks.evidence()
    evidence.check_sort(sort)
    plan = options.local(plan)
    made = None if is_gguf(plan) else PLANS.read(plan)
    base = options.model(model.file, made)
    run = execution.parsed("--task and --speed" if evidence else "")
    how = MeasureOptions(options.ctx(measuring.ctx, base), measuring.eval_chunks, run, cache_types=cache.cache_types)
    check_options(how)
    calibration_text = calibration.text(base)
    evaluation = options.evaluation_text(
        text.text, calibration.reader(base), options.calibration_files(calibration.calibration)
    )
    with _folder(out) as folder:
        words = [str(file) for file in others or ()] + list(baselines)
        words = [str(options.local(Path(word))) if is_reference(word) else word for word in words]
        for path in filter(is_gguf, (plan, *map(Path, words))):
            existing(path)  # before anything is built
        _check_calibration([str(plan), *words], calibration_text)
        context = BuildContext(
            base,
            folder,
            options.imatrix_path(imatrix.imatrix, made),
            run.threads,
            console.LINES,
            calibration_text,
            options.cache_folder(),
            run.memory,
        )
        size = file_size(reference, context) if reference else (base.path.name, base.file_bytes)
        if output.dry_run:
            _announce(plan, made, words, context, evidence)
            return
        entries = _entries(plan, made, words, context)
        compared = _measured(base, entries, evaluation, how, evidence)
        comparison = compare_files(compared, CompareOptions(size, "the plan" if made else plan.name, sort))
    _write(comparison, plan, out)
    _show(comparison, form)


def _check_calibration(words: Sequence[str], calibration: Text | None) -> None:
    """A warning for each plan whose second moments are of a text that the evaluation text was not checked against."""
    for path in (Path(word) for word in words if word.lower().endswith(".json")):
        use = PLANS.read(path).rounding
        if use and (calibration is None or calibration_of(use, calibration) is None):
            console.warn(
                f"{path.name} has compensated rounding, and the calibration text of its second moments was not given: whether "
                "the evaluation text overlaps it is not known; give it with --calibration"
            )


def _announce(plan: Path, made: Plan | None, words: list[str], context: BuildContext, evidence: Evidence) -> None:
    """Files and their sizes, then what would be measured of each."""
    size = made.file_bytes if made else file_size(str(plan), context)[1]
    words = words or [nearest_stock_quant(context.source, size, context.imatrix)]
    sizes = [(plan.name, size), *(file_size(word, context) for word in words)]
    for name, size in sizes:
        console.put(f"{name}: {size:,} bytes{'' if is_gguf(Path(name)) else ', built unless it exists'}")
    console.put(f"PPL and KLD: {context.source.path.name} once, then {len(sizes)} files")
    for line in evidence.lines([Path(name) for name, _ in sizes]):
        console.put(line)


def _of_records(files: list[Path], reference: str | None, sort: str | None) -> Comparison:
    """What was measured earlier, perhaps elsewhere."""
    compared = read_compared_files(files)
    size = file_size(reference, None) if reference else None
    return compare_files(compared, CompareOptions(size, compared[0].name, sort))


def _measured(
    base: Model, entries: list[CompareEntry], text: Text, how: MeasureOptions, evidence: Evidence
) -> list[ComparedFile]:
    files = [entry.file for entry in entries]
    with console.progress("measuring") as advance:
        measurements = measure(base.path, files, text, how, advance, options.cache_folder())
    return compared_files(entries, measurements, *evidence.gather(files, how))


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where built files go: --out or the project, else a folder that is removed afterwards."""
    if out or options.project():
        yield options.folder(out, "reports/builds")
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        yield Path(folder)


def _entries(plan: Path, made: Plan | None, words: Sequence[str], context: BuildContext) -> list[CompareEntry]:
    """The plan first. Everything exists or is built when this returns."""
    earlier = f"{with_stem(model_stem(context.source), plan.stem)}.gguf"  # where `quantplan quantize` puts it
    first = plan_entry(plan, context, options.folder(None) / earlier)
    if made and made.budget_asked.upper() in ftypes():  # its own name reads like that of the stock quant
        first = replace(first, name=f"quantplan (size of {made.budget_asked.upper()})")
    if not words:
        words = [nearest_stock_quant(context.source, first.file.stat().st_size, context.imatrix)]
        console.say(f"comparing with {words[0]}, the stock quant nearest in size")
    return [first, *(baseline(word, context) for word in words)]


def _write(comparison: Comparison, plan: Path, out: Path | None) -> None:
    folder = options.records_folder(out)
    if folder:
        COMPARISONS.write(comparison, folder / f"{plan.stem}.comparison.json")
        console.say(f"written: {folder / plan.stem}.comparison.json")


def _show(comparison: Comparison, form: TableFormat) -> None:
    if form is TableFormat.json:
        console.put_json(COMPARISONS.encode(comparison))
    elif form is TableFormat.csv:
        console.put(comparison_csv(comparison).removesuffix("\n"))
    elif form is TableFormat.table:
        console.put_table(*comparison_tables(comparison))
        console.put(comparison.verdict)
    else:
        grids, title = comparison_tables(comparison), f"{comparison.rows[0].name} compared"
        page = (
            as_html(grids, title, comparison.verdict)
            if form is TableFormat.html
            else as_markdown(grids, comparison.verdict)
        )
        console.put(page.removesuffix("\n"))
