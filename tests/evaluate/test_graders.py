"""Credits for answers: right, wrong, and nearly right."""

from decimal import Decimal

import pytest

from quantplan.evaluate.suites import graders
from quantplan.evaluate.suites.answers import Reply, finds, normal, numbers, repeated, words
from quantplan.evaluate.suites.checks import Checks, Range
from quantplan.evaluate.suites.suite import SuiteItem, SuitePart

COMMON = (
    "the",
    "of",
    "and",
    "to",
    "a",
    "in",
    "is",
    "it",
    "that",
    "was",
    "for",
    "on",
    "with",
    "at",
    "as",
    "by",
    "he",
    "not",
)


def part(kind):
    return SuitePart(name=kind, kind=kind, weight=1.0, common_words=COMMON)


def credit(kind, said, opened=False, **fields):
    item = SuiteItem(**{"name": "one", "text": "?", "max_tokens": 8} | fields)
    return graders.GRADERS[kind](part(kind), item, Reply(said, opened))


# -- how answers are read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("  The CAPITAL,\n is Zürich! ", "the capital is zurich"),
        ("300,000 km/s", "300000 km s"),
        ("about 3.14.", "about 3.14"),
        ("CO₂ (gas)", "co2 gas"),
        ("Straße", "strasse"),
    ],
)
def test_normal(text, read):
    assert normal(text) == read


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("17 x 23 = 391.", ["17", "23", "391"]),
        ("-5 and 3-4 and (2)-1", ["-5", "3", "4", "2", "1"]),
        ("−7.5 °C", ["-7.5"]),
        ("1,234,567.25 or 1e3", ["1234567.25", "1e3"]),
        ("$\\boxed{42}$, H2O, v1.2", ["42"]),
        ("none", []),
        ("1e99999999999 is no exponent of ours", ["1"]),
    ],
)
def test_numbers(text, found):
    assert numbers(text) == [Decimal(each) for each in found]


def test_whole_words_only():
    assert finds("Au", normal("It is Au."))
    assert not finds("Au", normal("Auckland, Nauru"))
    assert finds("carbon dioxide", normal("Carbon-dioxide"))
    assert finds("/14(th)?( of)? april/", normal("the 14th of April"))
    assert not finds("/14(th)?( of)? april/", normal("114 April"))


def test_repeated_runs():
    assert repeated(["a", "b", "c", "d"], 2) == 0
    assert repeated(["a", "b", "a", "b", "a", "b"], 2) == pytest.approx(3 / 5)
    assert repeated(["a", "b"], 3) == 0
    assert words("Don't stop 12 O’Neill's") == ["don't", "stop", "o’neill's"]


@pytest.mark.parametrize(
    ("text", "opened", "said"),
    [
        ("Paris.", False, "Paris."),
        ("<think>\nwell\n</think>\n\nParis.", False, "Paris."),
        ("well </think> Paris.", True, "Paris."),
        ("<think> it may be Paris", False, ""),
        ("it may be Paris", True, ""),
        ("<think>a</think>b<think>c", False, "b"),
    ],
)
def test_what_is_said_after_thinking(text, opened, said):
    assert Reply(text, opened).said == said


# -- facts


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("The chemical symbol of gold is Au.", 1),
        ("**Au**", 1),
        ("AU", 1),
        ("Aurum", 0),
        ("The symbol is Ag.", 0),
        ("", 0),
        ("<think>Au</think> It is Ag.", 0),
    ],
)
def test_facts(said, value):
    assert credit("facts", said, accept=("Au",)).value == value


def test_a_rejected_answer_spoils_an_accepted_one():
    fields = {"accept": ("Canberra",), "reject": ("Sydney",)}
    assert credit("facts", "Canberra.", **fields).value == 1
    found = credit("facts", "Sydney or Canberra.", **fields)
    assert (found.value, found.remark) == (0, "says Sydney")


# -- instructions, code, endings


def test_instructions():
    checks = Checks(words=Range(1, 2), ends="?")
    assert credit("instructions", "<think>So many words here</think> Who, me?", checks=checks).value == 1
    assert credit("instructions", "It is me, Ann.", checks=checks) == graders.Credit(
        0.0, "4 words, not 1 to 2; does not end with ?"
    )
    item = SuiteItem(name="one", text="?", max_tokens=8, checks=checks)
    assert graders.instructions(part("instructions"), item, Reply("Me?", ended=False)).remark == "does not end"


@pytest.mark.parametrize(
    ("said", "value", "remark"),
    [
        ("```python\ndef f(x):\n    return x + 1\n```", 1, ""),
        ("<think>def f(x): return 0</think>\ndef f(x): return x + 1", 1, ""),
        ("def f(x): return x", 0, "not true: f(1) == 2"),
        ("I do not know.", 0, "no program"),
    ],
)
def test_code(said, value, remark):
    assert credit("code", said, tests=("f(1) == 2",)) == graders.Credit(value, remark)


@pytest.mark.parametrize(
    ("said", "ended", "value", "remark"),
    [
        ("It is a long river with many bridges.", True, 1, ""),
        ("A river.", True, 0, "2 words, 5 needed"),
        ("It is a long river with many", False, 0, "does not end"),
        ("It is a river. " * 9, False, 0, "goes round in circles"),
        ("<think>It is a river. It is long.</think>", True, 0, "0 words, 5 needed"),
    ],
)
def test_ending(said, ended, value, remark):
    item = SuiteItem(name="one", text="?", max_tokens=8, at_least=5)
    assert graders.ending(part("ending"), item, Reply(said, ended=ended)) == graders.Credit(value, remark)


# -- math


@pytest.mark.parametrize(
    ("said", "answer", "right", "digits"),
    [
        ("391", "391", 3, 3),
        ("17 x 23 = 391.0", "391", 3, 3),
        ("390", "391", 2, 3),
        ("396", "391", 2, 3),
        ("397", "391", 1, 3),
        ("491", "391", 0, 3),
        ("-391", "391", 0, 3),
        ("39.1", "391", 0, 3),
        ("999", "1000", 3, 4),
        ("2.64575", "2.6458", 5, 5),
        ("2.6457", "2.6458", 4, 5),
        ("2.65", "2.6458", 3, 5),
        ("0.438", "0.4375", 3, 4),
        ("7", "7", 1, 1),
        ("8", "7", 0, 1),
        ("0", "0", 1, 1),
        ("1", "0", 0, 1),
        ("8,515", "8515", 4, 4),
    ],
)
def test_math_counts_right_digits(said, answer, right, digits):
    found = credit("math", said, answer=answer)
    assert found.value == pytest.approx((right / digits) ** 2)
    assert bool(found.remark) == (right < digits)


def test_math_takes_the_last_number_and_needs_one():
    assert credit("math", "391, no: 400", answer="391").value == pytest.approx(1 / 9)
    assert credit("math", "three hundred", answer="391") == graders.Credit(0.0, "no number")


# -- coherence and repetition

GOOD = "were full of fresh bread and rolls. The baker stood at the door with a smile, and the smell of it was in the street."


def test_good_prose_is_coherent():
    assert credit("coherence", GOOD, keywords=("bread",), at_least=12).value == 1


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        (GOOD.replace("bread and rolls", "paint and nails"), 0.5, 0.5),  # off the subject
        ("bread and bread and bread and bread and bread and bread and bread", 0.0, 0.35),  # goes round
        ("bread xq zzv plork dwim gnarf blik wub spla trok mumf grel", 0.0, 0.01),  # not of the language
        ("{bread}=[0x3f]; //#@!$ for(a)=%%^^&& <the>{of}|~~|| [[and]] == to;; {in}{is}{it}", 0.0, 0.75),  # not prose
        ("the bread was good", 0.0, 0.0),  # too short
        ("", 0.0, 0.0),
    ],
)
def test_what_is_not_coherent(said, low, high):
    assert low <= credit("coherence", said, keywords=("bread",), at_least=8).value <= high


def test_half_of_the_keywords():
    assert credit("coherence", GOOD, keywords=("bread", "butter"), needed=2).value == pytest.approx(0.75)


def test_repetition():
    assert credit("repetition", GOOD, at_least=20).value == 1
    twice = credit("repetition", f"{GOOD} {GOOD}", at_least=20).value
    assert 0.45 < twice < 0.6
    assert credit("repetition", GOOD, at_least=2 * len(words(GOOD))).value == pytest.approx(0.5)
    assert credit("repetition", "la " * 100, at_least=20).value < 0.05
    assert credit("repetition", "", at_least=20).value == 0


# -- thinking and not


@pytest.mark.parametrize(
    ("said", "opened", "value"),
    [
        ("<think>\nSeven is odd.\n</think>\n\nYes.", False, 1),
        ("Seven is odd.\n</think>\n\nYes.", True, 1),
        ("<think>\nSeven is odd.\n</think>\n\nNo.", False, 0.5),
        ("<think>\nSeven is odd.\n</think>", False, 0.5),
        ("<think>\n\n</think>\n\nYes.", False, 0),
        ("<think>\nSeven is odd. Yes.", False, 0),
        ("Yes.", False, 0),
        ("Yes. <think>sure</think> Yes.", False, 0),
    ],
)
def test_thinking(said, opened, value):
    assert credit("thinking", said, opened, accept=("yes",)).value == value


@pytest.mark.parametrize(
    ("said", "opened", "value"),
    [
        ("Tuesday.", False, 1),
        ("Wednesday.", False, 0.5),
        ("<think>hm</think> Tuesday.", False, 0),
        ("hm</think> Tuesday.", False, 0),
        ("...", False, 0),
        ("Tuesday", True, 0),
    ],
)
def test_direct(said, opened, value):
    assert credit("direct", said, opened, accept=("Tuesday",)).value == value


# -- feelings

FEELINGS = (("anger", 7.0), ("joy", 0.0))


def test_feelings_are_scored_by_distance():
    assert credit("feelings", "anger: 7\njoy: 0", feelings=FEELINGS).value == 1
    # random whole numbers from 0 to 10 are 34/11 and 5 away on average
    assert credit("feelings", "Anger - 8/10\n**Joy**: 1", feelings=FEELINGS).value == pytest.approx(
        1 - 2 / (34 / 11 + 5)
    )
    assert credit("feelings", "anger: 0\njoy: 10", feelings=FEELINGS).value == 0


def test_random_feelings_are_worth_next_to_nothing():
    values = [
        credit("feelings", f"anger: {one}\njoy: {other}", feelings=FEELINGS).value
        for one in range(11)
        for other in range(11)
    ]
    assert 0 < sum(values) / len(values) < 0.2


@pytest.mark.parametrize(
    "said",
    ["anger: 7", "anger: 7\njoy: none", "anger: 7\njoy: 11", "angered: 7\njoy: 0", "7, 0", "anger: -7\njoy: 0", ""],
)
def test_feelings_that_cannot_be_read(said):
    found = credit("feelings", said, feelings=FEELINGS)
    assert found.value == 0 and found.remark.startswith("no intensity of")


@pytest.mark.parametrize(
    "said", ["anger (0-10): 7, joy (0-10): 0", "| anger | 7 |\n| joy | 0 |", "1. Anger – 7.0\n2. Joy – 0"]
)
def test_feelings_in_other_layouts(said):
    assert credit("feelings", said, feelings=FEELINGS).value == 1


# -- reasoning

TURNS = {"choices": ("north", "east", "south", "west", "south west"), "answer": "south"}


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("South.", 1),
        ("You are facing south now, yes: South!", 1),
        ("You start north, so you face south.", 1),
        ("north, south", 0),
        ("South west", 0),
        ("Southern", 0),
        ("north", 0),
        ("I cannot say.", 0),
        ("south, so north", 0),
        ("The answer is either north or south", 0),
    ],
)
def test_choices(said, value):
    assert credit("reasoning", said, **TURNS).value == value


@pytest.mark.parametrize(("said", "value"), [("21 eggs", 1), ("36 - 15 = 21.0", 1), ("22", 0), ("2.1", 0), ("none", 0)])
def test_exact_numbers(said, value):
    assert credit("reasoning", said, answer="21").value == value


def test_accepted_words():
    fields = {"accept": ("/14(th)?( of)? april|april( the)? 14(th)?/",)}
    assert credit("reasoning", "April 14th", **fields).value == 1
    assert credit("reasoning", "15 April", **fields).value == 0
