"""`quantplan imatrix`: drives llama-imatrix, or writes the diagonal of second moments, which is the same."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.framework import OutputOptions, command, force_option, option, out_option
from quantplan.cli.option_groups import (
    ChunkOptions,
    InputTextOptions,
    ModelOptions,
    ToolOptions,
    memory_bytes,
    memory_option,
)
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix, write_imatrix
from quantplan.llamacpp import imatrix as tool
from quantplan.llamacpp.quantize import quantizable
from quantplan.progress import Reporter
from quantplan.run.targets import make_imatrix
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.compensated_errors import collect_for_rounding
from quantplan.sensitivity.second_moments import MomentOptions, collect
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model
from quantplan.text import SpecialText, Text


@command
def imatrix(
    model: ModelOptions,
    calibration: InputTextOptions,
    measuring: ChunkOptions,
    execution: ToolOptions,
    output: OutputOptions,
    file: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="The same as --model MODEL.", show_default=False)
    ] = None,
    chunks: int = option("Use the first N chunks of the text; 0: all.", default=0, panel="Measuring", min=0),
    output_weight: bool = option(
        "Collect data for output.weight too.", "--output-weight/--no-output-weight", default=True
    ),
    legacy: bool = option("Write the old .dat format.", default=False),
    second_moments: bool = option(
        "Write the diagonal of the second moments that compensated rounding uses, collected unless the cache has them.",
        default=False,
        panel="Measuring",
    ),
    memory: str | None = memory_option(),
    out: Path | None = out_option("File to write (default: the project's imatrix)."),
    force: bool = force_option(),
) -> None:
    """Make the importance matrix of a model over a calibration text with llama-imatrix.

    output.weight is included (by default the tool leaves it out). Several texts are joined in the order given. Chats (.jsonl
    with {"messages": [...]} a line) are rendered by the model's own template, and the tool gets them with --parse-special.

    With --second-moments one pass over the text serves both the imatrix and `--rounding auto`: over its chunks (65,536 tokens
    or more, spread over the text), or the first --chunks. The values are llama-imatrix's for these chunks.

    Example, in a project: quantplan imatrix --chunks 8 --out imatrix/short.gguf --force
    """
    if file and model.model:
        raise BadUsage(f"{file} and --model {model.model}: give the model once")
    named = options.local_or_hub(file or model.model, model.hub)
    source = options.model(named)
    texts = options.calibration_files(calibration.calibration)
    if not texts:
        raise BadUsage(
            "no calibration text: give -f calibration.txt (repeatable), or -f default, quantplan's own small texts"
        )
    here = options.project()
    ours = here.imatrix if here and named is None else None
    target = out or ours or Path(f"{source.path.stem}.imatrix.gguf")
    n_ctx = options.ctx(measuring.ctx, source)
    how = tool.ImatrixOptions(n_ctx, chunks, execution.parsed(), output_weight, legacy)
    if second_moments and (legacy or not output_weight):
        raise BadUsage(
            "--second-moments writes today's format with output.weight: leave --legacy and --no-output-weight out"
        )
    if output.dry_run and second_moments:
        console.put(f"would write {target}, the diagonal of second moments in chunks of {n_ctx} tokens")
        return
    text = calibration.required(source)
    if output.dry_run:
        how = replace(how, parse_special=isinstance(text, SpecialText))
        console.put(tool.tools.command_line(tool.argv(source.path, texts[0], target, how)))
        return
    options.check_new(target, force)
    name = texts[0].name if texts[0].is_file() else f"{texts[0].resolve().name}.txt"
    with console.terminal() as report:
        if second_moments:
            how = replace(how, execution=replace(how.execution, memory=memory_bytes(memory)))
            write_imatrix(_moments(source, text, how, report).imatrix(name), target)
            made = read_imatrix(target)
        else:
            made = make_imatrix(source, text, name, target, how, report)
    if output.as_json:
        fields = {
            "imatrix": str(target),
            "tensors": len(made.entries),
            "chunks": made.chunk_count,
            "digest": made.digest,
        }
        console.put_json(fields)
        return
    console.put(str(target))
    console.say(
        f"{len(made.entries)} tensors over {made.chunk_count} chunks; `quantplan analyze {target}` shows its statistics"
    )


def _moments(source: Model, text: Text, how: tool.ImatrixOptions, report: Reporter) -> CollectedMoments:
    """Those of compensated rounding, or over the first ``how.chunks`` chunks."""
    tensors, cache = quantizable(source), options.cache_folder()
    if not how.chunks:
        probe = ProbeOptions(how.n_ctx, execution=how.execution)
        return collect_for_rounding(source, tensors, text, probe, cache, report)
    moments = MomentOptions(how.n_ctx, how.chunks, spread=False, execution=how.execution)
    with report.stage("second moments") as advance:
        return collect(source, tensors, text, moments, cache, advance)
