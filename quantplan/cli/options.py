"""Options that several commands share, and what they stand for inside a project."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.errors import BadFile, BadUsage
from quantplan.hub.reference import is_reference, parse_reference
from quantplan.project import Project, find_project

if TYPE_CHECKING:
    from quantplan.execution import Execution
    from quantplan.hub.reference import HubReference
    from quantplan.imatrix import Imatrix
    from quantplan.tensor import Model

DEFAULT_CTX = 512  # llama-perplexity's default window

ModelOption = Annotated[
    Path | None, typer.Option("--model", "-m", help="GGUF model, or hf://owner/repo/file (default: the project's).")
]
HubOption = Annotated[
    str | None,
    typer.Option("-hf", "--hf-repo", metavar="OWNER/REPO[:QUANT]", help="A model on the hub, as llama.cpp's."),
]
ImatrixOption = Annotated[Path | None, typer.Option("--imatrix", help="Importance matrix (default: the project's).")]
TextOption = Annotated[
    Path | None, typer.Option("--text", "-t", help="Text that judges, file or folder (default: the project's heldout).")
]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="Text to probe with, file or folder (default: the project's).")
]
CtxOption = Annotated[
    int | None, typer.Option("--ctx", "-c", min=8, help="Tokens of a window (default: the project's, or 512).")
]
ChunkOption = Annotated[
    int | None,
    typer.Option("--window", min=8, help="Tokens of a window of the probe (default: the project's, or 512)."),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="Processor threads; 0 takes all cores.")]
GpuLayersOption = Annotated[int, typer.Option("--gpu-layers", "-ngl", help="Layers to run on a GPU.")]
JobsOption = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", min=1, help="Processes on this machine; each holds the model and a share of the cores."
    ),
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Dask scheduler whose workers do the work: tcp://host:8786.")
]
RpcOption = Annotated[
    str | None,
    typer.Option("--rpc", help="llama.cpp RPC servers that hold the model: host:port, several with commas between."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of a table.")]
TypesOption = Annotated[
    str,
    typer.Option(
        "--types",
        help="Types to choose from: names and sets k, iq, legacy, all, any (whatever can be written); -NAME removes.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]


@cache
def project() -> Project | None:
    """The project that the working folder belongs to, its paths as seen from here: plans shall name no private folder."""
    found = find_project(Path.cwd())
    if found is None:
        return None
    paths = {field.name: getattr(found, field.name) for field in fields(found)}
    near = {name: _seen_from_here(path, found.folder) for name, path in paths.items() if isinstance(path, Path)}
    return replace(found, **near)


def _seen_from_here(path: Path, folder: Path) -> Path:
    """Relative to the working folder for what lies in the project, as it stands for anything else."""
    inside = path.absolute().is_relative_to(folder.absolute())
    return Path(os.path.relpath(path)) if inside else path


def reference(path: Path | None, hub: str | None = None) -> HubReference | None:
    """What a path or -hf means on a hub; None for a file that is here, or nothing. BadUsage where both name a model."""
    if path is not None and hub is not None:
        raise BadUsage(f"two models, {path} and -hf {hub}; give one of them")
    if path is not None and not is_reference(path):
        return None
    text = hub if path is None else path.as_posix()
    return None if text is None else parse_reference(text)


def local(path: Path) -> Path:
    """The path itself, or where the model on a hub lies that it names: it is downloaded unless it is there."""
    found = reference(path)
    return _fetched(found) if found else path


def local_or_hub(path: Path | None, hub: str | None) -> Path | None:
    """The file that a path or -hf names, here; BadUsage where both do."""
    found = reference(path, hub)
    return _fetched(found) if found else path


@cache
def _fetched(wanted: HubReference) -> Path:
    from quantplan.cli.console import say, transfer
    from quantplan.hub.hub import Hub

    return Hub().fetch(wanted, say, transfer)


def model_path(option: Path | None) -> Path:
    if option is not None:
        return local(option)
    here = project()
    if here is None:
        raise BadUsage("which model? give --model MODEL.gguf, or make a project with `quantplan init MODEL.gguf`")
    return here.model


def model(option: Path | None) -> Model:
    """The header of the model that is meant, with a warning where it is quantized already."""
    from quantplan.cli.console import warn
    from quantplan.gguf.reader import read_model

    found = read_model(model_path(option))
    if found.file_type not in ("F32", "F16", "BF16"):
        warn(f"{found.path} is quantized already ({found.file_type}): what it lost cannot come back, KLD is against it")
    return found


def imatrix_path(option: Path | None) -> Path | None:
    """The imatrix that is meant: the option, or the project's where that file exists."""
    if option is not None:
        if not option.is_file():
            raise BadFile(f"{option}: no such imatrix file; make one with `quantplan imatrix`")
        return option
    here = project()
    return here.imatrix if here and here.imatrix and here.imatrix.is_file() else None


def imatrix(option: Path | None, of: Model) -> Imatrix | None:
    """The imatrix that is meant, checked to belong to the model."""
    from quantplan.gguf.imatrix_files import read_imatrix

    path = imatrix_path(option)
    if path is None:
        return None
    found = read_imatrix(path)
    found.check_belongs_to(of)
    return found


def project_imatrix() -> Path | None:
    return imatrix_path(None)


def calibration(option: Path | None) -> Path | None:
    here = project()
    return option or (here.calibration if here and here.calibration and here.calibration.exists() else None)


def heldout(option: Path | None) -> Path:
    """The text that judges; BadUsage where there is none."""
    here = project()
    found = option or (here.heldout if here else None)
    if found is None:
        raise BadUsage("which text shall judge? give --text FILE (a text that calibration never saw)")
    return found


def ctx(option: int | None, of: Model | None = None) -> int:
    """Tokens of a window: the option, the project's, or 512; never more than the model was trained for."""
    here = project()
    chosen = option or (here.ctx if here and here.ctx else DEFAULT_CTX)
    if chosen < 8:
        raise BadUsage(f"--ctx {chosen}: a window needs at least 8 tokens")
    trained = of.metadata.get(f"{of.architecture}.context_length") if of else None
    if option is None and isinstance(trained, int) and 8 <= trained < chosen:
        return trained
    return chosen


def execution(
    threads: int,
    gpu_layers: int,
    jobs: int = 1,
    scheduler: str | None = None,
    rpc: str | None = None,
    by_tool: str = "",
) -> Execution:
    """Where models run; BadUsage with ``by_tool``, options that start llama.cpp's own tools, for they run here alone."""
    from quantplan.execution import parse_execution

    if by_tool and (jobs > 1 or scheduler or rpc):
        raise BadUsage(f"{by_tool}: llama.cpp's tools run on this machine; leave --jobs, --scheduler and --rpc out")
    return parse_execution(threads, gpu_layers, jobs, scheduler, rpc)


def cache_folder() -> Path:
    """Where measured values are kept: in the project, else in the user's cache folder."""
    import platformdirs

    here = project()
    return here.cache if here else Path(platformdirs.user_cache_dir("quantplan"))
