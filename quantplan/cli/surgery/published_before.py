"""What an earlier `quantplan surgery publish` left in its folder: resumed where it is of the same model, else refused."""

import os
from pathlib import Path

from quantplan.errors import BadFile, BadUsage
from quantplan.gguf.reader import read_model
from quantplan.project import FILE, read_project
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.layer_map_files import LAYER_MAPS, record_path
from quantplan.tensor import Model

_OTHER = "choose another --out"


def operated_here(file: Path, source: Model, layer_map: LayerMap) -> bool:
    """Whether ``file`` is the model that the map makes of ``source``, whole, with its record. BadUsage where its record says
    that it is another one: what was made from that must not be published as this.
    """
    record = record_path(file)
    if not (file.is_file() and record.is_file()):
        return False
    recorded = LAYER_MAPS.read(record)
    if recorded.source.digest != source.digest:
        raise BadUsage(f"{file} was made from another model, {recorded.source.file}; {_OTHER}")
    if recorded.layer_map.digest != layer_map.digest:
        raise BadUsage(f"{file} was made with other edits, {recorded.edits!r}; {_OTHER}")
    try:
        return read_model(file).digest == recorded.result.digest
    except BadFile:
        return False


def check_project(folder: Path, model: Path, texts: tuple[Path, Path], ctx: int, parse_special: bool = False) -> None:
    """BadUsage where the folder is a project already, of another model, text or chunk length."""
    path = folder / FILE
    if not path.is_file():
        return
    project = read_project(path)
    calibration, evaluation = texts
    named = (
        ("model", project.model, model),
        ("calibration", project.calibration, calibration),
        ("evaluation text", project.text, evaluation),
    )
    for key, there, given in named:
        if there is None or there.resolve() != given.resolve():
            raise BadUsage(f"{path} names another {key}, {_seen(there)}, not {given}; {_OTHER}, or give the same")
    if project.ctx != ctx:
        raise BadUsage(f"{path} has chunks of {project.ctx} tokens, not {ctx}; {_OTHER}, or give the same --ctx")
    if project.settings.get("parse_special", False) != parse_special:
        raise BadUsage(
            f"{path} was made {'without' if parse_special else 'with'} --parse-special; {_OTHER}, or do the same"
        )


def _seen(path: Path | None) -> str:
    return os.path.relpath(path) if path else "none"
