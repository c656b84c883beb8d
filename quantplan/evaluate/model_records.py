"""Measurements and comparisons of one model's files, found in a folder of records."""

from pathlib import Path

from quantplan.comparison import Comparison
from quantplan.errors import BadFile
from quantplan.evaluate.compare import retested
from quantplan.measurement import Measurement
from quantplan.records.codec import read_any
from quantplan.records.formats import COMPARISONS, MEASUREMENTS
from quantplan.records.json_text import parse_json
from quantplan.tensor import Model


def model_records(
    folder: Path, model: Model
) -> tuple[tuple[Measurement, ...], tuple[Comparison, ...], tuple[str, ...]]:
    """Of files whose base is ``model``, anywhere below the folder, and a note on each record that cannot be taken."""
    measurements, comparisons, notes = [], [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            record = _read(path)
            if isinstance(record, Measurement):
                _check_base(path, record, model)
                measurements.append(record)
            elif isinstance(record, Comparison):
                for row in record.rows:
                    _check_base(path, row.measurement, model)
                comparisons.append(retested(record))
        except BadFile as error:
            notes.append(f"left out: {error}")
    return tuple(measurements), tuple(comparisons), tuple(notes)


def _read(path: Path) -> Measurement | Comparison | None:
    """None for another format; BadFile for an unfinished file."""
    try:
        parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from None
    return read_any(path, MEASUREMENTS, COMPARISONS)


def _check_base(path: Path, measurement: Measurement, model: Model) -> None:
    base = measurement.conditions.base_digest
    if base != model.digest:
        raise BadFile(f"{path}: measured against another model (digest {base[:12]}, this is {model.digest[:12]})")
