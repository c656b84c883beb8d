"""Earlier measurements, put together by file, so that they compare without measuring again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantplan.comparison import ComparedFile
from quantplan.errors import BadUsage
from quantplan.measurement import Measurement
from quantplan.records.codec import format_of, read_any
from quantplan.records.formats import MEASUREMENTS, TASK_SCORES, THROUGHPUTS
from quantplan.task_score import TaskScore
from quantplan.throughput import Throughput

_FORMATS = (MEASUREMENTS, TASK_SCORES, THROUGHPUTS)
_NAMES = frozenset(record_format.name for record_format in _FORMATS)


def are_records(files: Sequence[Path]) -> bool:
    """Whether all files are records of measurements; BadUsage where some are and some are not."""
    flags = [file.suffix == ".json" and format_of(file) in _NAMES for file in files]
    if any(flags) and not all(flags):
        other = files[flags.index(False)]
        raise BadUsage(
            f"records of measurements compare only with records, and {other} is not one: `quantplan measure` it first"
        )
    return all(flags)


def read_compared_files(files: Sequence[Path]) -> list[ComparedFile]:
    """The files that the records describe, each with all its records, in the order in which they first occur.

    BadUsage where a file has no record of its KLD, or two records of the same.
    """
    by_digest: dict[str, dict[str, Any]] = {}
    for file in files:
        record = read_any(file, *_FORMATS)
        name = f"task {record.task}" if isinstance(record, TaskScore) else type(record).__name__
        records = by_digest.setdefault(record.model_digest, {})
        if name in records:
            raise BadUsage(f"{file}: a second record ({name}) of {record.file}; give one of each")
        records[name] = record
    return [_compared_file(records) for records in by_digest.values()]


def _compared_file(records: dict[str, Any]) -> ComparedFile:
    measurement = records.get(Measurement.__name__)
    if measurement is None:
        file = next(iter(records.values())).file
        raise BadUsage(f"no record of the KLD of {file} among these; give its .measurement.json too")
    scores = [record for record in records.values() if isinstance(record, TaskScore)]
    return ComparedFile(
        name=Path(measurement.file).name,
        measurement=measurement,
        tasks=tuple(sorted(scores, key=lambda score: score.task)),
        throughput=records.get(Throughput.__name__),
    )
