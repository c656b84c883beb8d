"""What can be known to be wrong before a build that takes hours: output, disk, imatrix, rules."""

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quantplan.abilities import check_loadable
from quantplan.budget import human_bytes
from quantplan.errors import BadFile, BadUsage, ModelMismatch, NoSpace, NotAsPlanned
from quantplan.llamacpp.quantize import Recipe, dry_run_as
from quantplan.plan import ImatrixUse, Plan
from quantplan.tensor import Model
from quantplan.text_files import starts_as_gguf

SPARE_BYTES = 16 * 2**20  # left on the disk beyond the file itself


def check_source(source: Model) -> None:
    """BadFile for a header without weights, and for a file that llama.cpp would not load again."""
    check_loadable(source)
    if source.header_only:
        raise BadFile(
            f"{source.path} is a header without weights: plans can be made from it, but nothing can be built or run"
        )


def check_output(source: Model, out: Path) -> None:
    """BadUsage where the output would overwrite its own source or a file of another kind, or is a folder."""
    if out.is_dir():
        raise BadUsage(f"{out} is a folder; give the name of a file with --out")
    if out.is_file() and out.suffix.lower() != ".gguf" and not starts_as_gguf(out):
        raise BadUsage(f"{out} is there and is no GGUF file: it would be lost; choose another --out")
    if out.exists() and any(path.exists() and out.samefile(path) for path in source.paths):
        raise BadUsage(f"{out} is the model itself; choose another --out")


def check_apart(written: Iterable[Path | None], given: Iterable[Path | None]) -> None:
    """BadUsage where a file to be written is one of those given, which would be lost, or is a folder."""
    kept = [path for path in given if path and path.exists()]
    for out in filter(None, written):
        if out.is_dir():
            raise BadUsage(f"{out} is a folder; give the name of a file")
        if out.exists() and any(out.samefile(path) for path in kept):
            raise BadUsage(f"{out} would be overwritten, and is needed itself; choose another place")


def check_space(out: Path, size: int, option: str = "--out") -> None:
    """NoSpace unless the disk of ``out`` holds ``size`` bytes and some more; makes its folder. ``option``: what chooses another
    place.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
    except OSError as error:
        kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else BadFile
        raise kind(f"cannot write to {out.parent}: {error.strerror or error}; choose another {option}") from None
    if free < size + SPARE_BYTES:
        raise NoSpace(
            f"{out} needs {human_bytes(size)}, with {human_bytes(SPARE_BYTES)} to spare, and the disk has {human_bytes(free)} "
            f"free; free some or choose another {option}"
        )


def check_resolves(plan: Plan, source: Model, recipe: Recipe) -> None:
    """NotAsPlanned where the installed llama-quantize reads the rules otherwise than planned."""
    resolved = dry_run_as(source.path, recipe)
    wrong = [
        f"{name} as {resolved.get(name)} instead of {kind}"
        for name, kind in plan.types.items()
        if resolved.get(name) != kind
    ]
    if wrong:
        raise NotAsPlanned(
            f"this llama-quantize would store {'; '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}: "
            "nothing was built, see `quantplan doctor`"
        )


@contextmanager
def imatrix_as_planned(plan: Plan, given: Path | None) -> Iterator[Path | None]:
    """The plan's imatrix under the file name that the plan's size counts with; see ``check_imatrix``."""
    if plan.imatrix is None:
        if given:
            raise BadUsage("the plan was made without an imatrix; plan again with it, or build without --imatrix")
        yield None
        return
    path = given or Path(plan.imatrix.path)
    check_imatrix(plan.imatrix, path)
    if path.name == plan.imatrix.file:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        link = Path(folder) / plan.imatrix.file
        try:
            link.symlink_to(path.absolute())
        except OSError:  # file systems and Windows accounts without links
            shutil.copyfile(path, link)
        yield link


def check_imatrix(use: ImatrixUse, path: Path) -> None:
    """BadFile or ModelMismatch unless the file is the very imatrix that a plan was made with."""
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                sha.update(piece)
    except OSError as error:
        raise BadFile(
            f"cannot read the plan's imatrix {path}: {error.strerror or error}; name it with --imatrix"
        ) from None
    if sha.hexdigest() != use.digest:
        raise ModelMismatch(
            f"{path} is not the imatrix that the plan was made with (digest {sha.hexdigest()[:12]}, planned "
            f"{use.digest[:12]}); plan again with this one, or name the other with --imatrix"
        )
