"""A project folder: quantplan.toml says which model, imatrix and texts belong together."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "quantplan.toml"
FOLDERS = ("imatrix", "calibration", "plans", "reports")
_KINDS = {str: "a text in quotes", int: "a whole number"}
_KEYS = {"model": str, "imatrix": str, "calibration": str, "heldout": str, "ctx": int}


@dataclass(frozen=True)
class Project:
    """Paths as written in quantplan.toml, relative ones taken from its folder. Texts may be files or folders."""

    folder: Path
    model: Path
    imatrix: Path | None = None
    calibration: Path | None = None
    heldout: Path | None = None
    ctx: int | None = None

    @property
    def plans(self) -> Path:
        return self.folder / "plans"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    @property
    def cache(self) -> Path:
        return self.folder / ".quantplan" / "cache"


def find_project(start: Path) -> Project | None:
    """The project of ``start`` or of the nearest folder above it; None outside any."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return read_project(folder / FILE)
    return None


def read_project(path: Path) -> Project:
    """Reads quantplan.toml; BadFile for a key that is unknown, missing or of the wrong kind."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(f"{path}: cannot be read ({error}); write it anew with `quantplan init MODEL.gguf`") from None
    for key, value in content.items():
        if key not in _KEYS:
            raise BadFile(f"{path}: unknown key {key!r}; known keys: {', '.join(_KEYS)}")
        if type(value) is not _KEYS[key]:
            raise BadFile(f"{path}: {key} must be {_KINDS[_KEYS[key]]}, not {value!r}")
    if "model" not in content:
        raise BadFile(f'{path}: no model; add the line model = "path/to/model.gguf"')
    folder = path.parent.resolve()
    paths = {key: folder / Path(content[key]).expanduser() for key in _KEYS if isinstance(content.get(key), str)}
    return Project(folder=folder, ctx=content.get("ctx"), **paths)


def project_text(model: str, imatrix: str, calibration: str, heldout: str, ctx: int) -> str:
    """The text of a fresh quantplan.toml."""
    return (
        "# What belongs together in this folder. Paths are relative to it; texts may be files or folders of .txt files.\n"
        f"model = {_quoted(model)}\n"
        f"imatrix = {_quoted(imatrix)}          # made by `quantplan imatrix`\n"
        f"calibration = {_quoted(calibration)}  # read by imatrix, probe and solve\n"
        f"heldout = {_quoted(heldout)}  # read by measure and compare; must not overlap with calibration\n"
        f"ctx = {ctx}  # tokens of a window\n"
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def read_text(path: Path) -> str:
    """A text file, or all .txt and .md files of a folder in order of their names; BadFile where there is none."""
    if path.is_dir():
        parts = sorted(each for each in path.iterdir() if each.suffix in (".txt", ".md", ".raw"))
        if not parts:
            raise BadFile(f"{path}: no .txt, .md or .raw file in this folder; put the text there or name a file")
        return "\n".join(read_text(each) for each in parts)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadFile(f"cannot read the text {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); is it a binary file?") from None
    if not text.strip():
        raise BadFile(f"{path}: the text is empty")
    return text
