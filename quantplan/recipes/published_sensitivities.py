"""Per-tensor KL divergences that others publish: a sensitivity of each tensor, and one curve over types.

Read are the tables of Thireus' GGUF-Tool-Suite (``models/<m>/kld_results.csv``: a header ``QTYPE,tensor,...`` and a row for each
type that tensors were degraded to, one at a time; ``group0/kld_results.csv``: ``QTYPE,group0`` and the KLD of the model with
all tensors in that type; both in nats per token), and one JSON that holds both (docs/formats.md).
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantplan.errors import BadFile, BadUsage, NothingSelected
from quantplan.patterns import regular_expression
from quantplan.recipes.kld_checks import check_curve
from quantplan.records.json_text import parse_json
from quantplan.text_files import read_text_file

_DELIMITERS = (",", ";", "\t")
_HOLES = ("", "nan", "404")  # 404: the suite's word for a result that was not found


@dataclass(frozen=True)
class Published:
    """What a file says. ``labels``: the types of the curve that may be chosen; ``otherwise``: by tensor, labels under which it
    was stored as another type; ``together``: tensors degraded in one measurement, each of which carries the whole of it;
    ``unmeasured``: tensors that are named without a value.
    """

    sensitivity: Mapping[str, float]
    curve: Mapping[str, float]
    labels: tuple[str, ...]
    degraded_to: str
    together: tuple[tuple[str, ...], ...] = ()
    otherwise: Mapping[str, frozenset[str]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()
    source: Mapping[str, object] = field(default_factory=dict)


def looks_like_sensitivities(text: str) -> bool:
    """Whether the text is of a form that ``read_published`` reads."""
    start = text.lstrip("\ufeff \r\n\t")
    begins = any(start.upper().startswith(f"QTYPE{mark}") for mark in _DELIMITERS)
    return begins or (start.startswith("{") and '"curve"' in text and '"tensors"' in text)


def read_published(
    path: Path, curve: Path | None = None, groups: Path | None = None, row: str | None = None
) -> Published:
    """The measurements in a file. A CSV needs its ``curve``, may have ``groups`` (lines ``NAME:PATTERN`` of tensors that were
    measured together), and takes the ``row`` of one degraded type, by default the suite's own choice.

    BadFile for anything else and for values that are not a KLD, BadUsage where the curve is missing.
    """
    text = _text(path)
    if text.startswith("{"):
        return _from_json(path, text)
    rows = _csv(path, text)
    if curve is None:
        raise BadUsage(
            f"{path} says how sensitive tensors are, not what types cost: give the curve, too, with "
            "--curve group0/kld_results.csv"
        )
    costs = _curve(curve)
    _check_rows(path, rows)
    name = row if row in rows else _least(path, rows, row)
    values = rows[name]
    measured = {tensor: value for tensor, value in values.items() if value is not None}
    return Published(
        sensitivity=measured,
        curve=costs,
        labels=tuple(costs),
        degraded_to=name,
        together=_groups(groups, measured) if groups else (),
        unmeasured=tuple(tensor for tensor in values if tensor not in measured),
        source={"sensitivity": path.name, "curve": curve.name},
    )


def _check_rows(path: Path, rows: Mapping[str, Mapping[str, float | None]]) -> None:
    """BadFile where the types of several rows do not cost the less the more bits they have."""
    in_all = [name for name in next(iter(rows.values())) if all(values[name] is not None for values in rows.values())]
    check_curve(str(path), {kind: sum(values[name] or 0 for name in in_all) for kind, values in rows.items()})


def _text(path: Path) -> str:
    return read_text_file(path, "a table of KLDs").strip()


# --- GGUF-Tool-Suite


def _csv(path: Path, text: str) -> dict[str, dict[str, float | None]]:
    """type -> tensor -> KLD, None where there is no measurement."""
    header, *lines = [*_cells(path, text)] or [[""]]
    if header[0].upper() != "QTYPE" or not lines:
        raise BadFile(
            f"{path} is not a table of KLDs: it should begin with QTYPE and the names of tensors, and have rows"
        )
    if len(set(header)) != len(header):
        raise BadFile(f"{path} names the tensor {next(n for n in header if header.count(n) > 1)} twice")
    found: dict[str, dict[str, float | None]] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise BadFile(f"{path}: line {number} has {len(line)} values, the header {len(header)}")
        if line[0] in found:
            raise BadFile(f"{path} has two rows {line[0]}; take one of them out")
        found[line[0]] = {
            name: _kld(path, f"{name} as {line[0]}", cell) for name, cell in zip(header[1:], line[1:], strict=True)
        }
    return found


def _cells(path: Path, text: str) -> Iterator[list[str]]:
    """The cells of each line that is not empty; between semicolons, as spreadsheets write them, a comma is a decimal point."""
    mark = next((mark for mark in _DELIMITERS if text[:6].upper() == f"QTYPE{mark}"), ",")
    try:
        for line in csv.reader(text.splitlines(), delimiter=mark):
            if line:
                yield [cell.strip() if mark == "," else cell.strip().replace(",", ".") for cell in line]
    except csv.Error as error:
        raise BadFile(f"{path} is not CSV: {error}") from None


def _kld(path: Path, what: str, cell: str | float) -> float | None:
    if str(cell).strip().lower() in _HOLES:
        return None
    if "%" in str(cell):
        raise BadFile(f"{path}: {what} is {cell!r}, a change in percent; a table of KLDs in nats per token is needed")
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise BadFile(f"{path}: {what} is {cell!r}, which is not a KLD")
    return value


def _curve(path: Path) -> dict[str, float]:
    rows = _csv(path, _text(path))
    if any(len(values) != 1 for values in rows.values()):
        raise BadFile(f"{path} has several columns; the curve is the table with QTYPE,group0 (the file given first?)")
    values = {name: next(iter(each.values())) for name, each in rows.items()}
    return {name: value for name, value in values.items() if value is not None}


def _least(path: Path, rows: Iterable[str], asked: str | None) -> str:
    """The suite's choice: the row whose name has the lowest first number, types of BitNet models left out."""
    rows = list(rows)
    usable = [name for name in rows if re.search(r"\d", name) and not name.endswith("_bn")]
    if asked or not usable:
        raise NothingSelected(f"{path} has no row {asked or 'of an ordinary type'}; rows: {', '.join(rows)}")
    return min(usable, key=lambda name: int(re.search(r"\d+", name)[0]))  # type: ignore[index]


def _groups(path: Path, names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of several tensors from lines ``NAME:PATTERN``."""
    names, found = list(names), []
    for line in filter(None, map(str.strip, _text(path).splitlines())):
        try:
            pattern = regular_expression(line.partition(":")[2])
        except ValueError as error:
            raise BadFile(f"{path}: {line!r} has no regular expression after the colon: {error}") from None
        members = tuple(name for name in names if pattern.search(name))
        if len(members) > 1:
            found.append(members)
    return tuple(found)


# --- JSON


def _from_json(path: Path, text: str) -> Published:
    try:
        return _published(path, parse_json(text, allow_nan=True))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(
            f"{path} is not sensitivity data that quantplan reads ({type(error).__name__}: {error}); see docs/formats.md"
        ) from None


def _published(path: Path, content: dict[str, Any]) -> Published:
    groups, tensors = content["groups"], content["tensors"]
    names = _texts([name for name, _, _ in tensors])
    if len(set(names)) != len(names):
        raise BadFile(f"{path} names the tensor {next(n for n in names if names.count(n) > 1)} twice")
    values = {name: _kld(path, name, value) for name, _, value in tensors}
    otherwise = [frozenset(k for k, v in each.get("stored", {}).items() if k != v) for each in groups]
    every = [(name, group) for name, group, *_ in [*tensors, *content.get("unmeasured", [])]]
    return Published(
        sensitivity={name: value for name, value in values.items() if value is not None},
        curve={label: _kld(path, f"the curve at {label}", value) or 0.0 for label, value in content["curve"].items()},
        labels=tuple(_texts(content["qtypes"])),
        degraded_to=str(content.get("ref_qtype", "")),
        together=tuple(tuple(names[index] for index in group) for group in content.get("measured_together", [])),
        otherwise={name: otherwise[group] for name, group in every},
        shapes={name: _shape(groups[group]["shape"]) for name, group in every},
        unmeasured=tuple(_texts([name for name, *_ in content.get("unmeasured", [])]))
        + tuple(name for name, value in values.items() if value is None),
        source={"file": path.name, **{k: v for k, v in content.get("source", {}).items() if isinstance(v, str)}},
    )


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of names is expected")
    return values


def _shape(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes) or not sizes:
        raise TypeError(f"the shape {sizes!r} is no list of sizes")
    return tuple(sizes)
