"""An operated model's card: what was done in words, what it changed, where the edits come from; nothing that is not known."""

from dataclasses import replace

import pytest
from card_parts import NOBODY, card, published, rows
from measurement_parts import CONDITIONS, MEASUREMENT

from quantplan.comparison import Gap
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteConditions, SuiteScore
from quantplan.measurement import Estimate
from quantplan.report.card import card_text
from quantplan.report.card_surgery import in_words
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import parse_edits
from quantplan.surgery.history import History
from quantplan.surgery.search.leaderboard import BestCandidateTest, Leaderboard, RankedCandidate

EDITS = "delete 10; swap 11 12"


def map_of(edits=EDITS):
    return apply_edits(28, parse_edits(edits))


def history(edits=EDITS, **fields):
    return History(edits, map_of(edits), "Qwen3-1.7B-F16.gguf", (), **fields)


def operated(found):
    return card_text(published([0.1, 0.2, 0.3]), NOBODY, {}, found)


def standing(edits, ppl, gap):
    figure = Gap(gap, gap - 0.01, gap + 0.01, abs(gap) > 0.01)
    figures = {"ppl": Estimate(ppl, 0.5), "kld": Estimate(0.1, 0.01), "gap": figure}
    return RankedCandidate(edits=edits, layer_map=map_of(edits), family="delete", phase=1, **figures)


def board(**fields):
    original = replace(
        standing("swap 0 1", 16.2, 0.0), edits="", layer_map=apply_edits(28, parse_edits("keep 0-27")), gap=None
    )
    rows = (standing(EDITS, 15.7, -0.03), standing("delete 10", 15.9, -0.02), standing("delete 3", 19.0, 0.2))
    fields = {
        "judgement": BestCandidateTest(
            conditions=CONDITIONS, original=original, standings=(standing(EDITS, 15.8, -0.02),)
        )
    } | fields
    return Leaderboard(
        model="Qwen3-1.7B-F16.gguf",
        blocks=28,
        by="ppl",
        conditions=CONDITIONS,
        families=("delete", "swap"),
        original=original,
        standings=rows,
        **fields,
    )


def score(right, digest):
    items = tuple(ItemScore(name=str(n), credit=float(n < right), text="", tokens=3, ending="eog") for n in range(17))
    parts = (
        PartScore(name="facts", kind="facts", weight=3, items=items),
        PartScore(name="thinking", kind="thinking", weight=1, reason="the file has no chat template"),
    )
    where = SuiteConditions(suite="default", suite_digest="s", backend="cpu", llama_cpp="0.3.36")
    return SuiteScore(file="a.gguf", model_digest=digest, parts=parts, conditions=where, template=False, thinks="never")


def test_a_model_that_nobody_operated_on_has_no_such_part():
    assert "Layer surgery" not in card(published([0.1]))


def test_operations_in_words_with_the_command():
    text = operated(history())
    assert "has 27 layers, made of the 28 of `Qwen3-1.7B-F16.gguf`" in text
    assert "1. **Delete** layer 10.\n2. **Swap** 11 and 12." in text
    assert "new order: `0-9 11 13 12 14-27`" in text and "byte for byte." in text
    assert 'quantplan surgery apply Qwen3-1.7B-F16.gguf "delete 10; swap 11 12"' in text
    assert "Against the original" not in text and "Leaderboard" not in text
    text = operated(history(out="my cut-F16.gguf", name="my cut"))
    assert f"""apply Qwen3-1.7B-F16.gguf "{EDITS}" --name 'my cut' --out 'my cut-F16.gguf'\n""" in text


def test_the_beginning_says_that_it_is_no_plain_quantization():
    text = operated(history())
    assert (
        "GGUF files of model, a model made of the layers of `Qwen3-1.7B-F16.gguf` without training, for llama.cpp"
        in text
    )
    assert "- layer-surgery\n" in text and "layer-surgery" not in card(published([0.1]))


def test_what_was_computed_is_said():
    found = replace(history("blend 20 22 0.5"), reencoded=("blk.21.attn_q.weight", "blk.21.attn_k.weight"))
    assert "2 tensors were computed, all others are the original's" in operated(found)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("delete 3 7-9", "**Delete** layers 3, 7-9."),
        ("keep 0-9", "**Keep** layers 0-9, in this order."),
        ("swap 12 13, 16 17", "**Swap** 12 and 13, 16 and 17."),
        ("move 5 after 20", "**Move** layer 5 after layer 20."),
        ("bridge 5 after 20", "**Bridge**: a copy of layer 5 is put in after layer 20."),
        ("repeat 8-11", "**Repeat** layers 8-11: passed twice."),
        ("triple 8", "**Repeat** layer 8: passed three times."),
        ("repeat 8 x5", "**Repeat** layer 8: passed 5 times."),
        ("reverse 8-11", "**Reverse** layers 8-11."),
        ("cycle 8-11", "**Cycle** layers 8-11 by 1."),
        ("blend 20 22 0.25", "**Blend**: 0.75 of layer 20 and 0.25 of layer 22, put in after layer 20."),
        ("blend 20 22 into 21", "**Blend**: 0.5 of layer 20 and 0.5 of layer 22, in the place of layer 21."),
        ("merge 8-9", "**Merge** 8-9 into their average."),
        ("merge 4-5 6-7", "**Merge** 4-5 and 6-7 into their averages."),
        ("scale 7 0.9", "**Scale** the matrices of layer 7 by 0.9."),
        ("scale 7 0.9 ffn_down", "**Scale** ffn_down of layer 7 by 0.9."),
    ],
)
def test_every_edit_has_words(edit, words):
    assert in_words(parse_edits(edit)[0]) == words


def test_the_original_stands_beside():
    text = operated(history(measured=MEASUREMENT, scores=(score(15, "a"), score(17, "b"))))
    table = text[text.index("### Against the original") :]
    assert "| Layers | 28 | 27 |" in table
    assert "| facts, 100 % | 88.2" in table and "| **Overall, of 100** |" in table
    assert "Directional, not definitive" in table or "directional, not definitive" in table
    assert "thinking does not apply (the file has no chat template): its weight goes to the others." in table


def test_the_leaderboard_says_what_chose_and_what_judged():
    text = operated(history(leaderboard=board()))
    table = rows(text, "Rank")
    assert table[0][-1] == "Evaluation text: ln(PPL/original)"
    assert table[2][1] == "`delete 10; swap 11 12` (this model)" and table[2][-1] == "-0.0200 (-0.0300 to -0.0100)"
    assert table[3][-1] == "-" and table[-1][1] == "the original"
    assert "3 candidates of the families delete, swap" in text and "looks better than it is" in text


def test_a_leaderboard_without_judgement():
    assert "Evaluation text" not in operated(history(leaderboard=board(judgement=None)))
