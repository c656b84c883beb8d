"""`quantplan imatrix`: drives llama-imatrix."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.framework import OutputOptions, command, force_option, option, out_option
from quantplan.cli.options import ChunkOptions, HubOptions, InputTextOptions, ToolOptions
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.llamacpp import imatrix as tool


@command
def imatrix(
    hub: HubOptions,
    calibration: InputTextOptions,
    measuring: ChunkOptions,
    execution: ToolOptions,
    output: OutputOptions,
    model: Annotated[
        Path | None, typer.Argument(help="GGUF model, hf:// too (default: the project's).", show_default=False)
    ] = None,
    chunks: int = option("Use the first N chunks of the text; 0: all.", default=0, panel="Measuring", min=0),
    output_weight: bool = option(
        "Collect data for output.weight too.", "--output-weight/--no-output-weight", default=True
    ),
    legacy: bool = option("Write the old .dat format.", default=False),
    out: Path | None = out_option("File to write (default: the project's imatrix)."),
    force: bool = force_option(),
) -> None:
    """Make the importance matrix of a model over a calibration text with llama-imatrix.

    output.weight is included (by default the tool leaves it out). Several texts are joined in the order given.

    Example, in a project: quantplan imatrix --chunks 8 --out imatrix/short.gguf --force
    """
    named = options.local_or_hub(model, hub.hub)
    source = options.model(named)
    texts = options.calibration_files(calibration.calibration)
    if not texts:
        raise BadUsage("no calibration text: give -f calibration.txt (repeatable)")
    here = options.project()
    ours = here.imatrix if here and named is None else None
    target = out or ours or Path(f"{source.path.stem}.imatrix.gguf")
    n_ctx = options.ctx(measuring.ctx, source)
    how = tool.ImatrixOptions(n_ctx, chunks, execution.parsed(), output_weight, legacy)
    if output.dry_run:
        console.put(tool.tools.command_line(tool.argv(source.path, texts[0], target, how)))
        return
    options.check_new(target, force)
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder, console.terminal() as report:
        joined = Path(folder) / (texts[0].name if texts[0].is_file() else f"{texts[0].resolve().name}.txt")
        joined.write_text(options.joined_text(texts), encoding="utf-8")
        tool.make(
            source,
            joined,
            target,
            how,
            report=report,
            check=lambda part: read_imatrix(part).check_belongs_to(source),
        )
    made = read_imatrix(target)
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
