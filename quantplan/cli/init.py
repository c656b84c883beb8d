"""`quantplan init`: makes a project folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options


def init(
    model: Annotated[Path, typer.Argument(help="GGUF model that the project is about; stays where it is.")],
    folder: Annotated[Path, typer.Option("--folder", help="The project's folder.")] = Path(),
    calibration: options.CalibrationOption = None,
    text: options.TextOption = None,
    imatrix: Annotated[Path | None, typer.Option("--imatrix", help="An imatrix that you have already.")] = None,
    ctx: options.CtxOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write quantplan.toml anew where there is one.")] = False,
) -> None:
    """Make a project folder: quantplan.toml, imatrix/, calibration/, plans/ and reports/.

    Inside it the other commands know the model, the imatrix and the texts.

    Example: quantplan init prose-10m-f16.gguf --folder my-project
    """
    from quantplan.cli.plan_output import model_stem
    from quantplan.errors import BadUsage
    from quantplan.formats.gguf import read_model
    from quantplan.formats.records import make_folder, replacing
    from quantplan.project import FILE, FOLDERS, project_text

    source = read_model(model)
    target = folder / FILE
    if target.exists() and not force:
        raise BadUsage(f"{target} exists already; --force writes it anew (nothing else is touched)")
    for name in FOLDERS:
        make_folder(folder / name)

    def relative(path: Path | None, default: str) -> str:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix() if path else default

    stem = model_stem(source)
    content = project_text(
        relative(model, ""),
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
