"""`quantplan run`: the whole chain from a model to the best file of each size, resumable at every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import constraint_options as asked
from quantplan.cli.probe_options import ChunksOption, SampleOption

if TYPE_CHECKING:
    from quantplan.evaluate.baselines import BuildContext
    from quantplan.execution import Execution
    from quantplan.planning.request import PlanRequest
    from quantplan.run.targets import RunOptions, RunResult, RunTarget, Texts
    from quantplan.sensitivity.estimate import SensitivityOptions
    from quantplan.solve.constraints import Constraints
    from quantplan.tensor import Model

_BudgetsOption = Annotated[
    list[str],
    typer.Option(
        "--budget", "-b", help="File size as for solve: 17.9GB, 4.25bpw, 40%, =other.gguf, Q4_K_M; repeatable."
    ),
]
_RefineTextOption = Annotated[
    Path | None,
    typer.Option(
        "--refine-text", help="Text to refine on, file or folder (default: a quarter of the calibration text)."
    ),
]
_RefineChunksOption = Annotated[
    int, typer.Option("--refine-windows", min=0, help="Windows of the refinement text; 0 takes 65536 tokens.")
]
_JudgeChunksOption = Annotated[
    int | None, typer.Option("--judge-windows", min=2, help="Windows of the text that judges (default: all).")
]
_WithOption = Annotated[
    str, typer.Option("--with", help="Further stock mixes to measure, separated by commas; those that fit guard, too.")
]


def run(
    budget: _BudgetsOption,
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    calibration: options.CalibrationOption = None,
    refine_text: _RefineTextOption = None,
    text: options.TextOption = None,
    types: options.TypesOption = "all",
    pin: asked.PinOption = None,
    minimum: asked.FloorOption = None,
    maximum: asked.CeilingOption = None,
    only: asked.OnlyOption = None,
    tie: asked.TieOption = None,
    max_types: asked.MostTypesOption = None,
    allow_1_bit: asked.OneBitOption = False,
    per: asked.PerOption = "tensor",
    monotone: asked.MonotoneOption = False,
    valley: asked.ValleyOption = False,
    baselines: _WithOption = "",
    refine: Annotated[bool, typer.Option(help="Correct the plan by what built files lose.")] = True,
    ctx: options.CtxOption = None,
    chunks: ChunksOption = 0,
    sample: SampleOption = "512k",
    refine_chunks: _RefineChunksOption = 0,
    judge_chunks: _JudgeChunksOption = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Keep the files that were built on the way.")] = False,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    jobs: options.JobsOption = 1,
    scheduler: options.SchedulerOption = None,
    rpc: options.RpcOption = None,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Make the best file of each size: imatrix, probe, plan, build, refine, proof against stock mixes, in one go.

    What is there already is not made again: the same command goes on after Ctrl-C or kill -9, and several --budget share all
    that does not depend on the size. The stock mix nearest in size stands guard: it is handed over where the plan is not
    surely better. Plans go to plans/, records to reports/, the files into the project's folder.

    Example, in a project: quantplan run --budget 5bpw --budget Q4_K_M --dry-run
    """
    from quantplan.build.preflight import check_source
    from quantplan.llamacpp.encodable_types import parse_writable
    from quantplan.run.targets import check_texts

    wanted = asked.constraints(pin, minimum, maximum, only, tie, max_types, monotone, valley, allow_1_bit)
    parse_writable(types)  # a typing mistake shall not cost an imatrix
    source = options.model(options.local_or_hub(model, hub))
    check_source(source)
    texts = _texts(calibration, refine_text, text)
    check_texts(source, texts, options.ctx(ctx, source))
    path = _imatrix_path(imatrix, source)
    execution = options.execution(threads, gpu_layers, jobs, scheduler, rpc)
    if not path.exists():
        if dry_run:
            console.put(f"imatrix   {path} would be made first; then the same command tells the rest")
            return
        _make_imatrix(source, texts, _name_of(calibration), path, options.ctx(ctx, source), execution)
    orders = _options(source, path, types, list(dict.fromkeys(budget)), wanted, per)
    prices = _prices(orders, ctx, chunks, sample, execution)
    chosen = _run_options(prices, judge_chunks, refine_chunks, refine, baselines, keep_all)
    if dry_run:
        _explain(orders, texts, chosen, path)
        return
    _show(_carry_out(orders, texts, chosen, path), as_json)


def _texts(calibration: Path | None, refine_text: Path | None, text: Path | None) -> Texts:
    """The three texts; BadUsage where one lacks, or where what refines would judge as well."""
    from quantplan.cli.probe_options import calibration_text
    from quantplan.errors import BadUsage
    from quantplan.evaluate.leakage import WORRYING, overlap
    from quantplan.evaluate.text_parts import probing_and_refinement
    from quantplan.project import read_text
    from quantplan.run.targets import Texts

    whole = calibration_text(calibration)
    if whole is None:
        raise BadUsage(
            "no calibration text: give --calibration FILE (some hundred kB of the kind that the model is for)"
        )
    judging = read_text(options.heldout(text))
    probing, refining = (whole, read_text(refine_text)) if refine_text else probing_and_refinement(whole)
    if not refining.strip() or not probing.strip():
        raise BadUsage(
            "the calibration text is too short to leave a part for refinement; give --refine-text FILE, or more"
        )
    for name, other in (("calibration text", probing), ("refinement text", refining)):
        share = overlap(judging, other)
        if share > WORRYING and name == "refinement text" and refine_text:
            raise BadUsage(
                f"{share:.0%} of the long lines of the text that judges stand in {refine_text}: refine on another"
            )
        if share > WORRYING:
            console.warn(
                f"{share:.0%} of the long lines of the text that judges stand in the {name} too: judge on another"
            )
    return Texts(probing, refining, judging)


def _name_of(calibration: Path | None) -> str:
    """The text's bare name, which becomes part of the imatrix."""
    path = options.calibration(calibration)
    assert path is not None
    return path.name if path.is_file() else f"{path.resolve().name}.txt"


def _imatrix_path(option: Path | None, source: Model) -> Path:
    found = options.imatrix_path(option)
    here = options.project()
    return found or (here.imatrix if here and here.imatrix else Path(f"{source.path.stem}.imatrix.gguf"))


def _make_imatrix(source: Model, texts: Texts, name: str, path: Path, ctx: int, execution: Execution) -> None:
    from quantplan.llamacpp.imatrix import ImatrixOptions
    from quantplan.run.targets import make_imatrix

    wanted = ImatrixOptions(ctx, execution=execution)
    with console.terminal() as report:
        make_imatrix(source, texts.probing, name, path, wanted, report)


def _options(
    source: Model, imatrix: Path, types: str, budgets: list[str], wanted: Constraints, per: str
) -> list[RunTarget]:
    from quantplan.planning import request as planning
    from quantplan.run.targets import RunTarget

    first = asked.request(source.path, imatrix, types, budgets[0], wanted, per)
    requests = [first, *(replace(first, budget=each) for each in budgets[1:])]
    for request in requests[1:]:
        planning.check(request)
    here = options.project()
    folder = here.folder if here else Path()
    stems = [_stem(request) for request in requests]
    return [
        RunTarget(request, stem, Path(folder) / f"{stem}.gguf") for request, stem in zip(requests, stems, strict=True)
    ]


def _stem(request: PlanRequest) -> str:
    """The name that `quantplan solve` and `quantplan quantize` give."""
    from quantplan.cli.plan_output import default_plan_path, plan_name

    return default_plan_path(request.model, plan_name(request)).stem


def _prices(
    orders: list[RunTarget], ctx: int | None, chunks: int, sample: str, execution: Execution
) -> SensitivityOptions:
    from quantplan.cli.probe_options import sensitivity_options
    from quantplan.planning.request import types_to_estimate

    first = orders[0].request
    return sensitivity_options(first.model, types_to_estimate(first), ctx, chunks, sample, execution)


def _run_options(
    prices: SensitivityOptions,
    judge_chunks: int | None,
    refine_chunks: int,
    refine: bool,
    baselines: str,
    keep_all: bool,
) -> RunOptions:
    from quantplan.errors import BadUsage
    from quantplan.evaluate.measure import MeasureOptions
    from quantplan.llamacpp.quantize import known_ftype
    from quantplan.run.refine import LEAST_CHUNKS
    from quantplan.run.targets import RunOptions

    if 0 < refine_chunks < LEAST_CHUNKS:
        raise BadUsage(
            f"--refine-windows {refine_chunks}: at least {LEAST_CHUNKS}, half to learn from, half to test on"
        )
    probe = prices.probe
    measuring = MeasureOptions(probe.n_ctx, judge_chunks, probe.execution)
    stock_quants = tuple(known_ftype(word.strip()) for word in baselines.split(",") if word.strip())
    return RunOptions(prices, measuring, refine_chunks, refine, stock_quants, keep_all)


def _carry_out(orders: list[RunTarget], texts: Texts, chosen: RunOptions, imatrix: Path) -> list[RunResult]:
    from quantplan.run.run import run as carry_out

    with console.terminal() as report:
        found = carry_out(orders, texts, chosen, _shop(orders, chosen, imatrix), options.cache_folder(), report)
    for each in found:
        _write(each)
    return found


def _shop(orders: list[RunTarget], chosen: RunOptions, imatrix: Path) -> BuildContext:
    from quantplan.evaluate.baselines import BuildContext

    folder = orders[0].file.parent / ".quantplan" / "builds"
    return BuildContext(orders[0].request.model, folder, imatrix, chosen.measuring.execution.threads, console.LINES)


def _write(result: RunResult) -> None:
    """The plan of the file, the comparison on the text that judges, and how it came about."""
    from quantplan.cli.plan_output import default_plan_path, plan_name
    from quantplan.records.codec import write_json
    from quantplan.records.formats import COMPARISONS, PLANS
    from quantplan.report.run_table import RUN_FORMAT, RUN_VERSION, result_fields

    order = result.order
    PLANS.write(result.plan, default_plan_path(order.request.model, plan_name(order.request)))
    here = options.project()
    reports = here.reports if here else Path("reports")
    COMPARISONS.write(result.comparison, reports / f"{order.name}.comparison.json")
    head = {"format": RUN_FORMAT, "version": RUN_VERSION}
    write_json(reports / f"{order.name}.run.json", head | result_fields(result))


def _show(found: list[RunResult], as_json: bool) -> None:
    from quantplan.report.run_table import result_fields, run_table

    if as_json:
        console.put_json([result_fields(each) for each in found])
        return
    console.put_table(run_table(found))
    for each in found:
        console.put(f"{each.order.file.name}: {each.reason}. {each.comparison.verdict}")


def _explain(orders: list[RunTarget], texts: Texts, chosen: RunOptions, imatrix: Path) -> None:
    """What is done, what is left, and the disk that it takes."""
    import shutil

    from quantplan.budget import human_bytes
    from quantplan.run.run import standing
    from quantplan.run.targets import disk_needed

    parts = ", ".join(f"{len(each) / 1e3:,.0f} kB" for each in (texts.probing, texts.refinement, texts.judging))
    console.put(f"imatrix   {imatrix} is there")
    console.put(f"texts     {parts} (to probe, to refine, to judge)")
    found = standing(orders, texts, chosen, _shop(orders, chosen, imatrix), options.cache_folder())
    console.put(f"prices    {'in the cache' if found[0].priced else 'round trip, probe and kernels to measure'}")
    for each in found:
        steps = f"{each.planned} plans solved, {each.measured} of them measured" if each.planned else "to plan"
        steps += ", judged" if each.judged else ""
        steps += ", the file is there" if each.there else ""
        console.put(
            f"{each.order.request.budget:9s} {each.order.file}, at most {each.order.budget_bytes:,} bytes: {steps}"
        )
    least, most = disk_needed([order.budget_bytes for order in orders])
    free = human_bytes(shutil.disk_usage(orders[0].file.absolute().parent).free)
    console.put(
        f"disk      {human_bytes(least)} at least, up to {human_bytes(most)} where there is room; {free} are free"
    )
