"""`quantplan measure`: PPL, KLD and more of files against their base model, scores at tasks, tokens per second."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.cache_options import MeasuredCacheOptions
from quantplan.cli.estimate_output import estimate_fields, put_estimate
from quantplan.cli.framework import OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    MEASURING,
    EvaluationOptions,
    ExecutionOptions,
    ModelOptions,
    SpecialTokenOptions,
    TextOptions,
)
from quantplan.cli.records_output import write_records
from quantplan.cli.task_options import Evidence, TaskOptions
from quantplan.estimates.pace import forward_pace
from quantplan.estimates.work import WorkEstimate, of_measuring, why_not_timed
from quantplan.evaluate.drafts import DraftAcceptance, draft_acceptance
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.measure import measure as measure_in_process
from quantplan.evaluate.measure_with_tool import measure_with_tool
from quantplan.evaluate.same_tokens import tokenize
from quantplan.gguf.reader import read_model
from quantplan.measurement import Measurement
from quantplan.records.formats import MEASUREMENTS, TASK_SCORES, THROUGHPUTS
from quantplan.report.comparison_tables import speed_table, tasks_table
from quantplan.report.domain_table import domain_table
from quantplan.report.drafts import acceptance_fields, acceptance_table
from quantplan.report.measurement_table import measurement_table
from quantplan.task_score import TaskScore
from quantplan.tensor import Model
from quantplan.text import Text
from quantplan.throughput import Throughput


class EngineName(str, Enum):
    """Who runs the models."""

    in_process = "in-process"
    tool = "llama-perplexity"


@command
def measure(
    files: Annotated[list[Path], typer.Argument(help="GGUF files to measure, hf:// too.", show_default=False)],
    model: ModelOptions,
    text: TextOptions,
    special: SpecialTokenOptions,
    measuring: EvaluationOptions,
    tasks: TaskOptions,
    cache: MeasuredCacheOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    engine: EngineName = option(
        "in-process: float32 logits; llama-perplexity: 16-bit logits, with a noise floor.",
        default=EngineName.in_process,
        panel=MEASURING,
    ),
    drafts: bool = option(
        "Also how many drafts of the model's own MTP block are accepted, of --model and of each file.",
        default=False,
        panel=MEASURING,
    ),
    out: Path | None = out_option("Folder for the records (default: the project's reports)."),
) -> None:
    """Measure what files lose against the model they were made from (--model): PPL, KLD, top token, with errors.

    Chunks and figures are llama-perplexity's: the text is cut into chunks of --ctx tokens, their second
    halves count; RMS Δp and same top are in percent. Errors are over tokens as that tool prints them;
    kld_window_err (JSON) is over chunks. Finished files are not run again for the same text.

    With --kv (or -ctk, -ctv) files are run with a quantized KV cache, the base model with f16: what weights and cache
    lose together.

    --task and --speed measure scores (percent solved, kept task by task) and tokens per second (pp512, tg128 and
    pp512+tg128; others by -p, --n-gen and -pg, as in llama-bench) with llama.cpp's own tools; where one of them is given, PPL
    and KLD are measured only if --text is given too.

    --drafts runs the block that predicts further tokens (MTP) of files that have one, as speculative decoding does: the share
    of its drafts that the file itself would take, which is what bits of that block buy.

    Example: quantplan measure prose-10m-f16.gguf --model prose-10m-f16.gguf --text calibration/evaluation.txt
    --chunks 16
    """
    evidence = tasks.evidence()
    losses = bool(text.text) or not evidence or drafts
    base = options.model(model.file) if losses else None
    by_tool = "--task and --speed" if evidence else "--engine llama-perplexity" if engine is EngineName.tool else ""
    n_ctx = options.ctx(measuring.ctx, base)
    how = MeasureOptions(n_ctx, measuring.eval_chunks, execution.parsed(by_tool), cache_types=cache.cache_types)
    if output.dry_run:
        stages = []
        if base is not None:
            evaluation = options.evaluation_text(text.text, special.reader(base))
            stages = [_estimate(base, files, evaluation, engine, how)]
        texts = options.evaluation_files(text.text) if losses else ()
        _announce(files, texts, engine, evidence, stages, output.as_json)
        return
    here = [options.local(file) for file in files]
    evaluation = options.evaluation_text(text.text, special.reader(base), options.calibration_files(())) if base else ""
    measurements = _measure(engine, base.path, here, evaluation, how) if base else []
    write_records(out, measurements, MEASUREMENTS.write, lambda _: "measurement")
    scores, speeds = evidence.gather(here, how)
    every_score = [score for of_file in scores for score in of_file]
    write_records(out, every_score, TASK_SCORES.write, lambda score: f"{score.task}.task")
    write_records(out, speeds, THROUGHPUTS.write, lambda _: "speed")
    accepted = _drafts([base.path, *here] if base else here, evaluation, how) if drafts else []
    _show(here, measurements, scores, speeds, accepted, output.as_json)


def _drafts(files: list[Path], text: Text, how: MeasureOptions) -> list[DraftAcceptance]:
    with console.progress("drafts") as advance:
        return draft_acceptance(files, text, how, advance)


def _announce(
    files: Sequence[Path],
    texts: Sequence[Path],
    engine: EngineName,
    evidence: Evidence,
    stages: Sequence[WorkEstimate],
    as_json: bool,
) -> None:
    """What would be measured, and what of it takes how long."""
    lines = evidence.lines(files)
    if texts:
        names = options.names_of(texts)
        lines.insert(0, f"PPL and KLD on {names} ({engine.value}): the base once, then {len(files)} files")
    if as_json:
        console.put_json({"work": lines, "expected": estimate_fields(stages) if stages else None})
        return
    for line in lines:
        console.put(line)
    if stages:
        put_estimate(stages)


def _estimate(base: Model, files: list[Path], text: Text, engine: EngineName, how: MeasureOptions) -> WorkEstimate:
    """What the measurements take, by a short timing of the base model; files that are finished are not left out."""
    tokens = tokenize(base, text, how.n_ctx, how.chunks)
    # a file on the hub is not downloaded for this: the base stands in
    models = [base, *(base if options.reference(file) else read_model(file) for file in files)]
    unknown = why_not_timed(base, how.execution)
    pace = None if unknown else forward_pace(base, how.n_ctx, how.execution)
    return of_measuring(models, tokens, how.memory_bytes, pace, engine is EngineName.tool, unknown)


def _measure(engine: EngineName, base: Path, files: list[Path], text: Text, how: MeasureOptions) -> list[Measurement]:
    with console.progress("measuring") as advance:
        if engine is EngineName.tool:
            return measure_with_tool(base, files, text, how, advance, console.LINES)
        return measure_in_process(base, files, text, how, advance, options.cache_folder())


def _show(
    files: list[Path],
    measurements: list[Measurement],
    scores: list[list[TaskScore]],
    speeds: list[Throughput],
    accepted: list[DraftAcceptance],
    as_json: bool,
) -> None:
    for note in (f"{measurement.file}: {note}" for measurement in measurements for note in measurement.notes):
        console.warn(note)
    if as_json:
        fields = _fields(files, measurements, scores, speeds)
        for of_file, drafted in zip(fields, accepted[1:], strict=False):
            of_file["drafts"] = acceptance_fields(drafted) | {"of_model": acceptance_fields(accepted[0])}
        console.put_json(fields)
        return
    names = [str(file) for file in files]
    if measurements:
        console.put_table(measurement_table(measurements))
        if measurements[0].domains:
            console.put_table(domain_table(names, measurements))
    if scores:
        console.put_table(tasks_table(names, scores))
    if speeds:
        console.put_table(speed_table(names, speeds))
    if accepted:
        console.put_table(acceptance_table(accepted))


def _fields(
    files: list[Path], measurements: list[Measurement], scores: list[list[TaskScore]], speeds: list[Throughput]
) -> list[dict[str, object]]:
    """An object for each file: the figures flat, ``tasks`` and ``throughput`` where they were measured."""
    objects: list[dict[str, object]] = [{"file": str(file)} for file in files]
    for index, fields in enumerate(objects):
        if measurements:
            fields |= MEASUREMENTS.encode(measurements[index])
        if scores:
            fields["tasks"] = [TASK_SCORES.encode(score) for score in scores[index]]
        if speeds:
            fields["throughput"] = THROUGHPUTS.encode(speeds[index])
    return objects
