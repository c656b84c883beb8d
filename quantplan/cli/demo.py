"""`quantplan demo`: the main job from beginning to end, by the commands that a person would type."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options

MODEL = "prose-10m-f16.gguf"
MIX = "Q4_K_M"
PLAN = "plans/prose-10m-q4_k_m.json"
STEPS = (  # command, and the file whose presence lets a second run skip it
    (["init", MODEL, "--ctx", "256"], "quantplan.toml"),
    (["imatrix"], "imatrix/prose-10m.gguf"),
    (["analyze", "--plot", "reports/imatrix.png"], "reports/imatrix.png"),
    (["probe"], ""),
    (["solve", "--budget", MIX, "--out", PLAN], ""),
    (["quantize", PLAN], "prose-10m-q4_k_m.gguf"),
    (["compare", PLAN, "--with", MIX], ""),
)


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where to make the demo project.")] = Path("quantplan-demo"),
    dry_run: options.DryRunOption = False,
) -> None:
    """Run the whole pipeline on the bundled 10 M model: imatrix, probe, plan, build, proof against a stock mix.

    A few minutes on two cores, no network. Leaves a project folder to look around in; run again, it takes what is there.

    Example: quantplan demo --folder quantplan-demo
    """
    if dry_run:
        for command, _ in STEPS:
            console.put(" ".join(["quantplan", *command]))
        return
    _prepare(folder)
    for command, makes in STEPS:
        if makes and (folder / makes).exists():
            continue
        console.say(f"\n$ quantplan {' '.join(command)}")
        finished = subprocess.run([sys.executable, "-m", "quantplan.cli.main", *command], cwd=folder, check=False)
        if finished.returncode != 0:
            raise typer.Exit(finished.returncode)
    console.say(f"\nThe project is in {folder}/: plans/, reports/, imatrix/, calibration/. Go on with:")
    console.say(f"  cd {folder} && quantplan solve --budget 4.5bpw && quantplan emit {PLAN} --as tensor-types")


def _prepare(folder: Path) -> None:
    """The bundled model and the two texts."""
    from importlib.resources import files

    from quantplan.records.files import replacing
    from quantplan.run.demo_text import demo_texts

    if not (folder / MODEL).exists():
        with replacing(folder / MODEL, "wb") as file:
            file.write((files("quantplan") / "data" / MODEL).read_bytes())
    for name, text in zip(("calibration", "heldout"), demo_texts(), strict=True):
        target = folder / "calibration" / f"{name}.txt"
        if not target.exists():
            with replacing(target) as file:
                file.write(text)
