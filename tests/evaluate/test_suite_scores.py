"""Scores of real models at suites, their errors, and how far apart two models are."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from chat_models import ALWAYS, CHAT, SWITCHED, with_template
from reporters import Recorder

from quantplan.errors import BadUsage, ConditionsDiffer
from quantplan.evaluate.suites import scoring
from quantplan.evaluate.suites import suite_gap as gaps
from quantplan.evaluate.suites.checks import Checks, Range
from quantplan.evaluate.suites.scoring import score_file, score_loaded
from quantplan.evaluate.suites.suite import Suite, SuiteItem, SuitePart
from quantplan.evaluate.suites.suite_files import read_suite
from quantplan.evaluate.suites.suite_gap import suite_gap
from quantplan.evaluate.suites.suite_score import (
    ItemScore,
    PartScore,
    SuiteConditions,
    SuiteScore,
    mean_credit,
    mean_difference,
    with_perplexity,
)
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.evaluate.suites.tool_calls import Tool
from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.measurement import Estimate
from quantplan.report.suite_table import gaps_table

OPTIONS = Execution(1)


def item(name, text, **fields):
    return SuiteItem(name=name, text=text, **({"max_tokens": 8} | fields))


ANY = item("one", "Who?", accept=("/.+/",))  # whatever is said is right
SUITE = Suite(
    name="tiny",
    thinking_tokens=4,
    parts=(
        SuitePart(name="facts", kind="facts", weight=3, items=(ANY, item("two", "Who?", accept=("zyx",)))),
        SuitePart(name="thinking", kind="thinking", weight=1, items=(item("one", "Why?"),)),
        SuitePart(name="direct", kind="direct", weight=1, items=(item("one", "Why?"),)),
        SuitePart(name="perplexity", kind="perplexity", weight=2),
    ),
)


@pytest.fixture(scope="module")
def chatting(reference_model, tmp_path_factory):
    """The bundled model with each template."""
    folder = tmp_path_factory.mktemp("chat")
    templates = {"chat": CHAT, "switched": SWITCHED, "always": ALWAYS}
    return {name: with_template(reference_model, folder / f"{name}.gguf", each) for name, each in templates.items()}


# -- errors


@pytest.mark.parametrize(("right", "count"), [(0, 17), (17, 17), (9, 17), (1, 1)])
def test_the_error_of_a_share(right, count):
    """The binomial error of a share that Jeffreys' prior has drawn to the middle: never 0."""
    found, drawn = mean_credit([1.0] * right + [0.0] * (count - right)), (right + 0.5) / (count + 1)
    assert found.value == right / count
    assert found.stderr == pytest.approx(math.sqrt(drawn * (1 - drawn) / count))
    assert found.stderr > 0


def test_credits_between_0_and_1_vary_less():
    assert mean_credit([0.5] * 10).stderr < mean_credit([1.0, 0.0] * 5).stderr
    assert mean_difference([(0.5, 0.5)] * 10) == Estimate(0.0, pytest.approx(math.sqrt(1 / 11 / 10)))


def made(credits, weights=(1.0,), ratio=None, **fields):
    """A score with one part for each list of credits."""
    parts = [
        PartScore(
            name=f"part{number}",
            kind="facts",
            weight=weight,
            items=tuple(
                ItemScore(name=str(i), credit=c, text="", tokens=1, ending="ended") for i, c in enumerate(each)
            ),
        )
        for number, (each, weight) in enumerate(zip(credits, weights, strict=True))
    ]
    if ratio is not None:
        parts.append(PartScore(name="ppl", kind="perplexity", weight=1.0))
    score = SuiteScore(
        file="made.gguf",
        model_digest="0" * 64,
        parts=tuple(parts),
        conditions=SuiteConditions("made", "1" * 64, "cpu", "test"),
        template=True,
        thinks="never",
    )
    return with_perplexity(replace(score, **fields), ratio)


def test_the_overall_score_is_the_weighted_mean_with_its_error():
    score = made([[1.0] * 4, [0.0, 1.0]], weights=(3.0, 1.0))
    one, two = mean_credit([1.0] * 4), mean_credit([0.0, 1.0])
    assert score.overall.value == pytest.approx(100 * (3 * 1 + 0.5) / 4)
    assert score.overall.stderr == pytest.approx(100 * math.hypot(3 * one.stderr, two.stderr) / 4)
    assert score.interval[1] == 100.0
    assert [score.share(part) for part in score.parts] == [75, 25]


def test_perplexity_joins_with_its_error():
    score = made([[1.0, 0.0]], ratio=Estimate(1.25, 0.05))
    assert score.parts[-1].credit == Estimate(pytest.approx(0.8), pytest.approx(0.05 / 1.25**2))
    assert score.overall.value == pytest.approx(100 * (0.5 + 0.8) / 2)
    assert with_perplexity(score, 0.9).parts[-1].credit.value == 1.0
    assert with_perplexity(score, math.inf).parts[-1].credit.value == 0.0
    assert with_perplexity(score, None).overall.value == 50.0
    with pytest.raises(ValueError, match="above 0"):
        with_perplexity(score, 0.0)


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.9, 0.2), (0.97, 0.6), (0.05, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(chances):
    """Each item is right with a given chance: 19 of 20 intervals hold the expected score, within the simulation's error."""
    random, runs = np.random.default_rng(3), 1500
    truth, held = 100 * (2 * chances[0] + chances[1]) / 3, 0
    for _ in range(runs):
        outcomes = [
            (random.random(count) < chance).astype(float) for chance, count in zip(chances, (17, 20), strict=True)
        ]
        low, high = made(outcomes, weights=(2.0, 1.0)).interval
        held += low <= truth <= high
    assert 0.935 < held / runs < 0.985


def test_equal_models_are_rarely_told_apart_and_unequal_ones_are():
    random, runs, wrong, seen = np.random.default_rng(4), 800, 0, 0
    for _ in range(runs):
        hard = random.random(60)  # an item is as hard for both
        one, two = ((random.random(60) < hard).astype(float) for _ in range(2))
        better = np.maximum(one, random.random(60) < 0.5)
        wrong += suite_gap(made([one]), made([two])).overall.decided
        seen += suite_gap(made([better]), made([one])).overall.decided
    assert wrong / runs < 0.06
    assert seen / runs > 0.9


# -- two models


def test_a_difference_is_paired():
    """Two models that fail at the same items differ less surely than their own errors would say."""
    one = [1.0, 0.0] * 20
    other = list(one)
    other[:10] = [0.0] * 10
    gap = suite_gap(made([one]), made([other]))
    assert gap.overall.difference == pytest.approx(12.5) and gap.overall.decided
    assert gap.overall.low > 0
    unpaired = 1.96 * math.hypot(made([one]).overall.stderr, made([other]).overall.stderr)
    assert gap.overall.difference < unpaired
    assert gap.items == 40 and gap.parts["part0"].difference == pytest.approx(0.125)


def test_how_many_items_would_decide():
    """At that number, with the same share of items won and lost, the interval just leaves 0 out."""
    one, other = [1.0] * 6 + [0.0] * 4 + [1.0] * 20, [0.0] * 3 + [1.0] * 27
    gap = suite_gap(made([one]), made([other]))
    assert not gap.overall.decided and gap.overall.needed > 30
    times = math.ceil(gap.overall.needed / 30)
    assert suite_gap(made([one * times]), made([other * times])).overall.decided
    assert suite_gap(made([one]), made([one])).overall.needed is None


def test_perplexity_can_decide_and_no_item_helps_it():
    one = made([[1.0, 0.0] * 5], ratio=Estimate(1.02, 0.5))
    gap = suite_gap(one, made([[1.0, 0.0] * 5], ratio=1.0))
    assert gap.parts["ppl"].difference == pytest.approx(1 / 1.02 - 1)
    assert gap.overall.needed is None  # its own error hides it


def test_other_questions_do_not_compare():
    other = replace(made([[1.0]]).conditions, suite_digest="2" * 64)
    with pytest.raises(ConditionsDiffer, match="suite_digest 111111111111 / 222222222222.*quantplan score"):
        suite_gap(made([[1.0]]), made([[1.0]], conditions=other))
    renamed = replace(made([[1.0]]).conditions, suite="of another name")
    assert suite_gap(made([[1.0]]), made([[1.0]], conditions=renamed)).items == 1


def test_parts_that_apply_to_one_model_are_left_out():
    whole = made([[1.0] * 5, [0.0] * 5], weights=(1.0, 1.0))
    lacking = replace(whole, parts=(whole.parts[0], replace(whole.parts[1], items=(), reason="no")))
    gap = suite_gap(whole, lacking)
    assert (gap.items, gap.left_out) == (5, ("part1",))
    assert gap.overall.difference == 0


@pytest.mark.parametrize(
    ("own", "other", "sentence"),
    [
        (
            [1.0] * 40,
            [0.0] * 40,
            r"^100.0 points more than base .* the same 40 items\): significant .p < 0.05.$",
        ),
        ([1.0] * 8, [0.0] * 8, r"100.0 points more .* 8 items\): directional, not definitive$"),
        (
            [0.0] + [1.0] * 39,
            [1.0] * 40,
            r"2.5 points less .*directional, not definitive; about \d+ items would decide",
        ),
        ([1.0] * 40, [1.0] * 40, r"no difference from base on 40 items \(-5.0 to \+5.0\): directional, not definitive"),
    ],
)
def test_sentences(own, other, sentence):
    import re

    assert re.search(sentence, gaps.against(suite_gap(made([own]), made([other])), "base"))


@pytest.mark.parametrize("items", [1, 2])
def test_too_few_items_have_no_interval(items):
    """Of one item Student's t would reach to 519 of 100 points."""
    one, other = made([[1.0] * items]), made([[0.0] * items])
    gap = suite_gap(one, other)
    assert gap.overall.difference == 100 and not gap.overall.decided and math.isinf(gap.overall.high)
    assert gaps.against(gap, "base") == f"+100.0 points against base on {items} items: too few for an interval"
    ((file, part, score),) = gaps_table({"a": gap}, "base", ["part0"]).rows
    assert (file, score) == ("a", "+100.0 (too few for an interval)")
    assert part == {1: "+100 (too few for an interval)", 2: "+100 (-32 to +100) ≈"}[items]  # Tango's
    assert gaps.alone(made([[0.0]])) == "0.0 of 100 from 1 items: too few for an interval"


def test_no_interval_is_wider_than_what_can_be():
    gap = suite_gap(made([[1.0] * 5]), made([[0.0] * 5]))
    assert 0 < gap.overall.low < gap.overall.difference == gap.overall.high == 100
    ((_, part, score),) = gaps_table({"a": gap}, "base", ["part0"]).rows
    assert score == f"+100.0 (+{gap.overall.low:.1f} to +100.0) ≈"  # of fewer than 30 items
    assert part == "+100 (+0 to +100) ≈"  # five won and none lost are not significant


def test_mcnemar_decides_where_items_are_right_or_wrong():
    """Six of sixty change for the worse: significant. One more that changes for the better, and they are not."""
    base = made([[1.0] * 59 + [0.0]])
    six, seven = made([[0.0] * 6 + [1.0] * 53 + [0.0]]), made([[0.0] * 6 + [1.0] * 54])
    gap, other = suite_gap(six, base), suite_gap(seven, base)
    assert gap.parts["part0"].decided and not gap.directional("part0")
    assert gap.parts["part0"].low < -0.1 < gap.parts["part0"].high < 0
    assert not other.parts["part0"].decided and other.directional("part0") and other.parts["part0"].high >= 0
    assert gaps_table({"a": gap}, "base", ["part0"]).rows[0][1] == "-10 (-20 to -3)"
    assert suite_gap(made([[0.0] * 6 + [1.0] * 23]), made([[1.0] * 29])).directional("part0")  # fewer than 30


def test_credits_between_are_compared_by_their_means():
    one, other = made([[0.5] * 40]), made([[0.4] * 40])
    graded = [replace(each, parts=(replace(each.parts[0], kind="math"),)) for each in (one, other)]
    assert suite_gap(*graded).parts["part0"].difference == pytest.approx(0.1)


def test_items_longer_than_the_context_do_not_count():
    base, other = made([[1.0, 1.0, 0.0, 1.0]]), made([[0.0, 1.0, 0.0, 1.0]])
    long = [replace(each, credit=0.0, ending="too long") for each in base.parts[0].items[:1]]
    short = replace(base, parts=(replace(base.parts[0], items=(*long, *base.parts[0].items[1:])),))
    assert short.items == 3 and short.overall.value == pytest.approx(200 / 3)
    gap = suite_gap(short, other)
    assert gap.items == 3 and gap.overall.difference == 0
    gone = replace(
        base, parts=(replace(base.parts[0], items=tuple(replace(i, ending="too long") for i in base.parts[0].items)),)
    )
    with pytest.raises(ValueError, match="no part of the suite applies to both"):
        suite_gap(gone, other)


def test_sentences_of_one_model():
    assert gaps.alone(made([[1.0] * 40])).endswith("from 40 items")
    assert gaps.alone(made([[1.0] * 4])).endswith("from 4 items: directional, not definitive")


# -- real models


def test_a_model_without_a_template(reference_model):
    recorder = Recorder()
    with Engine(reference_model, EngineOptions(execution=OPTIONS)) as engine:
        score = score_loaded(engine, read_model(reference_model).metadata, SUITE, report=recorder)
    assert not score.template and score.thinks == "never"
    assert recorder.events[-1][1:] == (2, 2)
    assert [part.applies for part in score.parts] == [True, False, False, False]
    assert score.parts[1].reason == "the file has no chat template"
    assert [each.credit for each in score.parts[0].items] == [1, 0]
    first, second = score.parts[0].items
    assert first.text == second.text and first.text.strip() and first.tokens == 8
    assert score.overall.value == 50 and score.items == 2
    assert score.notes == ('the file has no chat template: questions were asked as "Question: ... Answer:"',)


@pytest.mark.parametrize(
    ("name", "applies", "reason"),
    [
        ("chat", [True, False, False, False], "its chat template does not support thinking"),
        ("switched", [True, True, True, False], ""),
        ("always", [True, True, False, False], "its chat template cannot switch thinking off"),
    ],
)
def test_parts_apply_as_the_template_thinks(chatting, name, applies, reason):
    score = score_file(chatting[name], SUITE, OPTIONS)
    assert score.template and [part.applies for part in score.parts] == applies
    assert score.parts[2].reason == reason
    if name == "always":
        assert score.parts[0].items[0].text.startswith("<think>")
        # it thinks unasked, and gets the tokens for it
        assert score.parts[0].items[0].tokens == 8 + SUITE.thinking_tokens
        assert score.parts[1].items[0].tokens == 8
        assert score.parts[0].items[0].credit == 0  # nothing is said after thinking


TOOLS = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for m in messages %}<|endoftext|>{{ m.role }}: "
    "{{ m.content }}\n{% endfor %}assistant:"
)
PING = Tool("ping", "Nothing", '{"type": "object", "properties": {}}')
ABILITIES = Suite(
    name="abilities",
    parts=(
        SuitePart(name="tools", kind="tools", weight=1, items=(item("one", "Who?", tools=(PING,)),)),
        SuitePart(
            name="instructions",
            kind="instructions",
            weight=1,
            items=(item("one", "Who?", checks=Checks(words=Range(1, 20))),),
        ),
        SuitePart(name="code", kind="code", weight=1, items=(item("one", "Who?", tests=("f(1) == 1",)),)),
        SuitePart(name="ending", kind="ending", weight=1, items=(item("one", "Who?"), item("two", "x " * 2000))),
    ),
)


def test_abilities_of_a_model_without_a_template(reference_model):
    score = score_file(reference_model, ABILITIES, OPTIONS)
    tools, instructions, code, ending = score.parts
    assert tools.reason == "the file has no chat template to offer tools in"
    assert instructions.items[0].remark == "does not end" and code.items[0].remark == "no program"
    assert [(each.ending, each.counts) for each in ending.items] == [("length", True), ("too long", False)]
    assert ending.items[0].remark == "does not end"
    assert "1 of 4 items do not count: with their answers they are longer than the model's context" in score.notes
    assert score.items == 3


def test_tools_are_offered_in_the_template(reference_model, tmp_path):
    model = with_template(reference_model, tmp_path / "tools.gguf", TOOLS)
    score = score_file(model, replace(ABILITIES, parts=ABILITIES.parts[:1]), OPTIONS)
    assert score.parts[0].applies and score.parts[0].credit.value == 1  # it calls nothing, and nothing is to be called
    plain = score_file(with_template(reference_model, tmp_path / "plain.gguf", CHAT), ABILITIES, OPTIONS)
    assert plain.parts[0].reason == "its chat template does not show tools" and plain.parts[1].applies


def test_a_part_that_does_not_fit_the_context_does_not_apply(reference_model):
    long = replace(ABILITIES.parts[3], items=ABILITIES.parts[3].items[1:])
    score = score_file(reference_model, replace(ABILITIES, parts=(ABILITIES.parts[1], long)), OPTIONS)
    assert score.parts[1].reason == "none of its 1 items fits the model's context"


def test_an_answer_that_the_context_cuts_short_does_not_count(reference_model):
    near = "the old man said " * 245  # leaves some 40 of 1024 tokens
    part = replace(ABILITIES.parts[3], items=(item("near", near, max_tokens=200), item("one", "Who?")))
    first, second = score_file(reference_model, replace(ABILITIES, parts=(part,)), OPTIONS).parts[0].items
    assert (first.ending, second.ending) == ("too long", "length") and 0 < first.tokens < 200


def test_the_weights_that_count_are_those_in_memory(reference_model):
    """An output of zeros ends every answer at once: the score of the loaded model falls, and comes back."""
    model = read_model(reference_model)
    tensor, suite = model.by_name["output.weight"], replace(SUITE, parts=SUITE.parts[:1])
    suite = replace(suite, parts=(replace(suite.parts[0], items=(item("one", "Who?", accept=("/.+/",)),)),))
    with Engine(reference_model, EngineOptions(execution=Execution(1), swappable=True)) as engine:
        before = score_loaded(engine, model.metadata, suite)
        engine.find_weights({tensor.name})
        engine.put(tensor.name, np.zeros(tensor.bytes, np.uint8))
        silent = score_loaded(engine, model.metadata, suite)
        engine.put(tensor.name, np.full(tensor.bytes // 2, np.nan, np.float16).view(np.uint8))
        broken = score_loaded(engine, model.metadata, suite)
    assert [each.overall.value for each in (before, silent, broken)] == [100, 0, 0]
    assert silent.parts[0].items[0].remark == "no answer"
    assert "1 of 1 items broke off: NaN or infinite logits" in broken.notes


def test_finished_models_are_kept(reference_model, tmp_path, monkeypatch):
    first = score_file(reference_model, SUITE, OPTIONS, 1.1, cache=tmp_path)

    def never(*_args, **_named):
        raise AssertionError("asked again")

    monkeypatch.setattr(scoring, "generate", never)
    again = score_file(reference_model, replace(SUITE, name="renamed"), OPTIONS, 1.1, cache=tmp_path)
    assert replace(again, conditions=first.conditions) == first
    assert again.conditions.suite == "renamed"
    assert again.parts[-1].credit.value == pytest.approx(1 / 1.1)
    assert score_file(reference_model, SUITE, OPTIONS, cache=tmp_path).parts[-1].reason.startswith("not measured")
    harder = replace(SUITE, parts=(replace(SUITE.parts[0], instruction="Now."), *SUITE.parts[1:]))
    with pytest.raises(AssertionError, match="asked again"):
        score_file(reference_model, harder, OPTIONS, cache=tmp_path)


def test_only_perplexity(reference_model, tmp_path):
    suite = replace(SUITE, parts=SUITE.parts[-1:])
    assert score_file(reference_model, suite, OPTIONS, 2.0).overall == Estimate(50.0, 0.0)
    with pytest.raises(BadUsage, match=r"no part of the suite tiny applies to .*prose-10m.*perplexity: not measured"):
        score_file(reference_model, suite, OPTIONS)


def test_records_come_back(chatting, tmp_path):
    score = score_file(chatting["switched"], SUITE, OPTIONS, Estimate(1.3, 0.1))
    assert SUITE_SCORES.decode(json.loads(json.dumps(SUITE_SCORES.encode(score)))) == score
    SUITE_SCORES.write(score, tmp_path / "score.json")
    assert SUITE_SCORES.read(tmp_path / "score.json") == score
    fields = SUITE_SCORES.encode(score)
    assert fields["score"] == score.overall.value and fields["items"] == 4
    assert fields["parts"][0]["items"][0]["text"] == score.parts[0].items[0].text


def test_the_suite_short_on_the_bundled_model(reference_model):
    """It writes prose and knows nothing: no fact and no sum is right, some prose is."""
    score = score_file(reference_model, read_suite("short"), OPTIONS)
    by_name = {part.name: part for part in score.parts}
    assert by_name["facts"].credit.value < 0.2 and by_name["feelings"].credit.value < 0.2
    assert 0.02 < by_name["coherence"].credit.value < 0.8
    assert by_name["math"].credit.value < 0.2
    assert 0 < score.overall.value < 30 and 1 < score.overall.stderr < 5
