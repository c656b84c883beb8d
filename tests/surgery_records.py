"""Values of the formats of suites and of layer surgery, as they stand in tests/golden/records."""

from record_parts import CONDITIONS

from quantplan.comparison import Gap
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteConditions, SuiteScore
from quantplan.measurement import Estimate
from quantplan.surgery.layer_map import Layer, LayerMap, Term, copy_of
from quantplan.surgery.layer_map_files import LayerMapRecord, NamedFile, Reencoded
from quantplan.surgery.search.leaderboard import BestCandidateTest, Leaderboard, RankedCandidate

SUITE_SCORE = SuiteScore(
    file="m.gguf",
    model_digest="c" * 64,
    parts=(
        PartScore(
            name="sums",
            kind="exact",
            weight=2.0,
            items=(
                ItemScore(name="a", credit=1.0, text="4", tokens=3, ending="stop"),
                ItemScore(name="b", credit=0.25, text="5", tokens=4, ending="length", remark="cut off"),
            ),
        ),
        PartScore(name="ppl", kind="perplexity", weight=1.0, given=Estimate(0.9, 0.01)),
        PartScore(name="thinking", kind="exact", weight=1.0, reason="it does not think"),
    ),
    conditions=SuiteConditions("small", "a" * 64, "cpu", "llama-cpp-python 0.3.36"),
    template=True,
    thinks="never",
    notes=("a note",),
)
_MAP = LayerMap(4, (copy_of(0), Layer((Term(1, 0.5), Term(2, 0.5, (("*", 0.9), ("attn_v", 1.5))))), copy_of(3)))
LAYER_MAP = LayerMapRecord(
    "blend 1 2",
    _MAP,
    NamedFile("m.gguf", "M", "c" * 64, 7456),
    NamedFile("n.gguf", "N", "d" * 64, 6456),
    (Reencoded("blk.1.attn_v.weight", "F16", ("blk.1.attn_v.weight", "blk.2.attn_v.weight")),),
    ("a note",),
)
_ORIGINAL = RankedCandidate(
    edits="",
    layer_map=LayerMap.identity(4),
    family="original",
    phase=0,
    ppl=Estimate(10.5, 0.25),
    kld=Estimate(0.0, 0.0),
)
_BEST = RankedCandidate(
    edits="blend 1 2",
    layer_map=_MAP,
    family="blend",
    phase=1,
    ppl=Estimate(10.25, 0.25),
    kld=Estimate(0.01, None),
    gap=Gap(-0.02, -0.03, -0.01, True),
    score=Estimate(75.0, 5.0),
    scores={"sums": 0.625},
)
_BROKEN = RankedCandidate(
    edits="delete 3", layer_map=LayerMap(4, tuple(map(copy_of, range(3)))), family="delete", phase=1, ppl=None, kld=None
)
LEADERBOARD = Leaderboard(
    model="m.gguf",
    blocks=4,
    by="ppl",
    conditions=CONDITIONS,
    families=("blend", "delete"),
    original=_ORIGINAL,
    standings=(_BEST, _BROKEN),
    refused={"delete": 2},
    left_out=3,
    judgement=BestCandidateTest(conditions=CONDITIONS, original=_ORIGINAL, standings=(_BEST,)),
    suite="small",
)
