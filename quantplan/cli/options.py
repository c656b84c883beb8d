"""Option groups that commands share, and what they mean inside a project."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from quantplan.budget import parse_size
from quantplan.cli import console
from quantplan.cli.config import DEFAULT_CTX, cache_folder, project
from quantplan.cli.framework import option
from quantplan.errors import BadFile, BadUsage
from quantplan.evaluate.leakage import WORRYING, overlap
from quantplan.execution import Execution, parse_execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.hub.hub import Hub
from quantplan.hub.reference import HubReference, is_reference, parse_reference
from quantplan.imatrix import Imatrix, coverage_notes
from quantplan.plan import Plan
from quantplan.project import read_text
from quantplan.tensor import Model

__all__ = ["cache_folder", "project"]  # of config, for the commands

TARGET, TEXTS, TYPES = "Target", "Model and texts", "Types and constraints"
MEMORY, MEASURING, EXECUTION = "Memory and speed", "Measuring", "Execution"


# --- groups


def hub_option() -> Any:
    return option(
        "A model on Hugging Face, as in llama.cpp.", "--hf-repo", "-hf", panel=TEXTS, metavar="OWNER/REPO[:QUANT]"
    )


@dataclass(frozen=True)
class HubOptions:
    """For commands whose model is an argument."""

    hub: str | None = hub_option()


@dataclass(frozen=True)
class ModelOptions:
    panel: ClassVar[str] = TEXTS
    model: Path | None = option("GGUF model or hf://owner/repo/file (default: the project's).", "-m")
    hub: str | None = hub_option()

    @property
    def file(self) -> Path | None:
        """The model that the options name, downloaded if need be; None where they name none."""
        return local_or_hub(self.model, self.hub)


@dataclass(frozen=True)
class ImatrixOptions:
    panel: ClassVar[str] = TEXTS
    imatrix: Path | None = option("Importance matrix (default: the project's).")


@dataclass(frozen=True)
class CalibrationOptions:
    panel: ClassVar[str] = TEXTS
    calibration: tuple[Path, ...] = option(
        "Calibration text, file or folder, repeatable (default: the project's).", default=()
    )

    @property
    def text(self) -> str | None:
        files = calibration_files(self.calibration)
        return joined_text(files) if files else None

    def required(self) -> str:
        """The text; BadUsage without one."""
        if (text := self.text) is None:
            raise BadUsage(
                "no calibration text: give --calibration FILE, some hundred kB of the kind that the model is for"
            )
        return text


@dataclass(frozen=True)
class InputTextOptions(CalibrationOptions):
    """For commands that read no other text: -f is llama.cpp's name for that."""

    panel: ClassVar[str] = TEXTS
    calibration: tuple[Path, ...] = option(
        "Calibration text, file or folder, repeatable (default: the project's).",
        "--calibration",
        "-f",
        "--file",
        default=(),
    )


@dataclass(frozen=True)
class TextOptions:
    panel: ClassVar[str] = TEXTS
    text: tuple[Path, ...] = option(
        "Evaluation text, file or folder, repeatable (default: the project's).", "-f", default=()
    )


@dataclass(frozen=True)
class ChunkOptions:
    panel: ClassVar[str] = MEASURING
    ctx: int | None = option("Tokens of a chunk of text (default: the project's, or 512).", "-c", min=8)


@dataclass(frozen=True)
class EvaluationOptions(ChunkOptions):
    panel: ClassVar[str] = MEASURING
    eval_chunks: int | None = option("Chunks of the evaluation text to use (default: all).", "--chunks", min=1)


@dataclass(frozen=True)
class ThreadOptions:
    panel: ClassVar[str] = EXECUTION
    threads: int = option("CPU threads; 0: all cores.", "-t", default=0, min=0)


@dataclass(frozen=True)
class ToolOptions(ThreadOptions):
    """For commands whose work is done by llama.cpp's own tools on this machine."""

    panel: ClassVar[str] = EXECUTION
    gpu_layers: int = option("Layers to offload to the GPU.", "-ngl", default=0)

    def parsed(self) -> Execution:
        return Execution(self.threads, self.gpu_layers)


@dataclass(frozen=True)
class ExecutionOptions(ToolOptions):
    panel: ClassVar[str] = EXECUTION
    jobs: int = option(
        "Worker processes here; each loads the model and gets a share of the cores.", "-j", default=1, min=1
    )
    scheduler: str | None = option("Dask scheduler whose workers do the work: tcp://host:8786.")
    rpc: str | None = option("llama.cpp RPC servers that hold the model, as for llama-server.", metavar="HOST:PORT,...")

    def parsed(self, by_tool: str = "") -> Execution:
        """BadUsage with ``by_tool``, options that start llama.cpp's own tools, for machines other than this one."""
        if by_tool and (self.jobs > 1 or self.scheduler or self.rpc):
            raise BadUsage(f"{by_tool}: llama.cpp's tools run on this machine; leave --jobs, --scheduler and --rpc out")
        return parse_execution(self.threads, self.gpu_layers, self.jobs, self.scheduler, self.rpc)


def memory_option() -> Any:
    return option(
        "RAM for the second moments of compensated rounding: 8GiB (default: half of what is free).",
        "--memory",
        panel=EXECUTION,
    )


def memory_bytes(text: str | None) -> int:
    """``Execution.memory`` of --memory."""
    return parse_size(text, "--memory") if text else 0


@dataclass(frozen=True)
class MomentExecutionOptions(ExecutionOptions):
    """For commands that collect second moments."""

    panel: ClassVar[str] = EXECUTION
    memory: str | None = memory_option()

    def parsed(self, by_tool: str = "") -> Execution:
        return replace(super().parsed(by_tool), memory=memory_bytes(self.memory))


def sensitivity_file_option() -> Any:
    return option("Sensitivity table (default: the plan's).", panel=TEXTS, metavar="FILE")


def repetitions_option() -> Any:
    return option("Repetitions of llama-bench.", "-r", default=5, panel=MEASURING, min=1)


@dataclass(frozen=True)
class TypesOptions:
    panel: ClassVar[str] = TYPES
    types: str = option(
        "Types to choose from: names and the sets k, iq, legacy, all, any (all that can be written); -NAME removes one.",
        default="all",
    )


class TableFormat(str, Enum):
    """How a result is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"
    html = "html"


class ShortFormat(str, Enum):
    """The same, where nobody pastes the result into a page."""

    table = "table"
    json = "json"
    csv = "csv"


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
    """The option's files, else the project's if it exists."""
    here = project()
    if option or not (here and here.calibration and here.calibration.exists()):
        return tuple(option)
    return (here.calibration,)


def evaluation_files(option: Sequence[Path]) -> tuple[Path, ...]:
    """The option's files, else the project's; BadUsage without any."""
    here = project()
    if option:
        return tuple(option)
    if here is None or here.text is None:
        raise BadUsage("no evaluation text: give --text FILE, a text that was not used for calibration")
    return (here.text,)


def joined_text(files: Sequence[Path]) -> str:
    return "\n".join(read_text(path) for path in files)


def evaluation_text(option: Sequence[Path], calibration: Sequence[Path] = ()) -> str:
    """The evaluation text, with a warning where it overlaps the calibration files."""
    files = evaluation_files(option)
    text = joined_text(files)
    share = overlap(text, joined_text(calibration)) if calibration else 0.0
    if share > WORRYING:
        console.warn(
            f"{share:.0%} of the long lines of {names_of(files)} are also in the calibration text {names_of(calibration)}: "
            "results on them are too good; evaluate on a text that was not used for calibration"
        )
    return text


def names_of(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))


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
