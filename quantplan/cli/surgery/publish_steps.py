"""The commands that `quantplan surgery publish` runs, in their order."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan.cli.plan_output import plan_stem, size_name
from quantplan.cli.steps import command_line
from quantplan.evaluate.suites.suite_files import SHORT
from quantplan.records.files import part_of, remove_leftovers
from quantplan.surgery.layer_map_files import record_path
from quantplan.tensor import Model

UPLOAD = "publish"


@dataclass(frozen=True)
class PublishStep:
    """A quantplan command; ``makes``: the file whose presence lets a second run skip it; ``operates``: makes the model."""

    words: tuple[str, ...]
    makes: str = ""
    operates: bool = False

    def __str__(self) -> str:
        return command_line(self.words)


@dataclass(frozen=True)
class PublishOptions:
    """What is to be published; ``budgets``: as `run` takes them; ``stock_quants``: made as well."""

    source: Model
    name: str
    edits: str
    budgets: tuple[str, ...]
    stock_quants: tuple[str, ...]
    texts: tuple[Path, Path]
    ctx: int
    threads: int
    score: bool
    card: tuple[str, ...]  # options of the card
    further: tuple[str, ...]
    forced: bool = False
    parse_special: bool = False

    @property
    def file(self) -> str:
        """The operated model: its type says that it is the source of the others."""
        return f"{self.name}-{self.source.file_type}.gguf"


def steps_of(job: PublishOptions, folder: Path) -> Iterator[PublishStep]:
    """Read while they are carried out: which files there are is known only then."""

    def seen(path: Path) -> str:
        return os.path.relpath(path, folder)

    threads = ("--threads", str(job.threads)) if job.threads else ()
    file, source = job.file, seen(job.source.path)
    calibration, evaluation = map(seen, job.texts)
    words = ("surgery", "apply", source, job.edits, "--name", job.name, "--out", file, *threads)
    words += ("--skip-architecture-check",) if job.forced else ()
    yield PublishStep(words, operates=True)
    special = ("--parse-special",) if job.parse_special else ()
    texts = ("--calibration", calibration, "--text", evaluation, *special, "--ctx", str(job.ctx))
    yield PublishStep(("init", file, *texts), "quantplan.toml")
    yield PublishStep(("measure", file, "--model", source, *threads))
    if job.score:
        yield PublishStep(("score", file, "--model", source, "--suite", SHORT, "--text", evaluation, *threads))
    budgets = [word for budget in job.budgets for word in ("--budget", _seen_budget(budget, folder))]
    yield PublishStep(("run", *budgets, *job.further, *threads))
    for stock_quant in job.stock_quants:
        made = f"{UPLOAD}/{job.name}-{stock_quant}.gguf"
        yield PublishStep(("quantize", stock_quant, "--out", made, *threads), made)
    files = _gather(job, folder)
    yield PublishStep(("measure", *files, *threads))
    speeds_on = threads if "--repetitions" in job.card else ()
    yield PublishStep(("card", *files, "--out", UPLOAD, "--force", *job.card, *speeds_on))


def _seen_budget(budget: str, folder: Path) -> str:
    """A budget that names a file, seen from the folder."""
    return f"={os.path.relpath(Path(budget[1:].strip()).expanduser(), folder)}" if budget.startswith("=") else budget


def _gather(job: PublishOptions, folder: Path) -> Sequence[str]:
    """All files to publish; those that `run` made are linked there under names that cannot be taken for stock quants, and
    so is the layer map, which makes the model again.
    """
    record = record_path(folder / job.file)
    if record.is_file():
        _link(record, folder / UPLOAD / record.name)
    names = []
    for budget in job.budgets:
        built = folder / f"{plan_stem(job.name, size_name(budget))}.gguf"
        size = size_name(budget) if budget.startswith("=") else budget
        names.append(f"{plan_stem(job.name, f'plan-{size}')}.gguf")
        if built.is_file():
            _link(built, folder / UPLOAD / names[-1])
    return [
        f"{UPLOAD}/{name}" for name in (*names, *(f"{job.name}-{stock_quant}.gguf" for stock_quant in job.stock_quants))
    ]


def _link(built: Path, published: Path) -> None:
    """The same bytes under another name: a hard link where the disk can, else a copy."""
    if published.exists() and published.samefile(built):
        return
    published.parent.mkdir(exist_ok=True)
    remove_leftovers(published)
    part = part_of(published)
    part.unlink(missing_ok=True)
    try:
        os.link(built, part)
    except OSError:
        shutil.copyfile(built, part)
    part.replace(published)
