"""Functions of texts and dictionaries."""

import re
from collections import Counter
from typing import Any

from quantplan.evaluate.suites.generated.draw import Draw
from quantplan.evaluate.suites.generated.program_item import program_item

_WORDS = (
    "river",
    "stone",
    "lamp",
    "orange",
    "tea",
    "mountain",
    "sky",
    "paper",
    "wind",
    "garden",
    "ox",
    "table",
    "level",
    "noon",
)
_TEXTS = (
    "the quick brown fox",
    "Rain in Spain",
    "a big black bug",
    "Never odd or even",
    "to be or not to be",
    "Hello World",
)


def _letter(draw: Draw) -> dict[str, Any]:
    letter = draw.one("aeonr")
    what = f'counts how often the letter "{letter}" is in a text, as a small or as a capital letter.'
    cases = [(text,) for text in draw.some(_TEXTS, 2)] + [("",), (letter.upper() * 2 + letter,)]
    return program_item("count_letter(text)", what, lambda text: text.lower().count(letter), cases)


def _vowels(draw: Draw) -> dict[str, Any]:
    what = "counts the vowels (a, e, i, o, u, small or capital) in a text."
    cases = [(text,) for text in draw.some(_TEXTS, 2)] + [("",), ("AEIOU xyz",)]
    return program_item(
        "count_vowels(text)", what, lambda text: sum(letter in "aeiou" for letter in text.lower()), cases
    )


def _turned(draw: Draw) -> dict[str, Any]:
    what = "returns the words of a text in reverse order, with single spaces between them."
    return program_item(
        "reverse_words(text)", what, lambda text: " ".join(text.split()[::-1]), [(draw.one(_TEXTS),), ("one",), ("",)]
    )


def _same_backwards(draw: Draw) -> dict[str, Any]:
    what = "returns whether a text reads the same from left to right and from right to left, where case and spaces do not count."

    def solution(text: str) -> bool:
        plain = text.lower().replace(" ", "")
        return plain == plain[::-1]

    return program_item(
        "reads_backwards(text)", what, solution, [("Never odd or even",), (draw.one(_TEXTS[:3]),), ("Level",), ("ab",)]
    )


def _long_words(draw: Draw) -> dict[str, Any]:
    least = draw.whole(3, 5)
    what = f"returns a list of the words in a list that have more than {least} letters, in their order."
    cases = [(draw.some(_WORDS, 5),), (draw.some(_WORDS, 4),), ([],)]
    return program_item("long_words(words)", what, lambda words: [word for word in words if len(word) > least], cases)


def _shifted(draw: Draw) -> dict[str, Any]:
    places = draw.whole(2, 11)
    what = f"moves every small letter of a text forward by {places} places in the alphabet, from z on to a, and keeps all else."

    def solution(text: str) -> str:
        return "".join(chr((ord(c) - 97 + places) % 26 + 97) if "a" <= c <= "z" else c for c in text)

    return program_item("shift(text)", what, solution, [(draw.one(_WORDS),), ("xyz",), ("A b!",)])


def _runs(draw: Draw) -> dict[str, Any]:
    what = 'shortens a text by writing each run of one letter as the letter and its length: "aaab" gives "a3b1".'

    def solution(text: str) -> str:
        return "".join(f"{run[0][0]}{len(run[0])}" for run in re.finditer(r"(.)\1*", text))

    text = "".join(letter * draw.whole(1, 4) for letter in draw.some("abcd", 3))
    return program_item("shorten(text)", what, solution, [(text,), ("",), ("z",)])


def _pairs(draw: Draw) -> dict[str, Any]:
    sign = draw.one((";", "|", "&"))
    what = f'turns a text such as "a=1{sign}b=2" into a dictionary from names to whole numbers; an empty text gives an empty one.'

    def solution(text: str) -> dict[str, int]:
        return {name: int(value) for name, value in (pair.split("=") for pair in text.split(sign) if pair)}

    text = sign.join(f"{word}={draw.whole(-9, 99)}" for word in draw.some(_WORDS, 3))
    return program_item("read_pairs(text)", what, solution, [(text,), ("x=5",), ("",)])


def _balanced(draw: Draw) -> dict[str, Any]:
    kinds = draw.one(("()", "[]", "{}"))
    what = (
        f"returns whether the brackets {kinds[0]} and {kinds[1]} in a text are balanced. Other characters do not count."
    )

    def solution(text: str) -> bool:
        depth = 0
        for character in text:
            depth += (character == kinds[0]) - (character == kinds[1])
            if depth < 0:
                return False
        return depth == 0

    texts = ("a(b)c", "(()", ")(", "", "((x)(y))")
    cases = [(text.replace("(", kinds[0]).replace(")", kinds[1]),) for text in texts]
    return program_item("balanced(text)", what, solution, cases)


# --- dictionaries


def _by_length(draw: Draw) -> dict[str, Any]:
    what = "groups a list of words by their length: a dictionary from each length to the list of its words, in order."

    def solution(words: list[str]) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = {}
        for word in words:
            groups.setdefault(len(word), []).append(word)
        return groups

    return program_item("group_by_length(words)", what, solution, [(draw.some(_WORDS, 6),), ([],)])


def _most_common(draw: Draw) -> dict[str, Any]:
    what = "returns the word that is most often in a list; of several the one that comes first in the alphabet."

    def solution(words: list[str]) -> str:
        counts = Counter(words)
        return min(counts, key=lambda word: (-counts[word], word))

    first, second, third = draw.some(_WORDS, 3)
    return program_item(
        "most_common(words)", what, solution, [([first, second, second, third],), ([second, first],), ([third],)]
    )


def _inverted(draw: Draw) -> dict[str, Any]:
    what = "turns a dictionary around, so that its values are the keys and its keys the values. All values differ."
    words = draw.some(_WORDS, 3)
    cases = [({word: number for number, word in enumerate(words, draw.whole(1, 9))},), ({},)]
    return program_item("invert(mapping)", what, lambda mapping: {value: key for key, value in mapping.items()}, cases)


def _stock(draw: Draw) -> dict[str, Any]:
    least = draw.whole(3, 9)
    what = f"takes a dictionary from names to numbers and returns a sorted list of the names whose number is below {least}."
    cases = [({word: draw.whole(0, 15) for word in draw.some(_WORDS, 5)},), ({},)]
    return program_item(
        "too_few(stock)", what, lambda stock: sorted(name for name, count in stock.items() if count < least), cases
    )


ON_TEXTS = (
    _letter,
    _long_words,
    _turned,
    _by_length,
    _shifted,
    _vowels,
    _pairs,
    _balanced,
    _most_common,
    _same_backwards,
    _stock,
    _runs,
    _inverted,
)
