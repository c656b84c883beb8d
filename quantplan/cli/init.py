"""`quantplan init`: makes a project folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options


def init(
    model: Annotated[
        Path | None,
        typer.Argument(help="GGUF model that the project is about, hf:// too; stays where it is.", show_default=False),
    ] = None,
    hub: options.HubOption = None,
    folder: Annotated[Path, typer.Option("--folder", help="The project's folder.")] = Path(),
    calibration: options.CalibrationOption = None,
    text: options.TextOption = None,
    imatrix: Annotated[Path | None, typer.Option("--imatrix", help="An imatrix that you have already.")] = None,
    ctx: options.CtxOption = None,
    dry_run: options.DryRunOption = False,
    force: Annotated[bool, typer.Option("--force", help="Write quantplan.toml anew where there is one.")] = False,
) -> None:
    """Make a project folder: quantplan.toml, imatrix/, calibration/, plans/ and reports/.

    Inside it the other commands know the model, the imatrix and the texts.

    Example: quantplan init prose-10m-f16.gguf --folder my-project
    """
    from quantplan.cli.plan_output import model_stem
    from quantplan.errors import BadUsage
    from quantplan.gguf.reader import read_model
    from quantplan.project import FILE, FOLDERS, project_text
    from quantplan.records.files import make_folder, replacing

    target = folder / FILE
    if target.exists() and not force:
        raise BadUsage(f"{target} exists already; --force writes it anew (nothing else is touched)")
    if dry_run:
        _announce(model, hub, target)
        return
    found = options.local_or_hub(model, hub)
    if found is None:
        raise BadUsage("which model? give MODEL.gguf, hf://owner/repo/file.gguf, or -hf owner/repo:quant")
    source = read_model(found)
    for name in FOLDERS:
        make_folder(folder / name)

    def relative(path: Path | None, default: str) -> str:
        if path is None:
            return default
        # only its folder is resolved: in a hub's cache the file is a link to a blob without a name or shards
        return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()

    stem = model_stem(source)
    content = project_text(
        relative(found, ""),
        relative(imatrix, f"imatrix/{stem}.gguf"),
        relative(calibration, "calibration/calibration.txt"),
        relative(text, "calibration/heldout.txt"),
        ctx or options.ctx(None, source),
    )
    with replacing(target) as file:
        file.write(content)
    console.put(str(target))
    steps = "quantplan imatrix, quantplan solve --budget 4.5bpw, quantplan quantize, quantplan compare"
    console.say(
        f"project for {source.name}: {len(source.tensors)} tensors, {source.elements / 1e6:.1f} M weights. Next: {steps}"
    )
    if not calibration and not (folder / "calibration/calibration.txt").exists():
        console.say("put texts at calibration/calibration.txt and calibration/heldout.txt (they must not overlap)")


def _announce(model: Path | None, hub: str | None, target: Path) -> None:
    """What would be written, and what would be downloaded for it."""
    from quantplan.budget import human_bytes
    from quantplan.hub.hub import Hub

    reference = options.reference(model, hub)
    for each in Hub().files(reference) if reference else ():
        there = "it is in the cache" if each.cached else f"{human_bytes(each.size)} to be downloaded"
        console.put(f"takes     {each.name} ({human_bytes(each.size)}, {there})")
    console.put(f"writes    {target}")
