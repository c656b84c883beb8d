"""Models in safetensors, named where a GGUF is expected: their options, and the GGUF that is made of them."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from quantplan.budget import human_bytes
from quantplan.cli import config, console, options
from quantplan.cli.framework import option
from quantplan.convert.checkpoint import Checkpoint, is_checkpoint, read_checkpoint
from quantplan.convert.conversion import check_free, convert, converted_before, expected_bytes
from quantplan.convert.converter import (
    SCRIPT,
    find_converter,
    install_command,
    installed_version,
    kept_script,
    missing_packages,
)
from quantplan.hub.hub import Hub, RemoteFile
from quantplan.hub.reference import HubReference, checkpoint_files

PANEL = "Conversion of safetensors"


class OutType(str, Enum):
    """Type of the matrices; auto: as the checkpoint has them, 16 bits."""

    auto = "auto"
    f16 = "f16"
    bf16 = "bf16"
    f32 = "f32"


@dataclass(frozen=True)
class ConversionOptions:
    panel: ClassVar[str] = PANEL
    outtype: OutType = option("Type of the GGUF; auto: BF16 or F16, as the weights are.", default=OutType.auto)
    converter: Path | None = option(
        f"Checkout of llama.cpp whose {SCRIPT} is used (default: that of the installed llama-cpp-python, downloaded once)."
    )
    converter_python: str = option(
        "Python that runs it; needs torch and transformers (default: quantplan's own).", default=sys.executable
    )


def checkpoint_reference(model: Path | None, hub: str | None) -> HubReference | None:
    """The repository of safetensors that is named; None for a GGUF, or what is on this machine."""
    reference = options.reference(model, hub)
    return reference if reference and Hub().holds_checkpoint(reference) else None


def named_checkpoint(model: Path | None, hub: str | None) -> Checkpoint | None:
    """The checkpoint that is named, downloaded if need be; None for a GGUF."""
    if reference := checkpoint_reference(model, hub):
        with console.terminal() as report:
            first = Hub().fetch(reference, report, checkpoint_files)
        return read_checkpoint(first.parent, reference.repo.rpartition("/")[2])
    return read_checkpoint(model) if model and is_checkpoint(model) else None


def gguf_of(checkpoint: Checkpoint, how: ConversionOptions, folder: Path) -> Path:
    """The GGUF in the folder, made unless it was made before of the same files."""
    if made := converted_before(checkpoint, how.outtype.value, folder):
        console.say(f"converted before: {made}")
        return made
    check_free(checkpoint, how.outtype.value, folder)
    with console.terminal() as report:
        converter = find_converter(how.converter, how.converter_python, config.cache_folder(), report)
        return convert(checkpoint, converter, how.outtype.value, folder, report).path


def downloads_of(model: Path | None, hub: str | None) -> list[RemoteFile]:
    """What would be downloaded, or is in the cache already, for the checkpoint that is named."""
    reference = checkpoint_reference(model, hub)
    return Hub().files(reference, checkpoint_files) if reference else []


def intentions(checkpoint: Checkpoint, how: ConversionOptions, folder: Path) -> Iterator[str]:
    """What ``gguf_of`` would do, in lines."""
    if made := converted_before(checkpoint, how.outtype.value, folder):
        yield f"takes     {made}, which was converted before"
        return
    check_free(checkpoint, how.outtype.value, folder)
    yield f"converts  {checkpoint.folder} ({checkpoint.architecture}, {checkpoint.elements / 1e6:,.1f} M weights)"
    yield from remote_intentions(how)
    size = human_bytes(expected_bytes(checkpoint, how.outtype.value))
    kind = "BF16.gguf or F16.gguf" if how.outtype is OutType.auto else f"{how.outtype.value.upper()}.gguf"
    yield f"writes    {folder / checkpoint.name}-{kind} (about {size})"


def remote_intentions(how: ConversionOptions) -> Iterator[str]:
    """What converts, and what it does not have yet."""
    yield f"with      {_script(how)}"
    if missing := missing_packages(how.converter_python):
        yield f"missing   {', '.join(missing)}: {install_command(how.converter_python, missing)}"


def _script(how: ConversionOptions) -> str:
    if how.converter is not None:
        return f"{SCRIPT} of {how.converter}"
    version = installed_version()
    kept = kept_script(config.cache_folder(), version).is_file()
    return f"{SCRIPT} of llama-cpp-python {version}" + (
        "" if kept else ", whose source package is downloaded (about 75 MB)"
    )
