"""`quantplan surgery search`: candidates of whole families of edits, ranked, and the best measured on another text."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from quantplan.budget import human_bytes
from quantplan.build.preflight import check_apart, check_source
from quantplan.cli import console, options
from quantplan.cli.framework import OUTPUT, OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    CalibrationOptions,
    ChunkOptions,
    ExecutionOptions,
    HubOptions,
    ImatrixOptions,
    TextOptions,
)
from quantplan.cli.surgery import search_options as asked
from quantplan.cli.surgery.apply import skip_check_option
from quantplan.cli.surgery.search_options import CandidateOptions, RankingOptions
from quantplan.cli.surgery.search_progress import growing
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.engine import chunks_per_batch
from quantplan.report.leaderboard_table import evaluation_table, leaderboard_table, verdict
from quantplan.surgery.operation import operate
from quantplan.surgery.products import OperationOptions, produce
from quantplan.surgery.search.dry_run import SearchEstimate, estimate_search
from quantplan.surgery.search.evaluations import EvaluationJob, chunks_of
from quantplan.surgery.search.families import DEFAULT, parse_family
from quantplan.surgery.search.leaderboard import Leaderboard
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
from quantplan.surgery.search.search import SearchOptions, SearchResult, judge
from quantplan.surgery.search.search import search as run_search
from quantplan.surgery.write_model import check_target
from quantplan.tensor import Model
from quantplan.text import Text


@command
def search(
    hub: HubOptions,
    imatrix: ImatrixOptions,
    calibration: CalibrationOptions,
    text: TextOptions,
    candidates: CandidateOptions,
    ranking: RankingOptions,
    measuring: ChunkOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    model: Annotated[
        Path | None, typer.Argument(help="GGUF model, or hf://owner/repo/file (default: the project's).")
    ] = None,
    skip_check: bool = skip_check_option(),
    record: Path | None = option("The leaderboard's file (default: reports/MODEL.surgery.json).", panel=OUTPUT),
    out: Path | None = out_option("Write the best candidate's model here."),
) -> None:
    """Search over edits of layers: measure every candidate of the families, combine the best, evaluate on another text.

    Candidates are swapped into a loaded model; only another number of layers takes a file, for the moment of loading it.
    Every result is kept at once: after Ctrl-C or kill -9 the same command resumes and ends with the same leaderboard. Edits
    that the architecture forbids are left out and counted.

    Families: delete:2 cuts ranges of 2; repeat:8/4 runs ranges of 8, begun at every 4th layer, twice, then ranges of 4 around the
    best; swap:3 exchanges layers at most 3 apart; blend and scale take numbers.

    Example, in a project: quantplan surgery search prose-10m-f16.gguf --family delete --family repeat:4/2 --phases 2 --dry-run
    """
    source = options.model(options.local_or_hub(model, hub.hub))
    check_source(source)
    if out:
        check_target(source, out)
    place = asked.record_path(record, source.path)
    inputs = (*calibration.calibration, *text.text, imatrix.imatrix, candidates.edits_file, *map(Path, ranking.suite))
    check_apart((place, out), (*source.paths, *inputs))
    weights = options.imatrix(imatrix.imatrix, source)
    how = _options(source, candidates, ranking, skip_check)
    suite = ranking.suites()
    searching, judging = asked.texts(calibration, source, text.text)
    n_ctx = options.ctx(measuring.ctx, source)
    job = replace(_job(source, searching, n_ctx, ranking.chunks, execution, weights), suite=suite)
    if output.dry_run:
        _announce(source, job, how, weights, judging is not None, output.as_json)
        return
    with options.alone(place.absolute().parent):
        result = _search(source, job, how, weights, place)
        board = result.board
        if judging is not None:
            judged = _job(source, judging, n_ctx, ranking.eval_chunks or ranking.chunks, execution, weights)
            board = _judge(source, judged, board, how, weights, place)
        _write_champion(source, board, out, weights, skip_check, execution.threads)
    _show(board, result, place, output.as_json)


def _options(source: Model, candidates: CandidateOptions, ranking: RankingOptions, skip_check: bool) -> SearchOptions:
    edits = candidates.explicit()
    names = candidates.family or (() if edits else DEFAULT)
    families = tuple(dict.fromkeys(parse_family(name, source.blocks) for name in names))
    return SearchOptions(
        families,
        edits,
        ranking.by.value,
        phases=candidates.phases,
        keep=candidates.keep,
        breadth=candidates.breadth,
        max_candidates=candidates.max_candidates,
        max_seconds=candidates.max_seconds,
        top=ranking.top,
        skip_check=skip_check,
    )


def _job(
    source: Model, text: Text, n_ctx: int, chunks: int | None, execution: ExecutionOptions, imatrix: Imatrix | None
) -> EvaluationJob:
    count = chunks_of(source, text, n_ctx, chunks, execution.jobs)
    path = Path(imatrix.path).absolute() if imatrix else None
    job = EvaluationJob(source.path, source.digest, text, n_ctx, count, options.cache_folder(), imatrix=path)
    return replace(job, execution=execution.parsed())


def _search(
    source: Model, job: EvaluationJob, how: SearchOptions, imatrix: Imatrix | None, place: Path
) -> SearchResult:
    """The search, its leaderboard written with every result."""
    with growing() as (report, show):

        def on_result(board: Leaderboard) -> None:
            LEADERBOARDS.write(board, place)
            show(board)

        result = run_search(source, job, how, imatrix, report, on_result)
    LEADERBOARDS.write(result.board, place)
    for reason in result.reasons.values():
        console.say(f"left out: {reason}")
    if result.ended:
        left = (
            f"{result.board.left_out} candidates were left out"
            if result.board.left_out
            else "later stages were left out"
        )
        console.warn(f"{result.ended}: {left}; the same command with more resumes here")
    return result


def _judge(
    source: Model, job: EvaluationJob, board: Leaderboard, how: SearchOptions, imatrix: Imatrix | None, place: Path
) -> Leaderboard:
    console.say(f"measuring the best {min(how.top, len(board.standings))} on the evaluation text ...")
    judged = judge(source, job, board, how.top, imatrix)
    LEADERBOARDS.write(judged, place)
    return judged


def _write_champion(
    source: Model, board: Leaderboard, out: Path | None, imatrix: Imatrix | None, force: bool, threads: int
) -> None:
    """The first of the leaderboard as a file, with its record next to it."""
    best = board.best
    if out is None or best is None:
        return
    operation = operate(source, best.layer_map, imatrix=imatrix, skip_check=force)
    with console.terminal() as report:
        produce(operation, OperationOptions(best.edits, out, threads=threads), report)
    console.say(f"written: {out} ({best.edits})")


# --- printing


def _show(board: Leaderboard, result: SearchResult, place: Path, as_json: bool) -> None:
    console.say(f"leaderboard: {place}")
    timing = result.timing
    if timing.evaluations and timing.overhead is not None and board.suite is None:
        average = timing.total / timing.evaluations
        console.say(
            f"{timing.evaluations} models measured, {average:.2f} s each, {timing.overhead:.2f} of forward passes and loading"
        )
    if as_json:
        console.put_json(LEADERBOARDS.encode(board) | {"verdict": verdict(board) if board.judgement else None})
        return
    console.put_table(leaderboard_table(board))
    if board.judgement:
        console.put_table(evaluation_table(board))


def _announce(
    source: Model, job: EvaluationJob, how: SearchOptions, imatrix: Imatrix | None, judged: bool, as_json: bool
) -> None:
    plan = estimate_search(source, job, how, imatrix)
    if as_json:
        console.put_json(asdict(plan) | {"candidates": plan.candidates, "windows": job.chunks, "n_ctx": job.n_ctx})
        return
    for line in _lines(source, job, how, plan):
        console.put(line)
    if judged:
        console.put(f"evaluation  the best {how.top} and the original on the evaluation text")


def _lines(source: Model, job: EvaluationJob, how: SearchOptions, plan: SearchEstimate) -> list[str]:
    lines = [
        f"candidates  {stage.name}: {'' if stage.exact else 'at most '}{stage.candidates}" for stage in plan.stages
    ]
    lines += [f"left out    {count} of {name}: {plan.reasons[name]}" for name, count in plan.refused.items()]
    lines += [
        f"left out    {count} of {name}: maps that are already candidates" for name, count in plan.repeated.items()
    ]
    most = how.max_candidates
    total = f"at most {plan.candidates}" if most is None or most >= plan.candidates else f"{most} (--max-candidates)"
    disk = f"files of {human_bytes(plan.disk_bytes)} at a time" if plan.disk_bytes else "no file"
    suite = [f"suite       {job.suite.name}: {job.suite.items} items a candidate"] if job.suite else []
    return [
        f"model       {source.path.name}: {source.blocks} layers, {job.chunks} chunks of {job.n_ctx} tokens a candidate",
        *suite,
        *lines,
        f"in all      {total}, {plan.passes} forward passes of up to {min(job.chunks, chunks_per_batch(job.n_ctx))} chunks",
        f"hosts       {plan.hosts} in the first phase; {disk}",
    ]
