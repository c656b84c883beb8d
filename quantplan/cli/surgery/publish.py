"""`quantplan surgery publish`: from edits to a folder that can be uploaded, by the commands that a person would type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.tensor import Model

STOCK = "Q8_0,Q6_K,Q4_K_M,Q3_K_M,Q2_K"  # the quants that published operated models come in
UPLOAD = "publish"
SEARCHED = ".surgery.json"

_WhatArgument = Annotated[
    str,
    typer.Argument(
        help="Edits such as 'delete 3; swap 3 4', a .layers.json, or the .surgery.json of a search.", show_default=False
    ),
]
_OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Project folder to make (default: NAME).")]
_NameOption = Annotated[str | None, typer.Option("--name", help="Name of the new model (default: MODEL-operated).")]
_BudgetsOption = Annotated[
    list[str] | None,
    typer.Option("--budget", "-b", help="Size to plan for, as for run; repeatable (default: Q4_K_M)."),
]
_FurtherOption = Annotated[
    str, typer.Option("--run-options", help="Further words for quantplan run: '--types k --pin output=Q8_0'.")
]
_StockOption = Annotated[str, typer.Option("--stock", help="Stock quants to make as well, separated by commas.")]
_RepoOption = Annotated[str | None, typer.Option("--repo", metavar="OWNER/REPO", help="Where it will be published.")]
_BaseOption = Annotated[str | None, typer.Option("--base-model", metavar="OWNER/REPO", help="The original model.")]


@dataclass(frozen=True)
class Step:
    """A quantplan command; ``makes``: the file whose presence lets a second run skip it."""

    words: tuple[str, ...]
    makes: str = ""


def publish(
    model: Annotated[Path, typer.Argument(help="The original GGUF, hf:// too.", show_default=False)],
    what: _WhatArgument,
    out: _OutOption = None,
    name: _NameOption = None,
    budget: _BudgetsOption = None,
    run_options: _FurtherOption = "",
    stock: _StockOption = STOCK,
    calibration: options.CalibrationOption = None,
    text: options.TextOption = None,
    ctx: options.CtxOption = None,
    score: Annotated[bool, typer.Option(help="Score the new model and the original by the default suite.")] = True,
    repo: _RepoOption = None,
    base_model: _BaseOption = None,
    license: Annotated[str | None, typer.Option("--license", help="The model's license.")] = None,
    threads: options.ThreadsOption = 0,
    dry_run: options.DryRunOption = False,
) -> None:
    """Make an operated model and all that is published with it: plans, stock quants, measurements, card and Modelfile.

    A project folder with the new model, the best file of each --budget, the usual stock quants, and in publish/ what can
    be uploaded. Every step is a command of quantplan, shown before it runs; run again, it goes on where it was.

    Example: quantplan surgery publish prose-10m-f16.gguf "delete 3" --name prose-9 --dry-run
    """
    from quantplan.formats.gguf import read_model
    from quantplan.llamacpp.quantize import known_ftype

    source = read_model(options.local(model))
    called = name or f"{_stem(source)}-operated"
    folder = out or Path(called)
    mixes = [known_ftype(word.strip()) for word in stock.split(",") if word.strip()]
    wanted = _Wanted(
        source, called, _edits(what, source), tuple(budget or ("Q4_K_M",)), tuple(mixes), _texts(calibration, text),
        options.ctx(ctx, source), threads, score, _identity(repo, base_model, license), tuple(shlex.split(run_options)),
    )  # fmt: skip
    if dry_run:
        for step in _steps(wanted, folder):
            console.put(shlex.join(["quantplan", *step.words]))
        return
    folder.mkdir(parents=True, exist_ok=True)
    _keep_leaderboard(what, folder)
    for step in _steps(wanted, folder):
        if not (step.makes and (folder / step.makes).exists()):
            _run(step, folder)
    console.put(str(folder / UPLOAD))


@dataclass(frozen=True)
class _Wanted:
    source: Model
    name: str
    edits: str
    budgets: tuple[str, ...]
    mixes: tuple[str, ...]
    texts: tuple[Path, Path]
    ctx: int
    threads: int
    score: bool
    identity: tuple[str, ...]
    further: tuple[str, ...]

    @property
    def file(self) -> str:
        """The operated model: its type says that it is the source of the others."""
        return f"{self.name}-{self.source.file_type}.gguf"


def _stem(source: Model) -> str:
    from quantplan.cli.plan_output import model_stem

    return model_stem(source)


def _edits(what: str, source: Model) -> str:
    """The text of edits, checked on the model: as typed, of a layer map's record, or the best of a search."""
    from quantplan.surgery.edits import edits_text, layer_map, parse_edits

    edits = parse_edits(_best(Path(what)) if what.endswith(SEARCHED) else _recorded(what))
    layer_map(source.blocks, edits)
    return edits_text(edits)


def _recorded(what: str) -> str:
    from quantplan.formats.layer_map_files import SUFFIX, read_layer_map

    return read_layer_map(what).edits if what.endswith(SUFFIX) else what


def _best(record: Path) -> str:
    from quantplan.formats.leaderboard_files import read_leaderboard

    found = read_leaderboard(record).best
    if found is None:
        raise BadUsage(f"{record}: this search has measured nothing yet; go on with `quantplan surgery search`")
    return found.edits


def _texts(calibration: Path | None, text: Path | None) -> tuple[Path, Path]:
    found = options.calibration(calibration)
    if found is None:
        raise BadUsage("no calibration text: give --calibration FILE, of the kind that the model is for")
    return found, options.heldout(text)


def _identity(repo: str | None, base_model: str | None, license: str | None) -> tuple[str, ...]:
    pairs = (("--repo", repo), ("--base-model", base_model), ("--license", license))
    return tuple(word for option, value in pairs if value for word in (option, value))


def _steps(wanted: _Wanted, folder: Path) -> Iterator[Step]:
    """Read while they are carried out: which files there are is known only then."""

    def seen(path: Path) -> str:
        return os.path.relpath(path, folder)

    threads = ("--threads", str(wanted.threads)) if wanted.threads else ()
    file, source = wanted.file, seen(wanted.source.path)
    calibration, heldout = map(seen, wanted.texts)
    yield Step(("surgery", "apply", source, wanted.edits, "--name", wanted.name, "--out", file), file)
    texts = ("--calibration", calibration, "--text", heldout, "--ctx", str(wanted.ctx))
    yield Step(("init", file, *texts), "quantplan.toml")
    yield Step(("measure", file, "--base", source, *threads))
    if wanted.score:
        yield Step(("surgery", "score", file, "--base", source, "--text", heldout, *threads))
    budgets = [word for each in wanted.budgets for word in ("--budget", each)]
    yield Step(("run", *budgets, *wanted.further, *threads))
    for mix in wanted.mixes:
        made = f"{UPLOAD}/{wanted.name}-{mix}.gguf"
        yield Step(("quantize", mix, "--out", made, *threads), made)
    files = _gather(wanted, folder)
    yield Step(("measure", *files, *threads))
    yield Step(("card", *files, "--out", UPLOAD, "--force", *wanted.identity))


def _gather(wanted: _Wanted, folder: Path) -> Sequence[str]:
    """All files to publish; those that `run` made are put among them under names that cannot be taken for stock quants."""
    from quantplan.cli.plan_output import plan_stem, size_name

    names = []
    for budget in wanted.budgets:
        built = folder / f"{plan_stem(wanted.name, size_name(budget))}.gguf"
        names.append(f"{plan_stem(wanted.name, f'plan-{budget}')}.gguf")
        if built.is_file():
            _link(built, folder / UPLOAD / names[-1])
    return [f"{UPLOAD}/{name}" for name in (*names, *(f"{wanted.name}-{mix}.gguf" for mix in wanted.mixes))]


def _link(built: Path, published: Path) -> None:
    """The same bytes under another name: a hard link where the disk can, else a copy."""
    import shutil

    if published.exists() and published.samefile(built):
        return
    published.parent.mkdir(exist_ok=True)
    part = published.with_name(f".{published.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(built, part)
    except OSError:
        shutil.copyfile(built, part)
    part.replace(published)


def _keep_leaderboard(what: str, folder: Path) -> None:
    """The search that the edits are the best of, for the card."""
    import shutil

    if what.endswith(SEARCHED):
        (folder / "reports").mkdir(exist_ok=True)
        shutil.copyfile(what, folder / "reports" / Path(what).name)


def _run(step: Step, folder: Path) -> None:
    console.say(f"\n$ {shlex.join(['quantplan', *step.words])}")
    finished = subprocess.run([sys.executable, "-m", "quantplan.cli.main", *step.words], cwd=folder, check=False)
    if finished.returncode != 0:
        raise typer.Exit(finished.returncode)
