"""How an operated model came about: the record beside its file, and the records of search, measurement and scores."""

from __future__ import annotations

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
    result at one suite. What is not known is None. ``records``: names of the files that this was read from.
    ``out``: the result's file, shards as one; ``name``: what it is called, where that is not the original's name.
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


def read_history(model: Model, records: Iterable[Path]) -> History | None:
    """What is known of a model that was operated on, None for any other. BadFile for a damaged record.

    The record beside the file counts where it names just this file; others where they are of it, or of its search.
    """
    beside = record_path(model.path)
    if not beside.is_file():
        return None
    own = LAYER_MAPS.read(beside)
    if own.result.digest != model.digest:
        return None
    read = {path.name: read_any(path, LEADERBOARDS, MEASUREMENTS, SUITE_SCORES) for path in records}
    found = {name: record for name, record in read.items() if record is not None}
    board = next((each for each in found.values() if isinstance(each, Leaderboard) and _led_here(each, own)), None)
    measured = _measured([each for each in found.values() if isinstance(each, Measurement)], own)
    scores = _scores([each for each in found.values() if isinstance(each, SuiteScore)], own)
    used = [id(each) for each in (board, measured, *(scores or ())) if each is not None]
    return History(
        own.edits,
        own.layer_map,
        own.source.file,
        tuple(each.tensor for each in own.reencoded),
        board,
        measured,
        scores,
        tuple(name for name, each in found.items() if id(each) in used),
        f"{model_stem(own.result.file)}.gguf",
        own.result.name if own.result.name != own.source.name else None,
    )


def _led_here(found: Leaderboard, own: LayerMapRecord) -> bool:
    same = any(each.layer_map.digest == own.layer_map.digest for each in found.standings)
    return same and found.conditions.base_digest == own.source.digest


def _measured(found: list[Measurement], own: LayerMapRecord) -> Measurement | None:
    """Of the result against the original, on as much text as any."""
    pairs = [
        each
        for each in found
        if each.model_digest == own.result.digest and each.conditions.base_digest == own.source.digest
    ]
    return max(pairs, key=lambda each: each.conditions.chunks, default=None)


def _scores(found: list[SuiteScore], own: LayerMapRecord) -> tuple[SuiteScore, SuiteScore] | None:
    """Of the original and the result, asked and judged alike."""
    for result in found:
        for original in found:
            alike = original.conditions == result.conditions
            if alike and (original.model_digest, result.model_digest) == (own.source.digest, own.result.digest):
                return original, result
    return None
