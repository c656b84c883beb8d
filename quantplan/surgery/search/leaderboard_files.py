"""The format of leaderboards of searches over layers. See docs/search.md.

No times in them: the same search gives the same file.
"""

from quantplan.records import formats  # noqa: F401  # declares the JSON of conditions
from quantplan.records.codec import Fields, RecordFormat, register, shape
from quantplan.surgery import layer_map_files  # noqa: F401  # declares the JSON of layers
from quantplan.surgery.search.leaderboard import Leaderboard, RankedCandidate


def _with_whole_maps(fields: Fields) -> Fields:
    """A candidate's map is the list of its layers; the number of the original's blocks is said once."""
    judgement = fields["judgement"]
    return fields | {
        "original": _with_map(fields["original"], fields["layers"]),
        "standings": [_with_map(standing, fields["layers"]) for standing in fields["standings"]],
        "judgement": judgement
        and judgement
        | {
            "original": _with_map(judgement["original"], fields["layers"]),
            "standings": [_with_map(standing, fields["layers"]) for standing in judgement["standings"]],
        },
    }


def _with_map(standing: Fields | None, blocks: int) -> Fields | None:
    return standing and standing | {"map": {"original": blocks, "layers": standing["map"]}}


shape(
    RankedCandidate,
    names={"layer_map": "map", "gap": "ln_ppl_ratio"},
    derived={"layers": lambda standing: len(standing.layer_map)},
    written=lambda fields: fields | {"map": fields["map"]["layers"]},
)
shape(Leaderboard, names={"blocks": "layers"}, read=_with_whole_maps)
LEADERBOARDS = register(
    # 1: first; 2: conditions name the types of the KV cache
    RecordFormat("quantplan-leaderboard", 2, Leaderboard, "leaderboard", "run `quantplan surgery search` again")
)
