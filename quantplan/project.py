"""A project folder: quantplan.toml says which model, imatrix, texts and settings belong together."""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile
from quantplan.text_files import check_text_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "quantplan.toml"
DEFAULT = "default"  # in place of a text's path: the small ones that come with quantplan
DEFAULT_TEXTS = Path(__file__).parent / "data" / "texts"  # with its README: what they are, and how small
TEXT_SUFFIXES = (".txt", ".md", ".raw", ".jsonl")  # of the texts in a folder
_MOST_TEXT = 8 << 30  # bytes
SOURCES = ("probe", "weights", "prior")  # of sensitivities; any other word is the file of a table
FOLDERS = ("imatrix", "calibration", "plans", "reports")
_TEXT, _TEXTS, _WHOLE, _NUMBER, _SWITCH = (
    "a text in quotes",
    "a text in quotes or a list of them",
    "a whole number",
    "a number",
    "true or false",
)
_KINDS = {_TEXT: (str,), _TEXTS: (str, list), _WHOLE: (int,), _NUMBER: (int, float), _SWITCH: (bool,)}
_TOP = {"model": _TEXT, "imatrix": _TEXT, "calibration": _TEXT, "heldout": _TEXT, "ctx": _WHOLE}
_TABLES = {
    "plan": {
        "budget": _TEXTS,
        "max-kld": _NUMBER,
        "min-tps": _NUMBER,
        "objective": _TEXT,
        "types": _TEXT,
        "pin": _TEXTS,
        "min-type": _TEXTS,
        "max-type": _TEXTS,
        "only": _TEXTS,
        "tie": _TEXTS,
        "max-types": _WHOLE,
        "per": _TEXT,
        "monotone": _SWITCH,
        "valley": _SWITCH,
        "allow-1-bit": _SWITCH,
        "sensitivity": _TEXT,
    },
    "memory": {
        "vram": _TEXT,
        "ram": _TEXT,
        "serve-ctx": _WHOLE,
        "kv": _TEXT,
        "cache-type-k": _TEXT,
        "cache-type-v": _TEXT,
        "on-cpu": _TEXTS,
    },
    "evaluate": {
        "text": _TEXT,
        "validation": _TEXT,
        "parse-special": _SWITCH,
        "ctx": _WHOLE,
        "chunks": _WHOLE,
        "validation-chunks": _WHOLE,
    },
    "card": {
        "repo": _TEXT,
        "base-model": _TEXT,
        "license": _TEXT,
        "quantized-by": _TEXT,
        "system": _TEXT,
        "parameter": _TEXTS,
        "publisher": _TEXTS,
    },
}
_PATHS = ("model", "imatrix", "calibration", "text", "validation")
_OPTION_OF = {("evaluate", "chunks"): "eval_chunks"}  # elsewhere an option is called like its key


@dataclass(frozen=True)
class Project:
    """Paths as written in quantplan.toml, relative ones taken from its folder. Texts may be files or folders.

    ``calibration``: read by imatrix, probe and solve; ``validation``: refines plans; ``text``: evaluation text. ``ctx``: tokens
    of a chunk. ``settings``: values for options of commands, by the option's name; ``places``: where they are written.
    """

    folder: Path
    model: Path
    imatrix: Path | None = None
    calibration: Path | None = None
    text: Path | None = None
    validation: Path | None = None
    ctx: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    old_keys: tuple[str, ...] = ()  # that have another name today

    @property
    def plans(self) -> Path:
        return self.folder / "plans"

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    @property
    def cache(self) -> Path:
        return self.folder / ".quantplan" / "cache"

    def place_of(self, option: str) -> str:
        """``[plan] budget``: table and key that set an option."""
        return self.places[option]


def find_project(start: Path) -> Project | None:
    """The project of ``start`` or of the nearest folder above it; None outside any."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return read_project(folder / FILE)
    return None


def read_project(path: Path) -> Project:
    """Reads quantplan.toml; BadFile for a table or key that is unknown, missing or has a value of the wrong type."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))  # names of files are bytes
    except (OSError, ValueError, RecursionError) as error:  # ValueError also of numbers with endless digits
        raise BadFile(f"{path}: cannot be read ({error}); write it again with `quantplan init MODEL.gguf`") from None
    tables = {name: content.pop(name) for name in _TABLES if isinstance(content.get(name), dict)}
    _check(path, "", content, _TOP)
    for name, table in tables.items():
        _check(path, name, table, _TABLES[name])
    if "model" not in content:
        raise BadFile(f'{path}: no model; add the line model = "path/to/model.gguf"')
    evaluate = tables.get("evaluate", {})
    old_keys = (("heldout", "text"), ("ctx", "ctx"))  # older files have these at the top
    for old, key in old_keys:
        if old in content and evaluate.setdefault(key, content[old]) != content[old]:
            raise BadFile(f"{path}: {old} and [evaluate] {key} differ; keep [evaluate] {key}")
    folder, values = path.parent.resolve(), content | evaluate
    paths = {key: folder / Path(values[key]).expanduser() for key in _PATHS if key in values}
    keys = [(name, key) for name, table in tables.items() for key in table if key not in (*_PATHS, "ctx")]
    options = {(name, key): _OPTION_OF.get((name, key), key.replace("-", "_")) for name, key in keys}
    return Project(
        folder=folder,
        ctx=values.get("ctx"),
        settings={option: tables[name][key] for (name, key), option in options.items()},
        places={option: f"[{name}] {key}" for (name, key), option in options.items()},
        old_keys=tuple(f"{old} is now [evaluate] {key}" for old, key in old_keys if old in content and old != key),
        **paths,
    )


def _check(path: Path, table: str, content: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    """BadFile naming table and key of what is wrong."""
    where = f"[{table}] " if table else ""
    for key, value in content.items():
        if key not in keys:
            near = difflib.get_close_matches(key, [*keys, *(() if table else _TABLES)], n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadFile(f"{path}: unknown key {where}{key!r}; {hint}known keys: {', '.join(keys)}")
        texts = all(isinstance(part, str) for part in value) if isinstance(value, list) else True
        if type(value) not in _KINDS[keys[key]] or not texts:
            raise BadFile(f"{path}: {where}{key} must be {keys[key]}, not {value!r}")
        if any("\0" in part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)):
            raise BadFile(f"{path}: {where}{key} holds a zero byte, which no name of a file can")


def project_text(
    model: str, imatrix: str, calibration: str, text: str, ctx: int, *, parse_special: bool = False
) -> str:
    """The text of a fresh quantplan.toml, what may be set besides as comments."""
    special = "parse-special = true" if parse_special else "# parse-special = true          "
    return f"""\
# What belongs together in this folder. Paths are relative to it; texts may be files (.txt, or .jsonl for chats) or folders.
# An option on the command line wins, then the environment (QUANTPLAN_BUDGET ...), then this file;
# `quantplan solve --show-config` prints each value and where it comes from.
model = {_quoted(model)}
imatrix = {_quoted(imatrix)}          # made by `quantplan imatrix`
calibration = {_quoted(calibration)}  # read by imatrix, probe and solve; "default": small texts for a first try

[evaluate]
text = {_quoted(text)}  # read by measure and compare; must not overlap with the calibration text
ctx = {ctx}  # tokens of a chunk of text
# chunks = 100                    # chunks of the evaluation text to use (default: all)
{special}  # parse special tokens in plain texts too; in chats (.jsonl) they always are
# validation = "calibration/validation.txt"  # for rounding and refinement (default: a quarter of the calibration text)

# [plan]                          # keys are the long names of the options of `quantplan solve`
# budget = "4.5bpw"               # or "17.9GB", "40%", "=other.gguf", "Q4_K_M"
# types = "all"
# pin = ["output=Q8_0"]           # also: min-type, max-type, only, tie
# max-types = 4

# [memory]                        # limits for the machine that will run the file
# vram = "24GiB"
# serve-ctx = 16384
# kv = "q8_0"

# [card]                          # options of `quantplan card`
# repo = "me/MODEL-GGUF"          # also: base-model, license, quantized-by
# system = "You are a helpful assistant."  # of the Modelfile
# parameter = ["temperature=0.6", "num_ctx=8192"]
"""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def default_text(path: Path, folder: Path, kind: str) -> Path:
    """The path, or for the word ``default`` in ``folder``, where nothing has that name, the default texts of a kind:
    ``calibration`` or ``evaluation``.
    """
    named = path.absolute() == (folder / DEFAULT).absolute()
    return DEFAULT_TEXTS / kind if named and not path.exists() else path


def text_files(path: Path) -> list[Path]:
    """The file itself, or the texts of a folder in order of their names. BadFile where the folder has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in TEXT_SUFFIXES and file.stem != "README")
    if not files:
        raise BadFile(f"{path}: no {' or '.join(TEXT_SUFFIXES)} file in this folder; put texts there or name a file")
    return files


def read_text(path: Path) -> str:
    """A text file as its bytes are, line ends too: llama.cpp's tools take files so, and another line end is another token.

    BadFile where it is no text, or empty.
    """
    try:
        check_text_file(path, "a text", _MOST_TEXT)
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadFile(f"cannot read the text {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadFile(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); convert it to UTF-8 if it is a text"
        ) from None
    if not text.strip():
        raise BadFile(f"{path}: the text is empty")
    return text
