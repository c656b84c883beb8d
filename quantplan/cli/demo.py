"""`quantplan demo`: the main job from beginning to end, by the commands that a person would type."""

from importlib.resources import files
from pathlib import Path

from quantplan.cli import console
from quantplan.cli.framework import command, dry_run_option, json_option, option
from quantplan.cli.steps import command_line, run_step
from quantplan.records.files import replacing
from quantplan.run.demo_text import demo_texts

MODEL = "prose-10m-f16.gguf"
STOCK_QUANT = "Q4_K_M"
PLAN = "plans/prose-10m-q4_k_m.json"
STEPS = (  # command, and the file whose presence lets a second run skip it
    (["init", MODEL, "--ctx", "256"], "quantplan.toml"),
    (["imatrix"], "imatrix/prose-10m.gguf"),
    (["analyze", "--sort", "zd", "--rows", "12", "--plot", "reports/imatrix.png"], "reports/imatrix.png"),
    (["probe"], ""),
    (["solve", "--budget", STOCK_QUANT, "--out", PLAN], ""),
    (["quantize", PLAN], "prose-10m-q4_k_m.gguf"),
    (["compare", PLAN, "--with", STOCK_QUANT], ""),
)


@command
def demo(
    folder: Path = option("Where to make the demo project.", default=Path("quantplan-demo")),
    dry_run: bool = dry_run_option(),
    as_json: bool = json_option(),
) -> None:
    """Run the whole pipeline on the bundled 10 M model: imatrix, probe, plan, build, proof against a stock quant.

    A few minutes on two cores, no network. Leaves a project folder to look around in; finished steps are reused.

    Example: quantplan demo --folder quantplan-demo
    """
    lines = [command_line(words) for words, _ in STEPS]
    if not dry_run:
        _prepare(folder)
        for words, makes in STEPS:
            if not (makes and (folder / makes).exists()):
                run_step(words, folder, quiet=as_json)
    if as_json:
        made = [str(folder / makes) for makes in (*(makes for _, makes in STEPS if makes), PLAN)]
        console.put_json({"folder": str(folder), "written": not dry_run, "commands": lines, "files": made})
    elif dry_run:
        for line in lines:
            console.put(line)
    if not dry_run:
        console.say(f"\nThe project is in {folder}/: plans/, reports/, imatrix/, calibration/. What to try next:")
        console.say(f"  cd {folder} && quantplan solve --budget 4.5bpw && quantplan emit {PLAN} --as tensor-types")


def _prepare(folder: Path) -> None:
    """The bundled model and the two texts."""
    if not (folder / MODEL).exists():
        with replacing(folder / MODEL, "wb") as file:
            file.write((files("quantplan") / "data" / MODEL).read_bytes())
    for name, text in zip(("calibration", "evaluation"), demo_texts(), strict=True):
        target = folder / "calibration" / f"{name}.txt"
        if not target.exists():
            with replacing(target) as file:
                file.write(text)
