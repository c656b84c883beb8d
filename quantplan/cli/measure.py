"""`quantplan measure`: PPL, KLD and the rest of files against their base model."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options

if TYPE_CHECKING:
    from quantplan.experiments.measure import MeasureOptions
    from quantplan.measurement import Measurement


class EngineName(str, Enum):
    """Who runs the models."""

    in_process = "in-process"
    tool = "llama-perplexity"


BaseOption = Annotated[
    Path | None,
    typer.Option("--base", "--model", "-m", help="Model that the files were made from (default: the project's)."),
]
WindowsOption = Annotated[
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
    windows: WindowsOption = None,
    engine: _EngineOption = EngineName.in_process,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    out: _OutOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure what files lose against their base: PPL, KLD, change of probabilities, same top, with errors.

    Windows and figures are llama-perplexity's: the text is cut into windows of --ctx tokens, their second
    halves count; KLD is in nats per token, RMS Δp and same top are in percent. Errors are over tokens as
    that tool prints them; kld_window_err (JSON) is over windows. Finished files are not run again for the
    same text.

    Example: quantplan measure prose-10m-f16.gguf --base prose-10m-f16.gguf --text calibration/heldout.txt
    --windows 16
    """
    from quantplan.project import read_text

    model = options.model(options.local_or_hub(base, hub))
    judging, chosen = (
        read_text(options.heldout(text)),
        _options(options.ctx(ctx, model), windows, threads, gpu_layers),
    )
    found = _measure(engine, model.path, [options.local(each) for each in files], judging, chosen)
    _write(found, out)
    _show(found, as_json)


def _options(n_ctx: int, windows: int | None, threads: int, gpu_layers: int) -> MeasureOptions:
    from quantplan.experiments.measure import MeasureOptions

    return MeasureOptions(n_ctx=n_ctx, windows=windows, threads=threads, gpu_layers=gpu_layers)


def _measure(engine: EngineName, base: Path, files: list[Path], text: str, chosen: MeasureOptions) -> list[Measurement]:
    from quantplan.experiments.measure import measure as in_process
    from quantplan.experiments.measure_with_tool import measure_with_tool

    with console.progress("measuring", 100) as bar:

        def advance(share: float) -> None:
            bar(100 * share)

        if engine is EngineName.tool:
            return measure_with_tool(base, files, text, chosen, advance, console.say)
        return in_process(base, files, text, chosen, advance, options.cache_folder())


def _write(found: list[Measurement], out: Path | None) -> None:
    from quantplan.formats.measurement_files import write_measurement

    here = options.project()
    folder = out or (here.reports if here else None)
    for each in found if folder else ():
        path = folder / f"{Path(each.file).stem}-{each.model_digest[:8]}.measurement.json"
        write_measurement(each, path)
        console.say(f"written: {path}")


def _show(found: list[Measurement], as_json: bool) -> None:
    from quantplan.formats.measurement_files import as_fields
    from quantplan.report.measurement_table import measurement_table

    for note in (f"{each.file}: {note}" for each in found for note in each.notes):
        console.warn(note)
    if as_json:
        console.put_json([as_fields(each) for each in found])
    else:
        console.put_table(measurement_table(found))
