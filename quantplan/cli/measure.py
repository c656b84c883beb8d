"""`quantplan measure`: PPL, KLD and the rest of files against their base model, scores at tasks, tokens per second."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import task_options as evidence_options
from quantplan.cli.task_options import EvidenceOptions, RepetitionsOption, SpeedOption, TaskOption, TasksOption

if TYPE_CHECKING:
    from quantplan.evaluate.measure import MeasureOptions
    from quantplan.execution import Execution
    from quantplan.measurement import Measurement
    from quantplan.report.table import Table
    from quantplan.task_score import TaskScore
    from quantplan.throughput import Throughput


class EngineName(str, Enum):
    """Who runs the models."""

    in_process = "in-process"
    tool = "llama-perplexity"


BaseOption = Annotated[
    Path | None,
    typer.Option("--base", "--model", "-m", help="Model that the files were made from (default: the project's)."),
]
ChunksOption = Annotated[
    int | None, typer.Option("--windows", "-n", min=1, help="Windows of the text to take (default: all).")
]
_FilesArgument = Annotated[list[Path], typer.Argument(help="GGUF files to measure, hf:// too.", show_default=False)]
_EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", help="in-process: float32, exact; llama-perplexity: 16-bit, with a floor."),
]
_OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder for the records (default: the project's reports).")
]


def measure(
    files: _FilesArgument,
    base: BaseOption = None,
    hub: options.HubOption = None,
    text: options.TextOption = None,
    ctx: options.CtxOption = None,
    chunks: ChunksOption = None,
    engine: _EngineOption = EngineName.in_process,
    task: TaskOption = None,
    tasks: TasksOption = None,
    speed: SpeedOption = False,
    repetitions: RepetitionsOption = 5,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    jobs: options.JobsOption = 1,
    scheduler: options.SchedulerOption = None,
    rpc: options.RpcOption = None,
    out: _OutOption = None,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Measure what files lose against their base: PPL, KLD, change of probabilities, same top, with errors.

    Windows and figures are llama-perplexity's: the text is cut into windows of --ctx tokens, their second
    halves count; KLD is in nats per token, RMS Δp and same top are in percent. Errors are over tokens as
    that tool prints them; kld_window_err (JSON) is over windows. Finished files are not run again for the
    same text.

    --task and --speed measure scores (percent solved, kept task by task) and tokens per second with llama.cpp's own
    tools; where one of them is given, PPL and KLD are measured only if --text is given too.

    Example: quantplan measure prose-10m-f16.gguf --base prose-10m-f16.gguf --text calibration/heldout.txt
    --windows 16
    """
    asked = evidence_options.wanted(task, tasks, speed, repetitions)
    losses = text is not None or not asked
    model = options.model(options.local_or_hub(base, hub)) if losses else None
    by_tool = "--task and --speed" if asked else "--engine llama-perplexity" if engine is EngineName.tool else ""
    execution = options.execution(threads, gpu_layers, jobs, scheduler, rpc, by_tool)
    chosen = _options(options.ctx(ctx, model), chunks, execution)
    if dry_run:
        _announce(files, options.heldout(text) if losses else None, engine, asked)
        return
    files = [options.local(each) for each in files]
    found = _measure(engine, model.path, files, _compare_options(text), chosen) if model else []
    _write(found, out)
    scores, speeds = evidence_options.gather(files, asked, chosen)
    _write_evidence(scores, speeds, out)
    _show(files, found, scores, speeds, as_json)


def _compare_options(text: Path | None) -> str:
    from quantplan.project import read_text

    return read_text(options.heldout(text))


def _announce(files: list[Path], text: Path | None, engine: EngineName, asked: EvidenceOptions) -> None:
    if text:
        console.put(f"PPL and KLD on {text} ({engine.value}): the base once, then {len(files)} files")
    for line in asked.lines(files):
        console.put(line)


def _options(n_ctx: int, chunks: int | None, execution: Execution) -> MeasureOptions:
    from quantplan.evaluate.measure import MeasureOptions

    return MeasureOptions(n_ctx=n_ctx, chunks=chunks, execution=execution)


def _measure(engine: EngineName, base: Path, files: list[Path], text: str, chosen: MeasureOptions) -> list[Measurement]:
    from quantplan.evaluate.measure import measure as in_process
    from quantplan.evaluate.measure_with_tool import measure_with_tool

    with console.progress("measuring", 100) as bar:

        def advance(share: float) -> None:
            bar(100 * share)

        if engine is EngineName.tool:
            return measure_with_tool(base, files, text, chosen, advance, console.LINES)
        return in_process(base, files, text, chosen, advance, options.cache_folder())


def _folder(out: Path | None) -> Path | None:
    here = options.project()
    return out or (here.reports if here else None)


def _record(folder: Path, of: Measurement | TaskScore | Throughput, kind: str) -> Path:
    """The record's place; its name has the file's and the beginning of its digest."""
    return folder / f"{Path(of.file).stem}-{of.model_digest[:8]}.{kind}.json"


def _write(found: list[Measurement], out: Path | None) -> None:
    from quantplan.records.formats import MEASUREMENTS

    folder = _folder(out)
    for each in found if folder else ():
        path = _record(folder, each, "measurement")  # type: ignore[arg-type]
        MEASUREMENTS.write(each, path)
        console.say(f"written: {path}")


def _write_evidence(scores: list[list[TaskScore]], speeds: list[Throughput], out: Path | None) -> None:
    from quantplan.records.formats import TASK_SCORES, THROUGHPUTS

    folder = _folder(out)
    if folder is None:
        return
    for score in (each for own in scores for each in own):
        path = _record(folder, score, f"{score.task}.task")
        TASK_SCORES.write(score, path)
        console.say(f"written: {path}")
    for each in speeds:
        path = _record(folder, each, "speed")
        THROUGHPUTS.write(each, path)
        console.say(f"written: {path}")


def _show(
    files: list[Path], found: list[Measurement], scores: list[list[TaskScore]], speeds: list[Throughput], as_json: bool
) -> None:
    from quantplan.report.measurement_table import measurement_table

    for note in (f"{each.file}: {note}" for each in found for note in each.notes):
        console.warn(note)
    if as_json:
        console.put_json(_fields(files, found, scores, speeds))
        return
    if found:
        console.put_table(measurement_table(found))
    console.put_table(*_tables(files, scores, speeds))


def _tables(files: list[Path], scores: list[list[TaskScore]], speeds: list[Throughput]) -> list[Table]:
    from quantplan.report.comparison_tables import speed_table, tasks_table

    names = [str(file) for file in files]
    tables = [tasks_table(names, scores)] if scores else []
    return tables + ([speed_table(names, speeds)] if speeds else [])


def _fields(
    files: list[Path], found: list[Measurement], scores: list[list[TaskScore]], speeds: list[Throughput]
) -> list[dict[str, object]]:
    """One object a file: the figures flat, ``tasks`` and ``throughput`` where they were measured."""
    from quantplan.records.formats import MEASUREMENTS, TASK_SCORES, THROUGHPUTS

    fields: list[dict[str, object]] = [{"file": str(file)} for file in files]
    for index, each in enumerate(fields):
        if found:
            each |= MEASUREMENTS.encode(found[index])
        if scores:
            each["tasks"] = [TASK_SCORES.encode(score) for score in scores[index]]
        if speeds:
            each["throughput"] = THROUGHPUTS.encode(speeds[index])
    return fields
