"""What an earlier `quantplan surgery publish` left in its folder: gone on with where it is of the same model, else refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantplan.errors import BadFile, BadUsage

if TYPE_CHECKING:
    from quantplan.surgery.layer_map import LayerMap
    from quantplan.tensor import Model

_OTHER = "choose another --out"


def operated_here(file: Path, source: Model, layer_map: LayerMap) -> bool:
    """Whether ``file`` is the model that the map makes of ``source``, whole, with its record. BadUsage where its record says
    that it is another one: what was made from that must not be published as this.
    """
    from quantplan.gguf.reader import read_model
    from quantplan.surgery.layer_map_files import LAYER_MAPS, record_path

    record = record_path(file)
    if not (file.is_file() and record.is_file()):
        return False
    found = LAYER_MAPS.read(record)
    if found.source.digest != source.digest:
        raise BadUsage(f"{file} was made from another model, {found.source.file}; {_OTHER}")
    if found.layer_map.digest != layer_map.digest:
        raise BadUsage(f"{file} was made with other edits, {found.edits!r}; {_OTHER}")
    try:
        return read_model(file).digest == found.result.digest
    except BadFile:
        return False


def check_project(folder: Path, model: Path, texts: tuple[Path, Path], ctx: int) -> None:
    """BadUsage where the folder is a project already, of another model, text or window than are asked for."""
    from quantplan.project import FILE, read_project

    path = folder / FILE
    if not path.is_file():
        return
    found = read_project(path)
    calibration, heldout = texts
    wanted = (
        ("model", found.model, model),
        ("calibration", found.calibration, calibration),
        ("heldout", found.heldout, heldout),
    )
    for key, there, asked in wanted:
        if there is None or there.resolve() != asked.resolve():
            raise BadUsage(f"{path} names another {key}, {_seen(there)}, not {asked}; {_OTHER}, or ask for the same")
    if found.ctx != ctx:
        raise BadUsage(f"{path} has windows of {found.ctx} tokens, not {ctx}; {_OTHER}, or ask for the same with --ctx")


def _seen(path: Path | None) -> str:
    return os.path.relpath(path) if path else "none"
