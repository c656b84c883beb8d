"""What earlier measurements say about files, put together by file; and the file that shrinkage is counted from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantplan.build.build import stock_plan
from quantplan.comparison import ComparedFile
from quantplan.errors import BadUsage
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.quantize import known_ftype
from quantplan.measurement import Measurement
from quantplan.records.codec import format_of
from quantplan.records.measurement_files import MEASUREMENT_FORMAT, read_measurement
from quantplan.records.task_score_files import TASK_SCORE_FORMAT, read_task_score
from quantplan.records.throughput_files import THROUGHPUT_FORMAT, read_throughput
from quantplan.task_score import TaskScore
from quantplan.throughput import Throughput

if TYPE_CHECKING:
    from quantplan.evaluate.baselines import BuildContext


def reference_size(word: str, context: BuildContext | None) -> tuple[str, int]:
    """Name and exact bytes of the file that shrinkage is counted from: a GGUF, or a stock mix, which is not built for it.

    Without a workshop (there is no model) BadUsage for a mix.
    """
    if word.lower().endswith(".gguf"):
        return Path(word).name, read_model(word).file_bytes
    if context is None:
        raise BadUsage(f"--reference {word}: records do not know the size of a mix; give the path of a .gguf file")
    ftype = known_ftype(word)
    imatrix = read_imatrix(context.imatrix) if context.imatrix else None
    return ftype, stock_plan(context.source, ftype, imatrix).file_bytes


def are_records(files: Sequence[Path]) -> bool:
    """Whether all files are records of measurements; BadUsage where some are and some are not."""
    kinds = [format_of(file) in _RECORDS if file.suffix == ".json" else False for file in files]
    if any(kinds) and not all(kinds):
        other = files[kinds.index(False)]
        raise BadUsage(
            f"records of measurements compare with records alone; {other} is none: `quantplan measure` it first"
        )
    return all(kinds)


def read_compared_files(files: Sequence[Path]) -> list[ComparedFile]:
    """The files that records speak of, each with all that its records say, in the order in which they first occur.

    BadUsage where one has no record of its KLD, or two of the same.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        record = _RECORDS[str(format_of(file))](file)
        kind = f"task {record.task}" if isinstance(record, TaskScore) else type(record).__name__
        own = found.setdefault(record.model_digest, {})
        if kind in own:
            raise BadUsage(f"{file}: a second record ({kind}) of {record.file}; give one of each")
        own[kind] = record
    for own in found.values():
        if Measurement.__name__ not in own:
            some = next(iter(own.values()))
            raise BadUsage(f"no record of the KLD of {some.file} among these; give its .measurement.json too")
    return [_compared_file(own) for own in found.values()]


def _compared_file(own: dict[str, Any]) -> ComparedFile:
    measurement = own[Measurement.__name__]
    scores = sorted((each for each in own.values() if isinstance(each, TaskScore)), key=lambda score: score.task)
    return ComparedFile(
        name=Path(measurement.file).name,
        measurement=measurement,
        tasks=tuple(scores),
        throughput=own.get(Throughput.__name__),
    )


_RECORDS: dict[str, Callable[[Path], Any]] = {
    MEASUREMENT_FORMAT: read_measurement,
    TASK_SCORE_FORMAT: read_task_score,
    THROUGHPUT_FORMAT: read_throughput,
}
