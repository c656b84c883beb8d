"""quantplan's own JSON files: each format is registered once, as a dataclass, and read by the same declaration that writes it.

Keys are the names of the fields, unless a ``Shape`` says otherwise. An ``Estimate`` stands as ``NAME`` and ``NAME_err``, a
``QuantType`` as its name, a float that does not exist as null.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from cattrs import BaseValidationError, Converter, transform_error
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from quantplan.errors import BadFile
from quantplan.measurement import Estimate
from quantplan.quant_type import QuantType, quant_type
from quantplan.records.files import replacing
from quantplan.records.json_text import parse_json
from quantplan.text_files import read_text_file

Value = TypeVar("Value")
Fields = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """How the JSON of a dataclass differs from its fields.

    ``names``: field -> key. ``merged``: fields whose keys stand among those of the parent. ``pairs``: estimates that stand
    as [value, error]. ``required``: keys that every version had, though their fields have defaults. ``absent``: number that
    null stands for, by field. ``derived``: keys that are written for other programs and not read. ``written`` and ``read``
    change the JSON after writing and before reading.
    """

    names: Mapping[str, str] = ()  # type: ignore[assignment]
    merged: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    absent: Mapping[str, float] = ()  # type: ignore[assignment]
    derived: Mapping[str, Callable[[Any], Any]] = ()  # type: ignore[assignment]
    written: Callable[[Fields], Fields] = dict
    read: Callable[[Fields], Fields] = dict


@dataclass(frozen=True)
class RecordFormat(Generic[Value]):
    """A kind of file: its name and newest version, what it holds, and what to do about a damaged one."""

    name: str
    version: int
    type: type[Value]
    noun: str
    remedy: str
    check: Callable[[Value], None] = lambda value: None  # raises ValueError for what cannot be

    def encode(self, value: Value) -> Fields:
        """The JSON of a value, without the name of the format."""
        return encode(value)

    def decode(self, content: Any) -> Value:
        """The value of such JSON; ValueError with the place and the reason where it is damaged."""
        value = decode(content, self.type)
        self.check(value)
        return value

    def write(self, value: Value, path: Path | str) -> None:
        """Raises BadFile or NoSpace where the file cannot be written, ValueError for NaN or infinity in a required field."""
        write_json(path, {"format": self.name, "version": self.version} | self.encode(value))

    def read(self, path: Path | str) -> Value:
        """What was written; BadFile for another format, an unknown version, and for fields that are missing or wrong."""
        content = self._content(Path(path))
        try:
            return self.decode(content)
        except ValueError as error:
            raise BadFile(f"{path}: damaged {self.noun} ({error}); {self.remedy}") from None

    def _content(self, path: Path) -> Fields:
        try:
            content = parse_json(read_text_file(path, f"a {self.name} file"))
        except ValueError as error:
            raise BadFile(f"{path}: not JSON ({error}); is it a {self.name} file?") from None
        if not isinstance(content, dict) or content.get("format") != self.name:
            actual = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise BadFile(f"{path}: a {self.name} file is needed, this is {actual or 'something else'}")
        version = content.get("version")
        if not isinstance(version, int) or not 1 <= version <= self.version:
            raise BadFile(
                f"{path}: version {version} of {self.name} is unknown (1 to {self.version} are known); update quantplan"
            )
        return content


FORMATS: dict[str, RecordFormat[Any]] = {}
_SHAPES: dict[type, Shape] = {}
_in_use: set[type] = set()


def register(record_format: RecordFormat[Value]) -> RecordFormat[Value]:
    """Makes a format known by its name; ValueError where the name is taken."""
    if record_format.name in FORMATS:
        raise ValueError(f"the format {record_format.name} is registered twice")
    FORMATS[record_format.name] = record_format
    return record_format


def shape(cls: type, **shape: Any) -> None:
    """Declares how the JSON of a dataclass differs from its fields, see ``Shape``.

    ValueError where the JSON of the type is in use: what was written before and what is written after would differ.
    """
    if cls in _in_use:
        raise ValueError(f"the JSON of {cls.__name__} is in use or declared already")
    _in_use.add(cls)
    _SHAPES[cls] = Shape(**shape)


def leaf(cls: type[Value], encoded: Callable[[Value], Any], decoded: Callable[[Any], Value]) -> None:
    """Declares a type that is no JSON object. ``decoded`` raises ValueError or TypeError for anything else."""
    _converter.register_unstructure_hook(cls, encoded)
    _converter.register_structure_hook(cls, lambda content, _: decoded(content))


def encode(value: object) -> Any:
    """The JSON of a value: a dict of a dataclass."""
    return _converter.unstructure(value)


def decode(content: Any, cls: Any) -> Any:
    """The value of type ``cls`` whose JSON that is; ValueError with the place and the reason for anything else."""
    try:
        return _converter.structure(content, cls)
    except BaseValidationError as error:
        raise ValueError(transform_error(error, format_exception=_reason)[0]) from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(_reason(error, None)) from None


def _reason(error: BaseException, _type: type | None) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def write_json(path: Path | str, content: Any) -> None:
    """Writes a JSON file; ValueError for NaN or infinity, which JSON does not have."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(text + "\n")


def read_any(path: Path, *formats: RecordFormat[Any]) -> Any:
    """The value in a file of one of these formats; None for any other file. BadFile for a damaged one."""
    name = format_of(path)
    record_format = next((record_format for record_format in formats if record_format.name == name), None)
    return record_format.read(path) if record_format else None


def format_of(path: Path | str) -> str | None:
    """The format that a JSON file says it is of; None for anything else."""
    try:
        content = parse_json(read_text_file(Path(path), "a record"))
    except (BadFile, ValueError):
        return None
    name = content.get("format") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def finite(value: float | None) -> float | None:
    """JSON has no NaN: a value that does not exist is null."""
    return None if value is None or not math.isfinite(value) else float(value)


# --- how types stand in JSON


def _exactly(*types: Any) -> Callable[[Any, type], Any]:
    """Takes a value of these types as it is: text is no number, and true is no 1."""

    def check(content: Any, cls: type) -> Any:
        if not isinstance(content, types) or (isinstance(content, bool) and cls is not bool):
            raise ValueError(f"{content!r} where {'a number' if cls in (int, float) else cls.__name__} is expected")
        return float(content) if cls is float else content

    return check


def _pair(content: Any, _cls: type) -> Estimate:
    if content is None:
        raise ValueError("it is missing")
    value, error = content
    number = _exactly(int, float)
    return Estimate(number(value, float), None if error is None else number(error, float))


def _shape_of(cls: type) -> Shape:
    _in_use.add(cls)
    return _SHAPES.get(cls, Shape())


def _structure_factory(cls: type) -> Callable[[Any, type], Any]:
    declared = _shape_of(cls)
    estimates = _estimates(cls) - {*declared.pairs}
    keys = dict(declared.names)
    arrays = [keys.get(name, name) for name, hint in get_type_hints(cls).items() if get_origin(hint) is tuple]
    build: Callable[[Any, type], Any] = make_dict_structure_fn(cls, _converter, **_renamed(cls, keys))

    def structure(content: Any, _cls: type) -> Any:
        if not isinstance(content, Mapping):
            raise TypeError(f"{content!r} where an object is expected")
        content = declared.read(dict(content))
        if missing := [key for key in declared.required if key not in content]:
            raise KeyError(missing[0])
        if texts := [key for key in arrays if isinstance(content.get(key), str)]:
            raise TypeError(f"{texts[0]} is a text where a list is expected")
        for key in estimates:
            if key in content:
                value = content[key]
                content[key] = None if value is None else (value, content[f"{key}_err"])
        for field in declared.merged:
            content[field] = content
        for field, number in dict(declared.absent).items():
            key = keys.get(field, field)
            content[key] = number if content[key] is None else content[key]
        return build(content, cls)

    return structure


def _unstructure_factory(cls: type) -> Callable[[Any], Fields]:
    declared = _shape_of(cls)
    estimates = _estimates(cls) - {*declared.pairs}
    keys = dict(declared.names)
    plain: Callable[[Any], Fields] = make_dict_unstructure_fn(cls, _converter, **_renamed(cls, keys))
    without_value = [keys.get(field, field) for field in dict(declared.absent)]

    def unstructure(value: Any) -> Fields:
        content: Fields = {}
        for key, item in plain(value).items():
            if key in estimates:
                content[key], content[f"{key}_err"] = item or (None, None)
            elif key in declared.merged:
                content |= item
            else:
                content[key] = item
        for key in without_value:
            content[key] = finite(content[key])
        return declared.written(content) | {key: _finite(of(value)) for key, of in dict(declared.derived).items()}

    return unstructure


def _finite(value: Any) -> Any:
    return finite(value) if isinstance(value, float) else value


def _renamed(cls: type, keys: Mapping[str, str]) -> dict[str, Any]:
    return {field.name: override(rename=keys[field.name]) for field in fields(cls) if field.name in keys}


def _estimates(cls: type) -> frozenset[str]:
    """Fields that stand as NAME and NAME_err."""
    hints = get_type_hints(cls)
    return frozenset(name for name, hint in hints.items() if Estimate in (hint, *get_args(hint)))


_converter = Converter(unstruct_collection_overrides={tuple: list})
for _types in ((str,), (bool,), (int,), (float, int)):
    _converter.register_structure_hook(_types[0], _exactly(*_types))
_converter.register_unstructure_hook(float | None, finite)
_converter.register_structure_hook_factory(is_dataclass, _structure_factory)
_converter.register_unstructure_hook_factory(is_dataclass, _unstructure_factory)
_converter.register_structure_hook(Estimate, _pair)
_converter.register_unstructure_hook(Estimate, lambda estimate: [finite(estimate.value), finite(estimate.stderr)])
leaf(QuantType, lambda kind: kind.name, quant_type)
_converter.register_structure_hook_func(lambda cls: cls is object, lambda content, _: content)
