"""The history of an edited model: the record next to its file, and the records of its search, measurement and scores."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.gguf.shards import model_stem
from quantplan.measurement import Measurement
from quantplan.records.codec import read_any
from quantplan.records.formats import MEASUREMENTS
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.layer_map_files import LAYER_MAPS, LayerMapRecord, record_path
from quantplan.surgery.search.leaderboard import Leaderboard
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
from quantplan.tensor import Model


@dataclass(frozen=True)
class History:
    """``source``: the original's file. ``measured``: the result against the original. ``scores``: of the original and the
    result at one suite. None where nothing is known. ``records``: names of the files that this was read from.
    ``out``: the result's file, shards as one; ``name``: the new model's name, None where it is the original's.
    """

    edits: str
    layer_map: LayerMap
    source: str
    reencoded: tuple[str, ...]
    leaderboard: Leaderboard | None = None
    measured: Measurement | None = None
    scores: tuple[SuiteScore, SuiteScore] | None = None
    records: tuple[str, ...] = ()
    out: str | None = None
    name: str | None = None


_Record = Leaderboard | Measurement | SuiteScore


def read_history(model: Model, paths: Iterable[Path]) -> History | None:
    """What is known of an edited model, None for any other. BadFile for a damaged record.

    The record next to the model's file counts where it names just this file; the other records where they are of this model or
    of the search that found it.
    """
    neighbour = record_path(model.path)
    if not neighbour.is_file():
        return None
    edited = LAYER_MAPS.read(neighbour)
    if edited.result.digest != model.digest:
        return None
    read = {path.name: read_any(path, LEADERBOARDS, MEASUREMENTS, SUITE_SCORES) for path in paths}
    records: dict[str, _Record] = {name: record for name, record in read.items() if record is not None}
    board = next((record for record in records.values() if _is_search_of(record, edited)), None)
    measured = _measured(records.values(), edited)
    scores = _scores(records.values(), edited)
    used = [id(record) for record in (board, measured, *(scores or ()))]
    return History(
        edits=edited.edits,
        layer_map=edited.layer_map,
        source=edited.source.file,
        reencoded=tuple(tensor.tensor for tensor in edited.reencoded),
        leaderboard=board,  # type: ignore[arg-type]
        measured=measured,
        scores=scores,
        records=tuple(name for name, record in records.items() if id(record) in used),
        out=f"{model_stem(edited.result.file)}.gguf",
        name=edited.result.name if edited.result.name != edited.source.name else None,
    )


def _is_search_of(record: _Record, edited: LayerMapRecord) -> bool:
    return (
        isinstance(record, Leaderboard)
        and record.conditions.base_digest == edited.source.digest
        and any(candidate.layer_map.digest == edited.layer_map.digest for candidate in record.standings)
    )


def _measured(records: Iterable[_Record], edited: LayerMapRecord) -> Measurement | None:
    """The measurement of the result against the original with the most text."""
    pair = (edited.result.digest, edited.source.digest)
    measurements = [
        record
        for record in records
        if isinstance(record, Measurement) and (record.model_digest, record.conditions.base_digest) == pair
    ]
    return max(measurements, key=lambda measurement: measurement.conditions.chunks, default=None)


def _scores(records: Iterable[_Record], edited: LayerMapRecord) -> tuple[SuiteScore, SuiteScore] | None:
    """Scores of the original and the result under the same conditions."""
    scores = [record for record in records if isinstance(record, SuiteScore)]
    originals = {score.conditions: score for score in reversed(scores) if score.model_digest == edited.source.digest}
    return next(
        (
            (originals[result.conditions], result)
            for result in scores
            if result.model_digest == edited.result.digest and result.conditions in originals
        ),
        None,
    )
