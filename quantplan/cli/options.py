"""What options mean inside a project: the model, the imatrix, the texts, the places of files."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quantplan.cli import console
from quantplan.cli.config import DEFAULT_CTX, cache_folder, project
from quantplan.errors import BadFile, BadUsage
from quantplan.evaluate.leakage import WORRYING, overlap
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.hub.hub import Hub
from quantplan.hub.reference import HubReference, is_reference, parse_reference
from quantplan.imatrix import Imatrix, coverage_notes, foreign_notes
from quantplan.llamacpp.texts import read_texts
from quantplan.plan import Plan
from quantplan.project import DEFAULT, DEFAULT_TEXTS, default_text
from quantplan.records.lock import locked
from quantplan.tensor import Model
from quantplan.text import Text

__all__ = ["cache_folder", "project"]  # of config, for the commands


# --- the model


def reference(path: Path | None, hub: str | None = None) -> HubReference | None:
    """What a path or -hf means on a hub; None for a local file, or nothing. BadUsage where both name a model."""
    if path is not None and hub is not None:
        raise BadUsage(f"two models, {path} and -hf {hub}; give one of them")
    if path is not None and not is_reference(path):
        return None
    text = hub if path is None else path.as_posix()
    return None if text is None else parse_reference(text)


def local(path: Path) -> Path:
    """The path itself, or the file of a hub's model that it names: downloaded unless it is in the cache."""
    on_hub = reference(path)
    return _fetched(on_hub) if on_hub else path


def local_or_hub(path: Path | None, hub: str | None) -> Path | None:
    """The local file that a path or -hf names; BadUsage where both do."""
    on_hub = reference(path, hub)
    return _fetched(on_hub) if on_hub else path


@cache
def _fetched(on_hub: HubReference) -> Path:
    with console.terminal() as report:
        return Hub().fetch(on_hub, report)


def model_path(option: Path | None, plan: Plan | None = None) -> Path:
    """The option, else the model that the plan names if that file exists, else the project's; BadUsage without any."""
    if option is not None:
        return local(option)
    if plan is not None and (named := Path(plan.model_path)).is_file():
        return named
    here = project()
    if here is None:
        raise BadUsage("which model? give --model MODEL.gguf, or make a project with `quantplan init MODEL.gguf`")
    return here.model


def model(option: Path | None, plan: Plan | None = None) -> Model:
    """The header of ``model_path``, with a warning where it is quantized already; ModelMismatch for another plan's."""
    header = read_model(model_path(option, plan))
    if plan is not None:
        plan.check_belongs_to(header)
    if header.file_type not in ("F32", "F16", "BF16"):
        console.warn(
            f"{header.path} is already quantized ({header.file_type}): what it lost cannot come back, KLD is relative to it"
        )
    return header


# --- the imatrix


def imatrix_path(option: Path | None, plan: Plan | None = None) -> Path | None:
    """The option, else the plan's if that file exists, else the project's if that exists. With a plan made without an imatrix:
    none.
    """
    if option is not None:
        if not option.is_file():
            raise BadFile(f"{option}: no such imatrix file; make one with `quantplan imatrix`")
        return option
    if plan is not None:
        if plan.imatrix is None:
            return None
        if (used := Path(plan.imatrix.path)).is_file():
            return used
    here = project()
    return here.imatrix if here and here.imatrix and here.imatrix.is_file() else None


def imatrix(option: Path | None, model: Model, plan: Plan | None = None) -> Imatrix | None:
    """The imatrix of ``imatrix_path``, checked to belong to the model."""
    path = imatrix_path(option, plan)
    if path is None:
        return None
    importance = read_imatrix(path)
    importance.check_belongs_to(model)
    for note in foreign_notes(importance, model):
        console.warn(note)
    return importance


def checked_imatrix(option: Path | None, model: Model) -> Imatrix | None:
    """The same, with a warning where there is none, or where it has no data for some tensors."""
    importance = imatrix(option, model)
    if importance is None:
        console.warn("no imatrix: types that need one are left out; make one with `quantplan imatrix`")
    for note in coverage_notes(importance, model) if importance else ():
        console.warn(note)
    return importance


# --- texts


def calibration_files(option: Sequence[Path]) -> tuple[Path, ...]:
    """The option's files, else the project's if it exists; for ``default`` those that come with quantplan."""
    here = project()
    if option:
        return tuple(default_text(path, Path(), "calibration") for path in option)
    own = default_text(here.calibration, here.folder, "calibration") if here and here.calibration else None
    return (own,) if own and own.exists() else ()


def evaluation_files(option: Sequence[Path]) -> tuple[Path, ...]:
    """The option's files, else the project's; for ``default`` those that come with quantplan. BadUsage without any."""
    here = project()
    if option:
        return tuple(default_text(path, Path(), "evaluation") for path in option)
    if here is None or here.text is None:
        raise BadUsage(
            "no evaluation text: give --text FILE, a text that was not used for calibration (or --text default, quantplan's own "
            "small texts)"
        )
    return (default_text(here.text, here.folder, "evaluation"),)


@dataclass(frozen=True)
class TextReader:
    """Reads texts as a model sees them."""

    model: Model
    parse_special: bool = False

    def text(self, files: Sequence[Path]) -> Text:
        """The texts of files and folders, joined. Warns of what is odd about them."""
        return _read(tuple(files), Path.cwd(), self.model, self.parse_special)


@cache
def _read(files: tuple[Path, ...], _folder: Path, model: Model, parse_special: bool) -> Text:
    """``_folder``: which names are relative to."""
    return read_texts(files, model, parse_special=parse_special, report=console.LINES)


def evaluation_text(option: Sequence[Path], reader: TextReader, calibration: Sequence[Path] = ()) -> Text:
    """The evaluation text, with a warning where it overlaps the calibration files."""
    files = evaluation_files(option)
    text = reader.text(files)
    share = overlap(text, reader.text(calibration)) if calibration else 0.0
    if share > WORRYING:
        console.warn(
            f"{share:.0%} of the long lines of {names_of(files)} are also in the calibration text {names_of(calibration)}: "
            "results on them are too good; evaluate on a text that was not used for calibration"
        )
    return text


def names_of(files: Sequence[Path]) -> str:
    return ", ".join(DEFAULT if path.parent == DEFAULT_TEXTS else str(path) for path in files)


def ctx(option: int | None, model: Model | None = None) -> int:
    """Tokens of a chunk: the option, the project's, or 512; by default never more than the model was trained for."""
    here = project()
    chosen = option or (here.ctx if here and here.ctx else DEFAULT_CTX)
    if chosen < 8:
        raise BadUsage(f"--ctx {chosen}: a chunk needs at least 8 tokens")
    trained = model.metadata.get(f"{model.architecture}.context_length") if model else None
    if option is None and isinstance(trained, int) and 8 <= trained < chosen:
        return trained
    return chosen


# --- places


def alone(outside: Path | None = None) -> AbstractContextManager[None]:
    """Holds the project for this process, outside any project the folder ``outside``; InUse where another process works there."""
    here = project()
    place = here.folder if here else outside
    return nullcontext() if place is None else locked(place)


def folder(out: Path | None, name: str = "") -> Path:
    """--out, else the folder ``name`` of the project (without a name the project itself), else that of the working folder."""
    here = project()
    return out or (here.folder if here else Path()) / name


def records_folder(out: Path | None) -> Path | None:
    """Where records of measurements are kept: --out, else the project's reports, else nowhere."""
    return folder(out, "reports") if out or project() else None


def check_new(path: Path, force: bool) -> None:
    """BadUsage where something would be overwritten without --force."""
    if path.exists() and not force:
        raise BadUsage(f"{path} already exists; --force overwrites it")
