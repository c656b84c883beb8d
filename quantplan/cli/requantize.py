"""`quantplan requantize`: anybody's quant, its types and bytes kept, encoded again with error-compensated rounding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from quantplan.build.preflight import check_apart, check_output, check_space
from quantplan.build.requantize import Requantization, requantization
from quantplan.cli import console, options
from quantplan.cli.estimate_output import estimate_fields, put_estimate
from quantplan.cli.framework import OutputOptions, command, option, out_option
from quantplan.cli.option_groups import (
    TEXTS,
    CalibrationOptions,
    EvaluationOptions,
    MomentExecutionOptions,
    TextOptions,
)
from quantplan.errors import BadUsage
from quantplan.estimates.requantize_work import of_requantizing
from quantplan.estimates.table_work import timed
from quantplan.estimates.work import WorkEstimate
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.evaluate.significance import Ratio, ratio_interval
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.gguf.shards import model_stem
from quantplan.llamacpp.quantize import quantizable
from quantplan.measurement import Measurement
from quantplan.parallel.worker_pool import shortened
from quantplan.records.codec import finite
from quantplan.report.cells import interval
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model
from quantplan.text import Text


@command
def requantize(
    file: Annotated[Path, typer.Argument(help="A quantized GGUF, hf:// too.", show_default=False)],
    calibration: CalibrationOptions,
    text: TextOptions,
    measuring: EvaluationOptions,
    execution: MomentExecutionOptions,
    output: OutputOptions,
    base: Path | None = option("The original model in F16, BF16 or F32 (default: the project's).", panel=TEXTS),
    out: Path | None = out_option("File to build (default: FILE-compensated.gguf)."),
) -> None:
    """Encode a quantized GGUF again from the original model: same types, same bytes, less loss.

    llama-quantize builds the file's types from --base. Then the weights of each tensor are rounded with error compensation:
    each column makes up for the rounding errors of the columns before it, weighted by the inputs that the calibration text
    gives. The result is a stock GGUF: same blocks, same kernels, same speed. With --text both files are measured.

    FILE may be made of a sibling of --base, such as the model that a fine-tune started from: same names and shapes. Its types
    are the layout of the new file then, and that is said; with --text only the new file is measured, FILE is another model.

    Shards are read together, given any of them; the result is one file. Finished tensors are kept: after Ctrl-C or kill -9
    the same command resumes. An older file at --out stays until the new one is complete.

    Example: quantplan quantize Q4_K_M --out Q4_K_M.gguf && quantplan requantize Q4_K_M.gguf --base prose-10m-f16.gguf
    """
    source, path = options.model(base), options.local(file)
    target = out or path.with_name(f"{model_stem(path.name)}-compensated.gguf")
    calibration_text = calibration.text(source)
    if calibration_text is None:
        raise BadUsage("no calibration text: give --calibration FILE, text like the model's use")
    here = execution.parsed("compensated rounding")
    given = read_model(path)
    if not output.dry_run:
        check_output(source, target)
        check_apart([target], [*given.paths, *source.paths])
        check_space(target, given.file_bytes)
    evaluation = (
        options.evaluation_text(
            text.text, calibration.reader(source), options.calibration_files(calibration.calibration)
        )
        if text.text
        else ""
    )
    probe = ProbeOptions(options.ctx(measuring.ctx, source), execution=here)
    if output.dry_run:
        stages = _stages(given, source, calibration_text, evaluation, probe, measuring.eval_chunks)
        _announce(target, given, source, stages, output.as_json)
        return
    with console.terminal() as report:
        work = requantization(path, source, calibration_text, probe, options.cache_folder(), report)
        _tell(work, path, source)
        built = work.build(source, target, here.threads, report)
    files = [target] if work.differs else [target, path]
    measured = _measured(source, files, evaluation, measuring, here) if evaluation else []
    _show(built, source, target, work, measured, output.as_json)


def _stages(
    given: Model, source: Model, calibration: Text, evaluation: Text, probe: ProbeOptions, chunks: int | None
) -> list[WorkEstimate]:
    """What is to be done, by a short timing; tensors that were encoded before are not left out."""
    machine = timed(source, quantizable(source), probe)
    return of_requantizing(given, source, calibration, evaluation, probe, chunks, options.cache_folder(), machine)


def _announce(target: Path, given: Model, source: Model, stages: list[WorkEstimate], as_json: bool) -> None:
    if as_json:
        fields = {"file": str(target), "file_bytes": given.file_bytes, "expected": estimate_fields(stages)}
        console.put_json(fields)
        return
    console.put(
        f"would build {target} ({given.file_bytes:,} bytes) with the types of {given.path.name} from {source.path.name}"
    )
    put_estimate(stages)


def _tell(work: Requantization, path: Path, source: Model) -> None:
    if work.differs:
        console.say(
            f"{path.name} was made of another model than {source.path.name} ({work.differs} differs): its types are taken "
            "as a layout, all weights are those of the base"
        )
    for warning in work.warnings:
        console.warn(warning)
    for reason in dict.fromkeys(work.left.values()):
        names = [name for name, why in work.left.items() if why == reason]
        console.say(f"left to ggml's own encoding, {reason}: {shortened(names)}")


def _measured(
    source: Model, files: Sequence[Path], text: Text, measuring: EvaluationOptions, here: Execution
) -> list[Measurement]:
    how = MeasureOptions(options.ctx(measuring.ctx, source), measuring.eval_chunks, here)
    with console.progress("measuring") as advance:
        return measure(source.path, files, text, how, advance, options.cache_folder())


def _show(
    built: Model, source: Model, target: Path, work: Requantization, measured: list[Measurement], as_json: bool
) -> None:
    klds: list[float | None] = [each.kld.value for each in measured]
    kld, kld_of_file = (*klds, None, None)[:2]
    ratio = ratio_interval(*(each.per_chunk_kld for each in measured)) if len(measured) == 2 else None
    if as_json:
        console.put_json(
            {
                "file": str(target),
                "file_bytes": built.file_bytes,
                "compensated": list(work.plan.compensated),
                "left": [{"name": name, "reason": reason} for name, reason in work.left.items()],
                "differs": work.differs,
                "kld": kld,
                "kld_of_file": kld_of_file,
                "ratio": [ratio.ratio, finite(ratio.low), finite(ratio.high)] if ratio else None,
            }
        )
        return
    if ratio:
        console.say(_in_words(measured, ratio))
    elif kld is not None:
        console.say(f"KLD {kld:.5f} against {source.path.name}")
    console.put(str(target))


def _in_words(measured: list[Measurement], ratio: Ratio) -> str:
    after, before = (measurement.kld.value for measurement in measured)
    return (
        f"KLD {after:.5f} against {before:.5f} of the file given: {ratio.ratio:.3f} of it "
        f"(95 % interval: {interval(ratio.low, ratio.high, '.3f')})"
    )
