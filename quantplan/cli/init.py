"""`quantplan init`: makes a project folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from quantplan.abilities import check_language_model
from quantplan.budget import human_bytes
from quantplan.cli import console, options
from quantplan.cli.conversion_options import (
    ConversionOptions,
    downloads_of,
    gguf_of,
    intentions,
    named_checkpoint,
    remote_intentions,
)
from quantplan.cli.framework import OutputOptions, command, force_option, option
from quantplan.cli.option_groups import CalibrationOptions, ChunkOptions, HubOptions, ImatrixOptions, TextOptions
from quantplan.cli.plan_output import model_stem
from quantplan.convert.checkpoint import is_checkpoint, read_checkpoint
from quantplan.errors import BadUsage
from quantplan.gguf.reader import read_model
from quantplan.hub.hub import Hub
from quantplan.project import DEFAULT, FILE, FOLDERS, project_text
from quantplan.records.files import make_folder, replacing


@command
def init(
    hub: HubOptions,
    imatrix: ImatrixOptions,
    calibration: CalibrationOptions,
    text: TextOptions,
    measuring: ChunkOptions,
    conversion: ConversionOptions,
    output: OutputOptions,
    model: Annotated[
        Path | None,
        typer.Argument(
            help="GGUF of the project (stays where it is), or a folder with safetensors; hf:// too.", show_default=False
        ),
    ] = None,
    folder: Path = option("The project's folder.", default=Path()),
    force: bool = force_option(),
) -> None:
    """Make a project folder: quantplan.toml, imatrix/, calibration/, plans/ and reports/.

    Inside it the other commands know the model, the imatrix, the texts and what quantplan.toml sets: budget, constraints,
    limits.

    A folder as transformers saves models, or hf://owner/repo with safetensors, is made into a 16-bit GGUF in the project's
    folder by llama.cpp's own convert_hf_to_gguf.py, run by a Python that has torch and transformers. A finished conversion is
    reused; --dry-run says what is missing.

    Example: quantplan init prose-10m-f16.gguf --folder my-project
    """
    target = folder / FILE
    if target.exists() and not force:
        raise BadUsage(f"{target} already exists; --force overwrites it (nothing else is touched)")
    if output.dry_run:
        _announce(model, hub.hub, conversion, target, output.as_json)
        return
    checkpoint = named_checkpoint(model, hub.hub)
    path = gguf_of(checkpoint, conversion, folder) if checkpoint else options.local_or_hub(model, hub.hub)
    if path is None:
        raise BadUsage("which model? give MODEL.gguf, hf://owner/repo/file.gguf, or -hf owner/repo:quant")
    source = read_model(path)
    check_language_model(source)
    for name in FOLDERS:
        make_folder(folder / name)
    stem = model_stem(source)
    content = project_text(
        _relative(path, folder),
        _relative(imatrix.imatrix, folder) or f"imatrix/{stem}.gguf",
        _relative(_single(calibration.calibration, "--calibration"), folder) or "calibration/calibration.txt",
        _relative(_single(text.text, "--text"), folder) or "calibration/evaluation.txt",
        measuring.ctx or options.ctx(None, source),
        parse_special=calibration.parse_special,
    )
    with replacing(target) as file:
        file.write(content)
    if output.as_json:
        fields = {"project": str(target), "written": True, "model": str(path), "name": source.name}
        console.put_json(fields | {"tensors": len(source.tensors), "elements": source.elements})
    else:
        console.put(str(target))
    steps = "quantplan imatrix, quantplan solve --budget 4.5bpw, quantplan quantize, quantplan compare"
    console.say(
        f"project for {source.name}: {len(source.tensors)} tensors, {source.elements / 1e6:.1f} M weights. Next: {steps}"
    )
    if not calibration.calibration and not (folder / "calibration/calibration.txt").exists():
        console.say(
            "put texts at calibration/calibration.txt and calibration/evaluation.txt (they must not overlap); for a first try "
            f'name quantplan\'s own small ones in {FILE}: calibration = "{DEFAULT}", text = "{DEFAULT}"'
        )


def _single(paths: Sequence[Path], option: str) -> Path | None:
    if len(paths) > 1:
        raise BadUsage(f"{option}: a project names one file or one folder; put the texts into a folder")
    return paths[0] if paths else None


def _relative(path: Path | None, folder: Path) -> str:
    """As it is seen from the project's folder; nothing for None."""
    if path is None:
        return ""
    if path == Path(DEFAULT) and not path.exists():
        return DEFAULT
    # only its folder is resolved: in a hub's cache the file is a link to a blob without a name or shards
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def _announce(model: Path | None, hub: str | None, how: ConversionOptions, target: Path, as_json: bool) -> None:
    """What would be written, and what would be downloaded for it."""
    reference = options.reference(model, hub)
    checkpoint = downloads_of(model, hub)
    downloads = checkpoint or (Hub().files(reference) if reference else ())
    local = read_checkpoint(model) if model and not reference and is_checkpoint(model) else None
    if as_json:
        files = [{"file": file.name, "bytes": file.size, "cached": file.cached} for file in downloads]
        fields = {"project": str(target), "written": False, "downloads": files}
        console.put_json(fields | {"converts": bool(local or checkpoint)})
        return
    for file in downloads:
        there = "it is in the cache" if file.cached else f"{human_bytes(file.size)} to download"
        console.put(f"takes     {file.name} ({human_bytes(file.size)}, {there})")
    lines = intentions(local, how, target.parent) if local else remote_intentions(how) if checkpoint else ()
    for line in lines:
        console.put(line)
    console.put(f"writes    {target}")
