"""What a person gives as edits: their text, a file with it, the record of an operated model, or the leaderboard of a search."""

from __future__ import annotations

import re
from pathlib import Path

from quantplan.errors import BadFile, BadUsage
from quantplan.records.codec import format_of
from quantplan.surgery.edits import Edit, layer_map, parse_edits
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.layer_map_files import LAYER_MAPS
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
from quantplan.tensor import Model

_FILE_NAME = re.compile(r"[^\s;]+\.[A-Za-z]\w*|\S*[/\\]\S*")  # 8..11 and 0.5 are no names


def edits_from(what: str, model: Model) -> tuple[Edit, ...]:
    """The edits, yet to be checked on the model. BadUsage for text that is none, for the name of a file that is not there, and
    for a record of a model of another number of layers; BadFile for a file that cannot be read, or that contradicts itself.
    """
    path = Path(what)
    if path.suffix == ".json" or (_is_file(path) and format_of(path)):
        return _recorded(path, model)
    if _is_file(path):
        return parse_edits(edits_file(path))
    if _FILE_NAME.fullmatch(what.strip()):
        raise BadUsage(
            f"{what}: there is no such file; give edits such as 'delete 10; swap 11 12', or a file with them"
        )
    return parse_edits(what)


def edits_file_of(what: str) -> Path | None:
    """The file that the edits come from, if they come from one."""
    return Path(what) if _is_file(Path(what)) else None


def leaderboard_source(what: str) -> bool:
    """Whether it is a search's leaderboard."""
    return _is_file(Path(what)) and format_of(what) == LEADERBOARDS.name


def edits_file(path: Path) -> str:
    """The text of a file, a byte order mark left out. BadFile where it cannot be read, or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"cannot read the edits {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadFile(f"cannot read the edits {path}: it is no text in UTF-8; give edits, one a line") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text too long for a path, or with a null character
        return False


def _recorded(path: Path, model: Model) -> tuple[Edit, ...]:
    """The edits of a record, if they make its layers: where someone changed one of the two, neither can be trusted."""
    text, made = _best(path) if format_of(path) == LEADERBOARDS.name else _operated(path)
    if made.original != model.blocks:
        raise BadUsage(f"the layer map is for a model of {made.original} layers, {model.path.name} has {model.blocks}")
    try:
        edits = parse_edits(text)
        meant = layer_map(made.original, edits)
    except BadUsage as error:
        raise BadFile(f"{path}: {error}; was it changed by hand? give the edits as text") from None
    if meant.digest != made.digest:
        raise BadFile(
            f"{path}: its edits, {text!r}, do not make the layers that it lists; was it changed by hand? give the edits as text"
        )
    return edits


def _operated(path: Path) -> tuple[str, LayerMap]:
    record = LAYER_MAPS.read(path)
    return record.edits, record.layer_map


def _best(path: Path) -> tuple[str, LayerMap]:
    best = LEADERBOARDS.read(path).best
    if best is None:
        raise BadUsage(f"{path}: this search has measured nothing yet; go on with `quantplan surgery search`")
    return best.edits, best.layer_map
