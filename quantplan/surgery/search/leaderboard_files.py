"""Leaderboards of searches over layers as JSON. See docs/formats.md. Nothing in them tells when or how fast they were made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantplan.comparison import Gap
from quantplan.errors import BadFile
from quantplan.measurement import Conditions, Estimate
from quantplan.records.codec import read_record, write_record
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.layer_map_files import layers_content, layers_from
from quantplan.surgery.search.leaderboard import BestCandidateTest, Leaderboard, RankedCandidate

LEADERBOARD_FORMAT, LEADERBOARD_VERSION = "quantplan-leaderboard", 1  # 1: first


def write_leaderboard(board: Leaderboard, path: Path) -> None:
    write_record(path, LEADERBOARD_FORMAT, LEADERBOARD_VERSION, leaderboard_fields(board))


def read_leaderboard(path: Path | str) -> Leaderboard:
    """BadFile unless it is a leaderboard of a known version."""
    content = read_record(path, LEADERBOARD_FORMAT, LEADERBOARD_VERSION)
    try:
        return _leaderboard(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadFile(
            f"{path}: not a whole leaderboard ({type(error).__name__}: {error}); make it again with `quantplan surgery search`"
        ) from None


def leaderboard_fields(board: Leaderboard) -> dict[str, Any]:
    """``standings``: best first; a ``map`` is that of layer_map_files.

    Errors stand beside their figures as ``NAME_err``. ``ln_ppl_ratio``: to the original, paired over windows.
    """
    return {
        "model": board.model,
        "layers": board.blocks,
        "by": board.by,
        "families": list(board.families),
        "conditions": asdict(board.conditions),
        "suite": board.suite,
        "original": _fields(board.original) if board.original else None,
        "standings": [_fields(each) for each in board.standings],
        "refused": board.refused,
        "left_out": board.left_out,
        "judgement": _judgement_fields(board.judgement) if board.judgement else None,
    }


def _judgement_fields(judgement: BestCandidateTest) -> dict[str, Any]:
    return {
        "conditions": asdict(judgement.conditions),
        "original": _fields(judgement.original),
        "standings": [_fields(each) for each in judgement.standings],
    }


def _fields(standing: RankedCandidate) -> dict[str, Any]:
    return {
        "edits": standing.edits,
        "layers": len(standing.layer_map),
        "family": standing.family,
        "phase": standing.phase,
        **_estimate_fields("ppl", standing.ppl),
        **_estimate_fields("kld", standing.kld),
        "ln_ppl_ratio": asdict(standing.gap) if standing.gap else None,
        **_estimate_fields("score", standing.score),
        "scores": standing.scores,
        "map": layers_content(standing.layer_map),
    }


def _estimate_fields(name: str, estimate: Estimate | None) -> dict[str, Any]:
    value, error = (estimate.value, estimate.stderr) if estimate else (None, None)
    return {name: value, f"{name}_err": error}


# --- reading


def _leaderboard(content: dict[str, Any]) -> Leaderboard:
    blocks, original, judged = content["layers"], content["original"], content["judgement"]
    return Leaderboard(
        model=content["model"],
        blocks=blocks,
        by=content["by"],
        families=tuple(content["families"]),
        conditions=Conditions(**content["conditions"]),
        original=_standing(original, blocks) if original else None,
        standings=tuple(_standing(each, blocks) for each in content["standings"]),
        refused=content["refused"],
        left_out=content["left_out"],
        judgement=_judgement(judged, blocks) if judged else None,
        suite=content["suite"],
    )


def _judgement(content: dict[str, Any], blocks: int) -> BestCandidateTest:
    return BestCandidateTest(
        conditions=Conditions(**content["conditions"]),
        original=_standing(content["original"], blocks),
        standings=tuple(_standing(each, blocks) for each in content["standings"]),
    )


def _standing(content: dict[str, Any], blocks: int) -> RankedCandidate:
    ppl, kld, score = (_estimate(content, name) for name in ("ppl", "kld", "score"))
    gap = Gap(**content["ln_ppl_ratio"]) if content["ln_ppl_ratio"] else None
    return RankedCandidate(
        edits=content["edits"],
        layer_map=LayerMap(blocks, layers_from(content["map"])),
        family=content["family"],
        phase=content["phase"],
        ppl=ppl,
        kld=kld,
        gap=gap,
        score=score,
        scores=content["scores"],
    )


def _estimate(content: dict[str, Any], name: str) -> Estimate | None:
    value, error = content[name], content[f"{name}_err"]
    return None if value is None else Estimate(value, error)
