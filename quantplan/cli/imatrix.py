"""`quantplan imatrix`: drives llama-imatrix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options


def imatrix(
    model: Annotated[
        Path | None, typer.Argument(help="GGUF model, hf:// too (default: the project's).", show_default=False)
    ] = None,
    hub: options.HubOption = None,
    text: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", "--calibration", help="Text files or folders (default: the project's)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write it (default: the project's).")] = None,
    ctx: options.CtxOption = None,
    chunks: Annotated[
        int, typer.Option("--chunks", min=0, help="Use only so many windows of the text; 0 takes all.")
    ] = 0,
    output_weight: Annotated[bool, typer.Option(help="Collect data for output.weight too.")] = True,
    legacy: Annotated[bool, typer.Option("--legacy", help="Write the old .dat format.")] = False,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    force: Annotated[bool, typer.Option("--force", help="Make it again where it exists.")] = False,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Make the importance matrix of a model over a calibration text with llama-imatrix.

    output.weight is included (the tool leaves it out by itself). Several texts are joined in the order given.

    Example, in a project: quantplan imatrix --chunks 8 --out imatrix/short.gguf --force
    """
    import tempfile

    from quantplan.errors import BadUsage
    from quantplan.gguf.imatrix_files import read_imatrix
    from quantplan.llamacpp import imatrix as tool
    from quantplan.project import read_text

    model = options.local_or_hub(model, hub)
    source = options.model(model)
    here = options.project()
    texts = text or [each for each in [options.calibration(None)] if each]
    if not texts:
        raise BadUsage("which text? give -f calibration.txt (more than one is fine)")
    target = out or (
        here.imatrix if here and here.imatrix and model is None else Path(f"{source.path.stem}.imatrix.gguf")
    )
    if target.exists() and not force and not dry_run:
        raise BadUsage(f"{target} exists already; --force makes it again, --out writes another")
    wanted = tool.ImatrixOptions(
        options.ctx(ctx, source), chunks, options.execution(threads, gpu_layers), output_weight, legacy
    )
    if dry_run:
        console.put(tool.tools.command_line(tool.argv(source.path, texts[0], target, wanted)))
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        joined = Path(folder) / (texts[0].name if texts[0].is_file() else f"{texts[0].resolve().name}.txt")
        joined.write_text("\n".join(read_text(each) for each in texts), encoding="utf-8")

        def check(part: Path) -> None:
            read_imatrix(part).check_belongs_to(source)

        with console.terminal() as report:
            tool.make(source.path, joined, target, wanted, report=report, check=check)
    made = read_imatrix(target)
    if as_json:
        console.put_json(
            {"imatrix": str(target), "tensors": len(made.entries), "chunks": made.chunk_count, "digest": made.digest}
        )
    else:
        console.put(str(target))
        console.say(
            f"{len(made.entries)} tensors over {made.chunk_count} chunks; `quantplan analyze {target}` shows its statistics"
        )
