"""Edits from what a person gives: their text, a file with it, the record of an edited model, or the leaderboard of a search."""

import re
from pathlib import Path

from quantplan.errors import BadFile, BadUsage
from quantplan.records.codec import format_of
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import Edit, parse_edits
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.layer_map_files import LAYER_MAPS
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
from quantplan.tensor import Model
from quantplan.text_files import check_text_file

_FILE_NAME = re.compile(r"[^\s;]+\.[A-Za-z]\w*|\S*[/\\]\S*")  # 8..11 and 0.5 are not file names


def edits_from(source: str, model: Model) -> tuple[Edit, ...]:
    """The edits, not yet checked against the model.

    BadUsage for text that is not edits, for the name of a file that does not exist, and for a record of a model with another
    number of layers; BadFile for a file that cannot be read or contradicts itself.
    """
    path = Path(source)
    if path.suffix == ".json" or (_is_file(path) and format_of(path)):
        return _recorded(path, model)
    if _is_file(path):
        return parse_edits(edits_file(path))
    if _FILE_NAME.fullmatch(source.strip()):
        raise BadUsage(
            f"{source}: no such file; give edits such as 'delete 10; swap 11 12', or the name of a file with edits"
        )
    return parse_edits(source)


def edits_file_of(source: str) -> Path | None:
    """The file that the edits come from; None for text."""
    return Path(source) if _is_file(Path(source)) else None


def leaderboard_source(source: str) -> bool:
    """Whether it is the leaderboard of a search."""
    return _is_file(Path(source)) and format_of(source) == LEADERBOARDS.name


def edits_file(path: Path) -> str:
    """The text of a file, without a byte order mark. BadFile where it cannot be read or is not UTF-8."""
    try:
        check_text_file(path, "a text with one edit a line")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(f"cannot read the edits {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadFile(f"cannot read the edits {path}: not UTF-8 text; give a text file with one edit a line") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text too long for a path, or with a null character
        return False


def _recorded(path: Path, model: Model) -> tuple[Edit, ...]:
    """The edits of a record, if they make its layers: where someone changed one of the two, neither can be trusted."""
    text, recorded = _best(path) if format_of(path) == LEADERBOARDS.name else _edited(path)
    if recorded.original != model.blocks:
        raise BadUsage(
            f"the layer map is for a model of {recorded.original} layers, {model.path.name} has {model.blocks}"
        )
    try:
        edits = parse_edits(text)
        layer_map = apply_edits(recorded.original, edits, model.mtp_blocks)
    except BadUsage as error:
        raise BadFile(f"{path}: {error}; was the file changed by hand? Give the edits as text") from None
    if layer_map.digest != recorded.digest:
        raise BadFile(
            f"{path}: its edits, {text!r}, do not make the layers that it lists; was the file changed by hand? "
            "Give the edits as text"
        )
    return edits


def _edited(path: Path) -> tuple[str, LayerMap]:
    record = LAYER_MAPS.read(path)
    return record.edits, record.layer_map


def _best(path: Path) -> tuple[str, LayerMap]:
    best = LEADERBOARDS.read(path).best
    if best is None:
        raise BadUsage(f"{path}: this search has no result yet; resume it with `quantplan surgery search`")
    return best.edits, best.layer_map
