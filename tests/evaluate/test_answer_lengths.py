"""Length of answers: loops, answers that are cut off, and two models against each other."""

import json
import math

import pytest

from quantplan.evaluate.suites.answer_lengths import answer_lengths, length_gap
from quantplan.evaluate.suites.loops import loops
from quantplan.evaluate.suites.suite_score import ItemScore, PartScore, SuiteConditions, SuiteScore
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.records.codec import encode
from quantplan.report.suite_table import lengths_table

ROUND = "I cannot say that for sure. " * 5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ROUND, True),
        ("A beginning that is different. " + ROUND + "I cannot say", True),
        ("ha " * 30, True),
        ("x" * 60, True),
        ("Step 1: go on. Step 2: go on. Step 3: go on. Step 4: go on. Step 10: go on.", True),
        ("line of a list\n" * 5, True),
        ("ha " * 10, False),
        (ROUND + "But then it went on to something else, and so it ended.", False),
        ("- apples are red\n- pears are green\n- plums are blue\n- figs are brown\n", False),
        ("Twice the very same sentence of some length. " * 2, False),
        ("", False),
    ],
)
def test_loops(text, found):
    assert loops(text) is found


def scored(*answers, kind="facts", file="a.gguf"):
    items = tuple(
        ItemScore(name=str(number), credit=0.0, text=text, tokens=tokens, ending=ending)
        for number, (text, tokens, ending) in enumerate(answers)
    )
    part = PartScore(name="one", kind=kind, weight=1.0, items=items)
    conditions = SuiteConditions("s", "1" * 64, "cpu", "llama")
    return SuiteScore(
        file=file, model_digest="c" * 64, parts=(part,), conditions=conditions, template=True, thinks="never"
    )


DONE, LOOP, CUT, LONG = ("Yes.", 4, "ended"), (ROUND, 32, "length"), ("A long one", 32, "length"), ("", 0, "too long")


def test_of_one_model():
    found = answer_lengths(scored(DONE, LOOP, CUT, DONE, LONG))
    assert (found.answers, found.tokens, found.cut_off, found.loops) == (4, 18, 0.5, 0.25)
    assert answer_lengths(scored(DONE, kind="coherence")) is None
    assert answer_lengths(scored(LONG)) is None


def test_a_loop_is_cut_off():
    assert not scored((ROUND, 30, "ended")).parts[0].items[0].loops


def test_one_against_another():
    base, other = scored(*[DONE] * 20), scored(*[LOOP] * 8, *[DONE] * 12)
    gap = length_gap(other, base)
    assert gap.tokens.ratio == pytest.approx((8 * 32 + 12 * 4) / 80) and gap.tokens.low > 1
    assert gap.loops.difference == 0.4 and gap.loops.decided and gap.cut_off == gap.loops
    assert not length_gap(base, base).loops.decided and length_gap(base, base).tokens.ratio == 1
    assert length_gap(scored(DONE), scored(DONE)) is None
    assert length_gap(scored(DONE, LONG), scored(DONE, DONE)) is None  # one pair only
    assert json.loads(json.dumps(encode(length_gap(scored(DONE, CUT), scored(CUT, DONE)))))["tokens"]["high"] is None


def test_the_table():
    base, other = scored(*[DONE] * 20, file="base"), scored(*[LOOP] * 8, *[DONE] * 12)
    table = lengths_table([base, other], {"a.gguf": length_gap(other, base)}, "base")
    assert table.headings[-3:] == ("Tokens / those of base", "Cut off: points", "Loops: points")
    assert table.rows[0] == ("base", "4.0", "0.0 %", "0.0 %", "-", "-", "-")
    assert table.rows[1][:5] == ("a.gguf", "15.2", "40.0 %", "40.0 %", table.rows[1][4])
    assert table.rows[1][6].startswith("+40.0 (+") and "≈" not in table.rows[1][6]
    assert len(lengths_table([base], {}, None).rows[0]) == 4
    assert lengths_table([scored(DONE, kind="coherence")], {}, None) is None


def test_the_record_says_which_answers_loop():
    fields = SUITE_SCORES.encode(scored(LOOP, CUT))
    assert [item["loops"] for item in fields["parts"][0]["items"]] == [True, False]
    assert math.isfinite(fields["score"])
