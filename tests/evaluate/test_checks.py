"""Instructions that a program can check, and the languages it tells apart."""

import json

import pytest

from quantplan.evaluate.suites.checks import ANY_JSON, Checks, Range, failures, sentences
from quantplan.evaluate.suites.languages import LANGUAGES, language_of


def exact(number):
    return Range(number, number)


BOOK = json.dumps({"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]})


@pytest.mark.parametrize(
    ("checks", "right", "wrong"),
    [
        ({"words": exact(3)}, "Don't say well-known.", "One two."),
        ({"words": Range(2, None)}, "one 2", "one"),
        ({"sentences": exact(2)}, 'He said "No." She left!', "One. Two. Three."),
        ({"sentences": exact(1)}, "It costs 3.50 today", "It rains. It snows"),
        ({"lines": exact(2)}, "a\n\nb\n", "a\nb\nc"),
        ({"paragraphs": exact(2)}, "a\nb\n\nc", "a\n\nb\n \nc"),
        ({"characters": Range(0, 5)}, " abcde ", "abcdef"),
        ({"bullets": exact(2)}, "Here:\n- a\n* b", "- a\n-b"),
        ({"numbered": exact(2)}, "1. a\n2) b", "1. a\n3. b"),
        ({"contains": ("sea", "/ships?/")}, "Ships on the sea", "Ships at the seaside"),
        ({"without": ("sea",)}, "The seaside", "The sea."),
        ({"no_characters": "w"}, "a bee", "A Wasp"),
        ({"no_characters": ","}, "one and two", "one, two"),
        ({"times": (("sea", exact(2)),)}, "Sea, the sea; seaside", "sea sea sea"),
        ({"begins": "Although"}, "**Although** it rains", "It rains although"),
        ({"begins": "["}, "[so]", "so]"),
        ({"ends": "That is all."}, "Yes.\nThat is  all.", "That is all. Bye."),
        ({"ends": "?"}, "Why?", "Why? So."),
        ({"case": "upper"}, "ALL 3 OF THEM", "ALL of them"),
        ({"case": "lower"}, "all of them", "All of them"),
        ({"language": "de"}, "Der Hund und die Katze sind nicht auf dem Dach.", "The dog and the cat are on the roof."),
        ({"initials": "SEA"}, "Sun\n- every day\nall of it", "Sun\nall\nevery"),
        ({"csv": 2}, "a,b\n1,2", "a,b\n1,2,3"),
        ({"csv": 2}, "```csv\na,b\n1,2\n```", "a\nb"),
        ({"json": ANY_JSON}, "```json\n[1]\n```", "Here: [1]"),
        ({"json": BOOK}, '{"year": 1999.0}', '{"year": "1999"}'),
        ({"json": BOOK}, '{"year": 1999}', '{"year": 1999'),
        ({"exactly": "The door is open."}, '"The door is open."', "The door is open. Really."),
        ({"exactly": "a\nb"}, "a\nb\n", "b\na"),
    ],
)
def test_each_check(checks, right, wrong):
    assert failures(right, Checks(**checks)) == []
    assert len(failures(wrong, Checks(**checks))) == 1


def test_all_that_fails_is_named():
    checks = Checks(words=Range(5, 9), contains=("sea",), ends="Bye.")
    assert failures("A walk.", checks) == ["2 words, not 5 to 9", "no sea", "does not end with Bye."]
    assert failures(" ", checks) == ["no answer"]
    assert checks.names == ["words", "contains", "ends"]


def test_brackets_without_end_are_no_json():
    assert failures("[" * 100_000, Checks(json=ANY_JSON)) == ["is not JSON"]


@pytest.mark.parametrize(("text", "count"), [("One", 1), ("One. Two", 2), ("A... b!", 2), ("(One.) Two?", 2), ("", 0)])
def test_sentences(text, count):
    assert sentences(text) == count


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("El mercado es muy grande y la gente compra fruta fresca.", "es"),
        ("Le marché est grand et les gens achètent des fruits frais.", "fr"),
        ("Il mercato è molto grande e la gente compra della frutta.", "it"),
        ("O mercado é muito grande e as pessoas compram frutas.", "pt"),
        ("De markt is heel groot en de mensen kopen er fruit.", "nl"),
        ("Der Markt ist sehr groß und die Leute kaufen Obst.", "de"),
        ("The market is very large and people buy fruit there.", "en"),
        ("Рынок очень большой, и люди покупают там фрукты.", "ru"),
        ("市場はとても大きくて、人々は果物を買います。", "ja"),
        ("市场很大，人们在那里买水果。", "zh"),
        ("시장은 아주 크고 사람들은 과일을 삽니다.", "ko"),
        ("Η αγορά είναι πολύ μεγάλη.", "el"),
        ("banana banana banana banana", ""),
        ("123 456", ""),
        ("", ""),
    ],
)
def test_languages(text, language):
    assert language_of(text) == language
    assert not language or language in LANGUAGES
