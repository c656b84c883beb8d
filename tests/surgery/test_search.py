"""Searches on the real model: what is read, in which order it stands, and that nothing but the candidates decides it."""

import os
import signal
from dataclasses import replace

import pytest
from reporters import Recorder
from tiny_architectures import tiny_hybrid

from quantplan.comparison import Gap
from quantplan.errors import BadFile, BadUsage, WorkersLost
from quantplan.evaluate.measure import MeasureOptions, measure
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.measurement import Estimate
from quantplan.report.leaderboard_table import SHOWN, evaluation_table, leaderboard_table, verdict
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search import evaluators
from quantplan.surgery.search.dry_run import estimate_search
from quantplan.surgery.search.evaluations import EvaluationJob
from quantplan.surgery.search.evaluators import CandidateEvaluator, evaluate_in_worker
from quantplan.surgery.search.families import parse_family
from quantplan.surgery.search.leaderboard import BestCandidateTest, RankedCandidate, ordered
from quantplan.surgery.search.leaderboard_files import LEADERBOARDS
from quantplan.surgery.search.search import SearchOptions, judge, search
from quantplan.surgery.write_model import write_edited_model

N_CTX, CHUNKS = 64, 3


@pytest.fixture(scope="module")
def model(reference_model):
    return read_model(reference_model)


@pytest.fixture(scope="module")
def text(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[:3000]


@pytest.fixture(scope="module")
def heldout(calibration_text):
    return calibration_text.read_text(encoding="utf-8")[50_000:53_000]


@pytest.fixture
def job(model, text, tmp_path):
    return EvaluationJob(model.path, model.digest, text, N_CTX, CHUNKS, tmp_path / "cache", execution=Execution(1))


def options(*families, edits=(), blocks=10, **more):
    explicit = tuple(parse_edits(each) for each in edits)
    return SearchOptions(tuple(parse_family(each, blocks) for each in families), explicit, **more)


WANTED = ("delete", "swap:1", "repeat:4/2")


@pytest.fixture(scope="module")
def whole(model, text, tmp_path_factory):
    """An uninterrupted search of two passes and two phases, with all that it said, and its cache."""
    cache = tmp_path_factory.mktemp("whole")
    job = EvaluationJob(model.path, model.digest, text, N_CTX, CHUNKS, cache, execution=Execution(1))
    stages, boards = Recorder(), []
    found = search(model, job, options(*WANTED, phases=2, keep=2, breadth=3), None, stages, boards.append)
    return found, (stages, boards), job


def edits_of(board, phase=None, family=None):
    return {each.edits for each in board.standings if phase in (None, each.phase) and family in (None, each.family)}


# -- what is read


def test_both_passes_of_a_family(whole):
    board = whole[0].board
    wide, narrow = (
        [each for each in board.standings if each.family == "repeat" and len(each.layer_map) == 10 + length]
        for length in (4, 2)
    )
    assert {each.edits for each in wide} == {f"repeat {at}-{at + 3}" for at in (0, 2, 4, 6)}
    (span,) = parse_edits(wide[0].edits)[0].spans
    starts = range(max(0, span.first - 2), min(9, span.last + 2))
    assert {each.edits for each in narrow} == {f"repeat {at}-{at + 1}" for at in starts}


def test_phases_combine_the_best(whole):
    board = whole[0].board
    first = [each for each in board.standings if each.phase == 1]
    combined = [each for each in board.standings if each.phase == 2]
    assert combined and all(each.family == "combined" for each in combined)
    best, singles = first[:2], {str(parse_edits(each.edits)[0]) for each in first[:3]}
    assert len(combined) <= 2 * 3
    for each in combined:
        base = next(one for one in best if each.edits.startswith(f"{one.edits}; "))
        assert len(parse_edits(each.edits)) == len(parse_edits(base.edits)) + 1
    assert len(singles) == 3


def test_the_names_of_candidates_make_their_maps(whole):
    board = whole[0].board
    for each in board.standings:
        assert apply_edits(10, parse_edits(each.edits)) == each.layer_map
    digests = [each.layer_map.digest for each in board.standings]
    assert len(set(digests)) == len(digests) and LayerMap.identity(10).digest not in digests


def test_the_leaderboard_is_in_order_and_grows(whole):
    found, (stages, boards), _ = whole
    values = [each.ppl.value for each in found.board.standings]
    assert values == sorted(values)
    assert [len(board.standings) for board in boards] == list(range(1, len(values) + 1))
    last = {stage: (done, total) for stage, done, total in stages.events}
    assert list(last) == ["phase 1", "phase 1, pass 2", "phase 2"]
    assert all(done == total for done, total in last.values())
    assert sum(total for _, total in last.values()) == len(values)
    assert boards[-1] == found.board and found.ended is None and found.board.left_out == 0


def test_figures_are_those_of_the_file(whole, model, text, tmp_path):
    best = whole[0].board.standings[0]
    path = tmp_path / "best.gguf"
    write_edited_model(model, best.layer_map, path, try_it=False)
    (own,) = measure(model.path, [path], text, MeasureOptions(N_CTX, CHUNKS, execution=Execution(1)))
    assert (best.ppl, best.kld) == (own.ppl, own.kld)
    assert best.gap.difference == pytest.approx(own.ln_ppl_ratio.value, rel=1e-9)
    assert best.gap.low < best.gap.difference < best.gap.high
    original = whole[0].board.original
    assert original.ppl == own.base_ppl and original.kld.value == 0 and original.gap is None


def test_explicit_candidates_stand_among_the_others(model, job):
    edits = ("delete 4; swap 5 6", "delete 4", "blend 3 5 0.5 into 4")
    board = search(model, job, options("delete:5", edits=edits)).board
    assert edits_of(board, family="edits") == {"delete 4; swap 5 6", "delete 4", "blend 3 5 0.5 into 4"}
    with pytest.raises(BadUsage, match="no layer 44"):
        search(model, job, options("delete", edits=("delete 44",)))


def test_kld_ranks_by_what_is_lost(model, job):
    board = search(model, job, options("swap:1", by="kld")).board
    values = [each.kld.value for each in board.standings]
    assert values == sorted(values) and board.by == "kld"


def test_what_the_architecture_forbids_is_left_out_and_counted(text, tmp_path):
    model = read_model(tiny_hybrid(tmp_path / "hybrid.gguf"))
    job = EvaluationJob(model.path, model.digest, text, N_CTX, CHUNKS, tmp_path / "cache", execution=Execution(1))
    found = search(model, job, options("swap", "repeat:4", "repeat:3", blocks=8))
    kinds = [block % 4 == 3 for block in range(8)]
    allowed = {f"swap {a} {b}" for a in range(8) for b in range(a + 1, 8) if kinds[a] == kinds[b]}
    assert edits_of(found.board, family="swap") == allowed
    assert edits_of(found.board, family="repeat") == {f"repeat {at}-{at + 3}" for at in range(5)}
    assert found.board.refused == {"swap": 28 - len(allowed), "repeat": 6}
    assert "full_attention_interval" in found.reasons["swap"]


def test_nothing_to_search_is_an_error(text, tmp_path):
    model = read_model(tiny_hybrid(tmp_path / "hybrid.gguf"))
    job = EvaluationJob(model.path, model.digest, text, N_CTX, CHUNKS, tmp_path / "cache", execution=Execution(1))
    with pytest.raises(BadUsage, match="there are no candidates"):
        search(model, job, options("repeat:3", blocks=8))


# -- going on, budgets, processes


def forbidden(*_):
    raise AssertionError("this was read before")


def test_what_is_kept_is_not_read_again(whole, model, monkeypatch):
    found, _, job = whole
    monkeypatch.setattr(CandidateEvaluator, "__init__", forbidden)
    again = search(model, job, options(*WANTED, phases=2, keep=2, breadth=3))
    assert again.board == found.board and again.timing.evaluations == 0


def test_a_search_broken_off_anywhere_ends_the_same(whole, model, text, tmp_path, monkeypatch):
    """Five times in a row: ended while reading, the journal's last line torn."""
    found, _, _ = whole
    job = replace(whole[2], folder=tmp_path)
    wanted = options(*WANTED, phases=2, keep=2, breadth=3)
    real = CandidateEvaluator.evaluate
    for reads in (1, 4, 9, 2, 7):
        left = iter(range(reads))

        def limited(self, made, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(self, made)

        monkeypatch.setattr(CandidateEvaluator, "evaluate", limited)
        with pytest.raises(KeyboardInterrupt):
            search(model, job, wanted)
        (journal,) = tmp_path.glob("surgery-*.jsonl")
        journal.write_bytes(journal.read_bytes()[:-9])
    monkeypatch.setattr(CandidateEvaluator, "evaluate", real)
    again = search(model, job, wanted)
    assert again.board == found.board
    assert again.timing.evaluations == len(found.board.standings) + 1 - (1 + 4 + 9 + 2 + 7) + 5
    for one, other in ((found.board, "one.json"), (again.board, "other.json")):
        LEADERBOARDS.write(one, tmp_path / other)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()


def test_several_processes_find_the_same(whole, model, tmp_path):
    found, _, job = whole
    wanted = options(*WANTED, phases=2, keep=2, breadth=3)
    again = search(model, replace(job, folder=tmp_path, execution=Execution(1, jobs=2)), wanted)
    assert again.board == found.board
    assert LEADERBOARDS.encode(again.board) == LEADERBOARDS.encode(found.board)


def poisoned(job, maps):
    """Kills every process that is to read the model without layer 5."""
    if apply_edits(10, parse_edits("delete 5")) in maps:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate_in_worker(job, maps)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_processes_that_die_cost_what_they_had_in_hand(model, job, monkeypatch):
    wanted = options("delete")
    monkeypatch.setattr(evaluators, "evaluate_in_worker", poisoned)
    with pytest.raises(WorkersLost, match="candidates were not evaluated; finished ones are kept"):
        search(model, replace(job, execution=Execution(1, jobs=2)), wanted)
    monkeypatch.undo()
    found = search(model, job, wanted)
    assert len(found.board.standings) == 10
    assert 1 <= found.timing.evaluations <= 2  # the chunk with the poison in it


def test_a_budget_of_candidates_can_be_raised(whole, model, tmp_path):
    found, _, job = whole
    job = replace(job, folder=tmp_path)
    wanted = options(*WANTED, phases=2, keep=2, breadth=3)
    few = search(model, job, replace(wanted, max_candidates=5))
    assert edits_of(few.board) == {f"delete {at}" for at in range(5)}
    assert few.ended == "--max-candidates 5 is reached" and few.board.left_out == 10 + 9 + 4 - 5
    more = search(model, job, replace(wanted, max_candidates=30))
    assert len(more.board.standings) == min(30, len(found.board.standings)) and more.timing.evaluations == 30 - 5
    assert search(model, job, wanted).board == found.board


def test_a_budget_of_time_ends_a_search_after_the_candidate_under_way(whole, model, tmp_path):
    found, _, job = whole
    job = replace(job, folder=tmp_path)
    wanted = options(*WANTED, phases=2, keep=2, breadth=3)
    ended = search(model, job, replace(wanted, max_seconds=1e-6))  # over while the original is read
    assert len(ended.board.standings) == 1 and "time" in ended.ended and ended.board.left_out == 22
    assert search(model, job, replace(wanted, max_seconds=1e6)).board == found.board


def test_another_text_or_chunk_is_read_anew(whole, model, heldout):
    _, _, job = whole
    for other in (replace(job, text=heldout), replace(job, n_ctx=32), replace(job, chunks=2)):
        assert search(model, other, options("delete:9")).timing.evaluations == 3


# -- what is known before


def test_the_outline_counts_what_a_search_reads(whole, model):
    found, _, job = whole
    plan = estimate_search(model, job, options(*WANTED, phases=2, keep=2, breadth=3))
    assert [(stage.name, stage.candidates) for stage in plan.stages if stage.exact] == [
        ("delete:1", 10),
        ("swap:1", 9),
        ("repeat:4/2,2", 4),
    ]
    assert len(found.board.standings) <= plan.candidates
    assert plan.hosts == 3 and plan.passes == plan.candidates + 1
    block = sum(tensor.bytes for tensor in model.tensors if tensor.block == 0)
    assert plan.disk_bytes == model.file_bytes + 4 * block
    assert estimate_search(model, job, options("swap")).disk_bytes == 0
    assert estimate_search(model, job, options(*WANTED, max_candidates=7)).passes == 8


# -- the judgement, and what is said


@pytest.fixture(scope="module")
def judged(whole, model, heldout, tmp_path_factory):
    found, _, job = whole
    there = replace(job, text=heldout, folder=tmp_path_factory.mktemp("judge"))
    return judge(model, there, found.board, 3)


def test_the_best_are_judged_on_the_other_text(judged, whole, model, heldout, tmp_path):
    judgement, board = judged.judgement, whole[0].board
    assert [each.edits for each in judgement.standings] == [each.edits for each in board.standings[:3]]
    assert judgement.conditions.text_digest != board.conditions.text_digest
    path = tmp_path / "best.gguf"
    write_edited_model(model, board.standings[0].layer_map, path, try_it=False)
    (own,) = measure(model.path, [path], heldout, MeasureOptions(N_CTX, CHUNKS, execution=Execution(1)))
    assert judgement.standings[0].ppl == own.ppl and judgement.original.ppl == own.base_ppl
    assert replace(judged, judgement=None) == board


def test_records_come_back_as_they_were(judged, whole, tmp_path):
    for each in (judged, whole[0].board):
        LEADERBOARDS.write(each, tmp_path / "board.json")
        assert LEADERBOARDS.read(tmp_path / "board.json") == each
    (tmp_path / "board.json").write_text('{"format": "quantplan-leaderboard", "version": 1, "layers": 10}')
    with pytest.raises(BadFile, match="damaged leaderboard"):
        LEADERBOARDS.read(tmp_path / "board.json")


def test_tables_show_the_original_first(judged):
    grid = leaderboard_table(judged)
    assert grid.rows[0][0] == "(the original)" and len(grid.rows) == 1 + SHOWN
    assert grid.rows[1][0] == judged.standings[0].edits
    assert any("more are in the record" in note for note in grid.notes)
    below = evaluation_table(judged)
    assert len(below.rows) == 4 and below.notes == (verdict(judged),)


def standing(edits, gap=None, ppl=20.0, layers=10):
    made = apply_edits(10, parse_edits(edits)) if edits else LayerMap.identity(10)
    return RankedCandidate(
        edits=edits,
        layer_map=made,
        family="f",
        phase=1,
        ppl=Estimate(ppl, 1.0) if ppl else None,
        kld=Estimate(0.1, 0.01),
        gap=gap,
    )


BETTER, ALIKE, WORSE = Gap(-0.05, -0.08, -0.02, True), Gap(-0.01, -0.05, 0.03, False, 90), Gap(0.2, 0.1, 0.3, True)


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (BETTER, BETTER, "holds what it promised"),
        (BETTER, ALIKE, "vanishes"),
        (BETTER, WORSE, "where it is worse than the original"),
        (WORSE, WORSE, "No candidate gains: the best, 'swap 3 4', is worse than"),
        (WORSE, ALIKE, "is not significantly different from the original"),
    ],
)
def test_the_verdict_is_that_of_the_heldout_text(judged, there, here, said):
    own = BestCandidateTest(
        conditions=judged.conditions,
        original=standing(""),
        standings=(standing("swap 3 4", here), standing("delete 4", BETTER)),
    )
    board = replace(judged, standings=(standing("swap 3 4", there), standing("delete 4", there)), judgement=own)
    assert said in verdict(board)
    assert ("Better than the original here: 'delete 4'" in verdict(board)) == (here is not BETTER)


def test_a_search_by_another_figure_is_judged_by_perplexity(judged):
    own = BestCandidateTest(
        conditions=judged.conditions, original=standing(""), standings=(standing("swap 3 4", WORSE),)
    )
    board = replace(judged, by="kld", standings=(standing("swap 3 4", ALIKE),), judgement=own)
    assert "'swap 3 4', the first by KLD to the original, is worse than the original in perplexity" in verdict(board)


def test_chance_is_said_where_there_are_many(whole):
    notes = leaderboard_table(whole[0].board).notes
    count = len(whole[0].board.standings)
    assert any(f"of {count} that gain nothing about 1 lie below 0 by chance" in note for note in notes)


def test_equals_stand_in_an_order_of_their_own():
    same = [standing(edits) for edits in ("swap 3 4", "delete 4", "delete 5", "repeat 3")]
    assert ordered(same, "ppl") == ordered(reversed(same), "ppl")
    assert [len(each.layer_map) for each in ordered(same, "ppl")] == [9, 9, 10, 11]
    scored = [
        replace(each, score=Estimate(50.0, 5.0)) for each in (standing("delete 4", ppl=21.0), standing("repeat 3"))
    ]
    assert [each.edits for each in ordered(scored, "score")] == ["repeat 3", "delete 4"]  # equal scores: the perplexity
    broken = standing("delete 1", ppl=None)
    assert ordered([broken, *same], "ppl")[-1] == broken
