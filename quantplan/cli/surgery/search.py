"""`quantplan surgery search`: candidates of whole families of edits, ranked, and the best judged on another text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantplan.cli import console, options
from quantplan.cli.surgery import search_options as asked
from quantplan.cli.surgery.search_options import By

if TYPE_CHECKING:
    from quantplan.imatrix import Imatrix
    from quantplan.surgery.search.dry_run import SearchEstimate
    from quantplan.surgery.search.evaluations import EvaluationJob
    from quantplan.surgery.search.leaderboard import Leaderboard
    from quantplan.surgery.search.search import SearchOptions, SearchResult
    from quantplan.tensor import Model


def search(
    model: asked.ModelArgument = None,
    hub: options.HubOption = None,
    family: asked.FamilyOption = None,
    edits: asked.EditsOption = None,
    edits_file: asked.EditsFileOption = None,
    by: asked.ByOption = By.ppl,
    suite: asked.SuiteOption = None,
    phases: asked.PhasesOption = 1,
    keep: asked.KeepOption = 3,
    breadth: asked.BreadthOption = 8,
    max_candidates: asked.MaxCandidatesOption = None,
    max_time: asked.MaxTimeOption = None,
    calibration: asked.SearchTextOption = None,
    text: options.TextOption = None,
    ctx: options.CtxOption = None,
    chunks: asked.SearchChunksOption = None,
    judge_chunks: asked.JudgeChunksOption = None,
    top: asked.TopOption = 5,
    imatrix: options.ImatrixOption = None,
    force: asked.ForceOption = False,
    out: asked.OutOption = None,
    record: asked.RecordOption = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    jobs: options.JobsOption = 1,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Search over edits of layers: read every candidate of the families, combine the best, judge them on another text.

    Candidates are swapped into a loaded model; only another number of layers takes a file, for the moment of loading it.
    Every result is kept at once: the same command goes on after Ctrl-C or kill -9 and ends with the same leaderboard. Edits
    that the architecture forbids are left out and counted.

    Families: delete:2 cuts ranges of 2; repeat:8/4 runs ranges of 8, begun at every 4th layer, twice, then ranges of 4 around the
    best; swap:3 exchanges layers at most 3 apart; blend and scale take numbers.

    Example, in a project: quantplan surgery search prose-10m-f16.gguf --family delete --family repeat:4/2 --phases 2 --dry-run
    """
    from quantplan.build.preflight import check_apart, check_source
    from quantplan.surgery.write_model import check_target

    source = options.model(options.local_or_hub(model, hub))
    check_source(source)
    if out:
        check_target(source, out)
    place = asked.record_path(record, source.path)
    suites = [Path(each) for each in suite or ()]
    check_apart((place, out), (*source.paths, calibration, text, imatrix, edits_file, *suites))
    weights = options.imatrix(imatrix, source)
    chosen = _options(source, family, asked.explicit(edits, edits_file), by, force)
    chosen = replace(
        chosen,
        phases=phases,
        keep=keep,
        breadth=breadth,
        max_candidates=max_candidates,
        max_seconds=asked.seconds(max_time),
        top=top,
    )
    wanted, execution = asked.suite(by, suite), options.execution(threads, gpu_layers, jobs)
    searching, judging = asked.texts(calibration, text)
    job = _job(source, searching, options.ctx(ctx, source), chunks, jobs, weights)
    job = replace(job, execution=execution, suite=wanted)
    if dry_run:
        _announce(source, job, chosen, weights, judging is not None, as_json)
        return
    found = _search(source, job, chosen, weights, place)
    board = found.board
    if judging is not None:
        judged = _job(source, judging, job.n_ctx, judge_chunks or chunks, jobs, weights)
        board = _judge(source, replace(judged, execution=execution), board, chosen, weights, place)
    _write_champion(source, board, out, weights, force, threads)
    _show(board, found, place, as_json)


def _options(source: Model, family: list[str] | None, edits: tuple, by: By, force: bool) -> SearchOptions:
    from quantplan.surgery.search.families import DEFAULT, parse_family
    from quantplan.surgery.search.search import SearchOptions

    names = family if family else () if edits else DEFAULT
    families = tuple(dict.fromkeys(parse_family(name, source.blocks) for name in names))
    return SearchOptions(families, edits, by.value, skip_check=force)


def _job(source: Model, text: str, n_ctx: int, chunks: int | None, jobs: int, imatrix: Imatrix | None) -> EvaluationJob:
    from quantplan.surgery.search.evaluations import EvaluationJob, chunks_of

    count = chunks_of(source, text, n_ctx, chunks, jobs)
    path = Path(imatrix.path).absolute() if imatrix else None
    return EvaluationJob(source.path, source.digest, text, n_ctx, count, options.cache_folder(), imatrix=path)


def _search(
    source: Model, job: EvaluationJob, chosen: SearchOptions, imatrix: Imatrix | None, place: Path
) -> SearchResult:
    """The search, its leaderboard written anew with every result."""
    from quantplan.cli.surgery.search_progress import growing
    from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
    from quantplan.surgery.search.search import search as run

    with growing() as (report, show):

        def on_result(board: Leaderboard) -> None:
            LEADERBOARDS.write(board, place)
            show(board)

        found = run(source, job, chosen, imatrix, report, on_result)
    LEADERBOARDS.write(found.board, place)
    for reason in found.reasons.values():
        console.say(f"left out: {reason}")
    if found.ended:
        left = (
            f"{found.board.left_out} candidates were left out" if found.board.left_out else "later stages were left out"
        )
        console.warn(f"{found.ended}: {left}; the same command with more goes on from here")
    return found


def _judge(
    source: Model, job: EvaluationJob, board: Leaderboard, chosen: SearchOptions, imatrix: Imatrix | None, place: Path
) -> Leaderboard:
    from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
    from quantplan.surgery.search.search import judge

    console.say(f"judging the best {min(chosen.top, len(board.standings))} on the held-out text ...")
    judged = judge(source, job, board, chosen.top, imatrix)
    LEADERBOARDS.write(judged, place)
    return judged


def _write_champion(
    source: Model, board: Leaderboard, out: Path | None, imatrix: Imatrix | None, force: bool, threads: int
) -> None:
    """The first of the leaderboard as a file, with its record beside it."""
    from quantplan.surgery.operation import operate
    from quantplan.surgery.products import OperationOptions, produce

    best = board.best
    if out is None or best is None:
        return
    operation = operate(source, best.layer_map, imatrix=imatrix, skip_check=force)
    with console.terminal() as report:
        produce(operation, OperationOptions(best.edits, out, threads=threads), report)
    console.say(f"written: {out} ({best.edits})")


# --- printing


def _show(board: Leaderboard, found: SearchResult, place: Path, as_json: bool) -> None:
    from quantplan.report.leaderboard_table import evaluation_table, leaderboard_table, verdict
    from quantplan.surgery.search.leaderboard_files import LEADERBOARDS

    console.say(f"leaderboard: {place}")
    timing = found.timing
    if timing.evaluations and timing.overhead is not None and board.suite is None:
        each = timing.total / timing.evaluations
        console.say(
            f"{timing.evaluations} models read, {each:.2f} s each, {timing.overhead:.2f} of forward passes and loading"
        )
    if as_json:
        console.put_json(LEADERBOARDS.encode(board) | {"verdict": verdict(board) if board.judgement else None})
        return
    console.put_table(leaderboard_table(board))
    if board.judgement:
        console.put_table(evaluation_table(board))


def _announce(
    source: Model, job: EvaluationJob, chosen: SearchOptions, imatrix: Imatrix | None, judged: bool, as_json: bool
) -> None:
    from dataclasses import asdict

    from quantplan.surgery.search.dry_run import estimate_search

    plan = estimate_search(source, job, chosen, imatrix)
    if as_json:
        console.put_json(asdict(plan) | {"candidates": plan.candidates, "windows": job.chunks, "n_ctx": job.n_ctx})
        return
    for line in _lines(source, job, chosen, plan):
        console.put(line)
    if judged:
        console.put(f"judgement   the best {chosen.top} and the original on the held-out text")


def _lines(source: Model, job: EvaluationJob, chosen: SearchOptions, plan: SearchEstimate) -> list[str]:
    from quantplan.budget import human_bytes
    from quantplan.llamacpp.engine import chunks_per_batch

    lines = [
        f"candidates  {stage.name}: {'' if stage.exact else 'at most '}{stage.candidates}" for stage in plan.stages
    ]
    lines += [f"left out    {count} of {name}: {plan.reasons[name]}" for name, count in plan.refused.items()]
    lines += [f"left out    {count} of {name}: maps that are there already" for name, count in plan.repeated.items()]
    most = chosen.max_candidates
    total = f"at most {plan.candidates}" if most is None or most >= plan.candidates else f"{most} (--max-candidates)"
    disk = f"files of {human_bytes(plan.disk_bytes)} at a time" if plan.disk_bytes else "no file"
    suite = [f"suite       {job.suite.name}: {job.suite.items} items a candidate"] if job.suite else []
    return [
        f"model       {source.path.name}: {source.blocks} layers, {job.chunks} windows of {job.n_ctx} tokens a candidate",
        *suite,
        *lines,
        f"in all      {total}, {plan.passes} forward passes of up to {min(job.chunks, chunks_per_batch(job.n_ctx))} windows",
        f"hosts       {plan.hosts} in the first phase; {disk}",
    ]
