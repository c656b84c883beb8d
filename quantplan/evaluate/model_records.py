"""Measurements, comparisons and scores of one model's files, found in a folder of records."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.comparison import Comparison
from quantplan.errors import BadFile
from quantplan.evaluate.compare import retested
from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.measurement import Measurement
from quantplan.records.codec import read_any
from quantplan.records.formats import CACHE_SENSITIVITIES, COMPARISONS, MEASUREMENTS
from quantplan.records.json_text import parse_json
from quantplan.tensor import Model

Record = Measurement | Comparison | CacheSensitivity | SuiteScore


@dataclass(frozen=True)
class ModelRecords:
    """``caches``: what types of the KV cache cost; ``scores``: of measured files, ``originals``: of the model itself; ``notes``
    on each record that cannot be taken.
    """

    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    caches: tuple[CacheSensitivity, ...] = ()
    scores: tuple[SuiteScore, ...] = ()
    originals: tuple[SuiteScore, ...] = ()
    notes: tuple[str, ...] = ()


def model_records(folder: Path, model: Model) -> ModelRecords:
    """Of files whose base is ``model``, anywhere below the folder. A score counts where its file was measured, too."""
    records: list[Record] = []
    notes = []
    for path in sorted(folder.rglob("*.json")):
        try:
            record = _read(path)
            if record is not None:
                _check_base(path, record, model)
                records.append(record)
        except BadFile as error:
            notes.append(f"left out: {error}")
    measurements = tuple(record for record in records if isinstance(record, Measurement))
    comparisons = tuple(retested(record) for record in records if isinstance(record, Comparison))
    measured = {each.model_digest for each in _all_measured(measurements, comparisons)}
    scores = [record for record in records if isinstance(record, SuiteScore)]
    return ModelRecords(
        measurements,
        comparisons,
        tuple(record for record in records if isinstance(record, CacheSensitivity)),
        tuple(score for score in scores if score.model_digest in measured - {model.digest}),
        tuple(score for score in scores if score.model_digest == model.digest),
        tuple(notes),
    )


def _all_measured(measurements: Iterable[Measurement], comparisons: Iterable[Comparison]) -> Iterable[Measurement]:
    return [*measurements, *(row.measurement for comparison in comparisons for row in comparison.rows)]


def _read(path: Path) -> Record | None:
    """None for another format; BadFile for an unfinished file."""
    try:
        parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from None
    return read_any(path, MEASUREMENTS, COMPARISONS, CACHE_SENSITIVITIES, SUITE_SCORES)


def _check_base(path: Path, record: Record, model: Model) -> None:
    """BadFile for what was measured against another model; a score names no base."""
    if isinstance(record, Comparison):
        bases = [row.measurement.conditions.base_digest for row in record.rows]
    elif isinstance(record, Measurement):
        bases = [record.conditions.base_digest]
    else:
        bases = [record.model_digest] if isinstance(record, CacheSensitivity) else []
    base = next((base for base in bases if base != model.digest), None)
    if base is not None:
        raise BadFile(f"{path}: measured against another model (digest {base[:12]}, this is {model.digest[:12]})")
