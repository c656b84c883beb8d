"""`quantplan run`: the whole chain from a model to the best file of each size, resumable at every step."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from quantplan.build.preflight import check_source
from quantplan.cli import console, options
from quantplan.cli.cache_options import AutoCacheOptions
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option
from quantplan.cli.option_groups import (
    MEASURING,
    TEXTS,
    CalibrationOptions,
    ExecutionOptions,
    ImatrixOptions,
    ModelOptions,
    TextOptions,
)
from quantplan.cli.plan_options import budgets_option
from quantplan.cli.plan_output import default_plan_path, plan_name
from quantplan.cli.plan_requests import PlanningOptions
from quantplan.cli.run_dry_run import RunJob, announce, announce_imatrix
from quantplan.errors import BadUsage, ImatrixNeeded
from quantplan.evaluate.leakage import WORRYING, overlap
from quantplan.evaluate.measure import MeasureOptions
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.llamacpp.imatrix import ImatrixOptions as ImatrixToolOptions
from quantplan.llamacpp.quantize import known_ftype
from quantplan.planning import request as planning
from quantplan.planning.solving import check
from quantplan.project import SOURCES
from quantplan.records.formats import COMPARISONS, PLANS, RUNS
from quantplan.report.domain_table import domain_table
from quantplan.report.run_table import run_record, run_table
from quantplan.run.refine import LEAST_CHUNKS
from quantplan.run.run import run as run_targets
from quantplan.run.targets import RunOptions, RunResult, RunTarget, Texts, check_texts, make_imatrix
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.solver.worst_domain import WORST_DOMAIN
from quantplan.tensor import Model
from quantplan.text import content, undivided
from quantplan.text_parts import probing_and_refinement


@dataclass(frozen=True)
class RefinementOptions:
    panel: ClassVar[str] = MEASURING
    refine: bool | None = option(
        "Correct the plan by the measured KLD of built files (default: where rounding is llama-quantize's).",
        "--refine/--no-refine",
        default=None,
    )
    validation: Path | None = option(
        "Text that decides on rounding and refinement, file or folder (default: a quarter of the calibration text).",
        panel=TEXTS,
    )
    other_domain: Path | None = option(
        "Text of another domain than the calibration text; compensated rounding must be better there, too.", panel=TEXTS
    )
    validation_chunks: int = option("Chunks of the validation text; 0: 65536 tokens.", default=0, min=0)
    eval_chunks: int | None = option("Chunks of the evaluation text (default: all).", min=2)
    stock_quants: tuple[str, ...] = option(
        "More stock quants to compare with (repeatable). Those within the budget also serve as fallback.",
        "--with",
        "-w",
        default=(),
    )


@command
def run(
    *,
    budget: tuple[str, ...] = budgets_option(),
    asked: PlanningOptions,
    cache: AutoCacheOptions,
    text: TextOptions,
    refinement: RefinementOptions,
    output: OutputOptions,
    keep_all: bool = option("Keep the files that were built on the way.", default=False, panel=OUTPUT),
) -> None:
    """Make the best file of each size: imatrix, probe, plan, build, proof against stock quants, in one go.

    Finished steps are reused: after Ctrl-C or kill -9 the same command resumes, and several --budget share all that does not
    depend on the size. If the plan is not significantly better than the stock quant of its size, you get the stock quant.
    Plans go to plans/, records to reports/, the files into the project's folder.

    Example, in a project: quantplan run --budget 5bpw --budget Q4_K_M --dry-run
    """
    asked.constraints.constraints()  # a typing mistake must not cost an imatrix
    parse_writable(asked.constraints.types)
    asked = asked.serving()
    source = options.model(asked.model.file)
    check_source(source)
    texts = _texts(source, asked.calibration, refinement, text)
    check_texts(source, texts, options.ctx(asked.measuring.ctx, source))
    with nullcontext() if output.dry_run else options.alone(Path()):
        _worked(asked, budget, refinement, source, texts, cache=cache, keep_all=keep_all, output=output)


def _worked(
    asked: PlanningOptions,
    budget: tuple[str, ...],
    refinement: RefinementOptions,
    source: Model,
    texts: Texts,
    *,
    cache: AutoCacheOptions,
    keep_all: bool,
    output: OutputOptions,
) -> None:
    """From the imatrix on; of a dry run, what would be done."""
    path = _imatrix_path(asked.imatrix.imatrix, source)
    n_ctx = options.ctx(asked.measuring.ctx, source)
    if not path.exists() and not output.dry_run:
        files = options.calibration_files(asked.calibration.calibration)
        _make_imatrix(source, texts, files, path, n_ctx, asked.execution)
    try:
        job = _job(asked, budget, refinement, source, texts, path, keep_all=keep_all)
    except ImatrixNeeded:
        if path.exists():
            raise
        announce_imatrix(path, output.as_json)  # only it tells how large that file is
        return
    request, types = job.targets[0].request, job.options.pricing.types
    if output.dry_run:
        announce(job, asked.besides(request, types, cache), output.as_json)
        return
    if asked.limits.automatic:
        caches = asked.cache_sensitivity(request, cache)
        job = replace(job, targets=[replace(target, caches=caches) for target in job.targets])
    if request.least_tps is not None:
        job = replace(job, options=replace(job.options, speeds=asked.speeds(request, types)))
    with console.terminal() as report:
        results = run_targets(job.targets, job.texts, job.options, job.context, options.cache_folder(), report)
    for result in results:
        _write(result)
    _show(results, output.as_json)


def _job(
    asked: PlanningOptions,
    budget: tuple[str, ...],
    refinement: RefinementOptions,
    source: Model,
    texts: Texts,
    imatrix: Path,
    *,
    keep_all: bool,
) -> RunJob:
    """With the imatrix unless it is still to be made; then ImatrixNeeded for a size that depends on it."""
    asked = replace(asked, model=ModelOptions(source.path), imatrix=ImatrixOptions(imatrix))
    request = asked.request(budget[0] if budget else None, automatic_cache=True, imatrix_there=imatrix.exists())
    if not request.limited:
        raise BadUsage("how large may the file be? give --budget (repeatable), --max-kld or --vram")
    run_options = _run_options(
        asked.estimation(request), asked.measuring.sensitivity, request.objective, refinement, keep_all
    )
    # the table of a file was probed on the whole calibration text, and so its second moments are of all of it
    rounding_text = texts.calibration if run_options.source in SOURCES else asked.calibration.required(source)
    return RunJob(_targets(request, budget), texts, run_options, imatrix, rounding_text)


def _texts(
    source: Model, calibration: CalibrationOptions, refinement: RefinementOptions, evaluation: TextOptions
) -> Texts:
    """The three texts; BadUsage where one is missing, or where the validation text overlaps the evaluation text."""
    whole, reader = calibration.required(source), calibration.reader(source)
    here = options.project()
    own = refinement.validation or (here.validation if here else None)
    judging = options.evaluation_text(evaluation.text, reader)
    probing, refining = (whole, reader.text([own])) if own else probing_and_refinement(whole)
    refining = undivided(refining)
    if not all(content(text).strip() for text in (probing, refining)):
        raise BadUsage(
            "the calibration text is too short to split off a validation text; give --validation FILE, or more"
        )
    for name, other in (("calibration text", probing), ("validation text", refining)):
        share = overlap(judging, other)
        if share > WORRYING and own and other is refining:
            raise BadUsage(
                f"{share:.0%} of the long lines of the evaluation text are also in {own}: validate on another text"
            )
        if share > WORRYING:
            console.warn(
                f"{share:.0%} of the long lines of the evaluation text are also in the {name}: evaluate on another"
            )
    domain = undivided(reader.text([refinement.other_domain])) if refinement.other_domain else ""
    for name, other in (("evaluation text", judging), ("calibration text", probing)):
        if domain and (share := overlap(other, domain)) > WORRYING:
            raise BadUsage(
                f"{share:.0%} of the long lines of the {name} are also in {refinement.other_domain}: it decides about "
                "rounding, give a text that is used for nothing else"
            )
    return Texts(probing, refining, judging, domain)


def _imatrix_path(option: Path | None, source: Model) -> Path:
    here = options.project()
    ours = here.imatrix if here and here.imatrix else Path(f"{source.path.stem}.imatrix.gguf")
    return options.imatrix_path(option) or ours


def _make_imatrix(
    source: Model, texts: Texts, files: Sequence[Path], path: Path, n_ctx: int, execution: ExecutionOptions
) -> None:
    """The imatrix, which notes the name of the calibration text."""
    name = files[0].name if files[0].is_file() else f"{files[0].resolve().name}.txt"
    how = ImatrixToolOptions(n_ctx, execution=execution.parsed())
    with console.terminal() as report:
        make_imatrix(source, texts.calibration, name, path, how, report)


def _targets(first: planning.PlanRequest, budgets: Sequence[str]) -> list[RunTarget]:
    """One for each budget, named as `quantplan solve` and `quantplan quantize` name plan and file."""
    requests = [
        first,
        *(replace(first, budget=budget) for budget in dict.fromkeys(budgets[1:]) if budget != first.budget),
    ]
    for request in requests[1:]:
        check(request)
    stems = [default_plan_path(request.model, plan_name(request)).stem for request in requests]
    files = [options.folder(None) / f"{stem}.gguf" for stem in stems]
    return [RunTarget(*parts) for parts in zip(requests, stems, files, strict=True)]


def _run_options(
    how: SensitivityOptions, source: str, objective: str, refinement: RefinementOptions, keep_all: bool
) -> RunOptions:
    chunks = refinement.validation_chunks
    if 0 < chunks < LEAST_CHUNKS:
        raise BadUsage(
            f"--validation-chunks {chunks}: at least {LEAST_CHUNKS}, half to refine the plan and half to test it"
        )
    probe = how.probe
    measuring = MeasureOptions(probe.n_ctx, refinement.eval_chunks, probe.execution)
    stock_quants = tuple(known_ftype(word) for word in refinement.stock_quants)
    compensated = how.compensate and source not in ("weights", "prior")
    asked = not compensated if refinement.refine is None else refinement.refine
    refine = asked and objective != WORST_DOMAIN
    if refine != asked:
        console.say(
            f"--objective {WORST_DOMAIN}: plans are not refined, because refinement lowers the KLD on all texts together"
        )
    return RunOptions(how, measuring, chunks, refine, stock_quants, keep_all, source=source)


def _write(result: RunResult) -> None:
    """The plan of the file, the comparison on the evaluation text, and how it came about."""
    target = result.target
    PLANS.write(result.plan, default_plan_path(target.request.model, plan_name(target.request)))
    reports = options.folder(None, "reports")
    COMPARISONS.write(result.comparison, reports / f"{target.name}.comparison.json")
    RUNS.write(run_record(result), reports / f"{target.name}.run.json")


def _show(results: list[RunResult], as_json: bool) -> None:
    if as_json:
        console.put_json([RUNS.encode(run_record(result)) for result in results])
        return
    console.put_table(run_table(results))
    for rows in (result.comparison.rows for result in results):
        if rows[0].measurement.domains:
            console.put_table(domain_table([row.name for row in rows], [row.measurement for row in rows], rows))
    for result in results:
        console.put(f"{result.target.file.name}: {result.reason}. {result.comparison.verdict}")
