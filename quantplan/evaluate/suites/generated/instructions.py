"""Instructions whose following a program can check: counts, form, words, language."""

import json
from typing import Any

from quantplan.evaluate.suites.checks import Checks, Range
from quantplan.evaluate.suites.generated.draw import Draw

_TOPICS = (  # with words that a text about it may well have
    ("a lighthouse", ("sea", "light", "ships", "tower")),
    ("a bakery", ("bread", "oven", "flour", "morning")),
    ("a railway station", ("train", "platform", "ticket", "travel")),
    ("a public library", ("books", "quiet", "shelves", "readers")),
    ("a market in summer", ("fruit", "people", "colours", "fresh")),
    ("a bicycle", ("wheels", "pedals", "road", "ride")),
    ("a winter morning", ("snow", "cold", "breath", "light")),
    ("an old clock", ("time", "hands", "wood", "hours")),
    ("a small garden", ("flowers", "soil", "water", "plants")),
    ("a harbour", ("boats", "water", "ropes", "wind")),
    ("a kitchen", ("pots", "table", "smell", "cook")),
    ("a thunderstorm", ("rain", "thunder", "clouds", "sky")),
    ("a school", ("pupils", "teacher", "lessons", "learn")),
    ("a mountain hut", ("roof", "path", "valley", "stove")),
    ("a honey bee", ("flowers", "hive", "wings", "honey")),
    ("a river", ("water", "bridge", "fish", "stones")),
    ("a piano", ("keys", "music", "sound", "play")),
    ("a pair of shoes", ("leather", "feet", "walk", "street")),
    ("a campfire", ("wood", "flames", "night", "warm")),
    ("a hospital", ("doctors", "nurses", "patients", "care")),
    ("a desert", ("sand", "heat", "sun", "dry")),
    ("a football match", ("ball", "players", "goal", "crowd")),
    ("a letter from a friend", ("paper", "words", "news", "envelope")),
    ("a lake at night", ("moon", "water", "silence", "stars")),
)
_KINDS = ("animals", "fruits", "colours", "countries", "tools", "vegetables", "sports", "instruments", "birds", "trees")
_SINGLE = ("an animal", "a fruit", "a colour", "a country", "a metal", "a month", "a vegetable", "an ocean")
_LANGUAGES = {
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "ru": "Russian",
}
_ENDINGS = ("That is all.", "Thank you for reading.", "Have a good day.", "More will follow.", "End of the text.")
_ACROSTICS = ("SUN", "TREE", "MOON", "BIRD", "STAR", "LAMP", "RAIN", "FISH", "SEA", "BOAT")
_SORTED = (
    "apple", "basket", "candle", "dragon", "engine", "forest", "guitar", "hammer", "island", "jacket", "kettle", "ladder",
    "magnet", "needle", "orange", "pepper", "quarry", "ribbon", "saddle", "tunnel",
)  # fmt: skip
_SENTENCES = (
    "The green door at the end of the corridor is locked.",
    "Seven tired hikers waited for the last bus.",
    "Nobody remembered who had painted the fence.",
    "The recipe needs two eggs and a cup of milk.",
    "Her brother repairs radios in a small workshop.",
    "The museum opens at nine and closes at six.",
)
_FIRST_WORDS = ("Although", "Yesterday", "Nobody", "Perhaps", "Sometimes", "Long", "Between", "Every")
_TABLES = (("name", "colour", "price"), ("city", "country", "population"), ("animal", "legs", "food"))
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def _item(text: str, **checks: Any) -> dict[str, Any]:
    return {"text": text, "checks": Checks(**checks)}


def _exact(number: int) -> Range:
    return Range(number, number)


def _topic(draw: Draw) -> tuple[str, tuple[str, ...]]:
    return draw.one(_TOPICS)


def _words(draw: Draw) -> dict[str, Any]:
    low = draw.whole(3, 8) * 5
    return _item(f"Write about {_topic(draw)[0]} in {low} to {low + 20} words.", words=Range(low, low + 20))


def _few_words(draw: Draw) -> dict[str, Any]:
    most = draw.whole(8, 20)
    return _item(f"Describe {_topic(draw)[0]} in at most {most} words.", words=Range(3, most))


def _characters(draw: Draw) -> dict[str, Any]:
    most = draw.whole(8, 16) * 10
    return _item(f"Describe {_topic(draw)[0]} in at most {most} characters.", characters=Range(10, most))


def _sentences(draw: Draw) -> dict[str, Any]:
    count = draw.whole(2, 5)
    return _item(f"Describe {_topic(draw)[0]} in exactly {_NUMBERS[count]} sentences.", sentences=_exact(count))


def _bullets(draw: Draw) -> dict[str, Any]:
    count = draw.whole(3, 6)
    text = f'Write {_NUMBERS[count]} facts about {_topic(draw)[0]} as bullet points that begin with "- ". Write nothing else.'
    return _item(text, bullets=_exact(count), lines=_exact(count))


def _numbered(draw: Draw) -> dict[str, Any]:
    count = draw.whole(3, 6)
    text = f"Name {_NUMBERS[count]} {draw.one(_KINDS)} as a numbered list (1., 2. and so on). Write nothing else."
    return _item(text, numbered=_exact(count), lines=_exact(count))


def _json_object(draw: Draw) -> dict[str, Any]:
    count = draw.whole(2, 4)
    texts = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
    properties = {"title": {"type": "string", "minLength": 1}, "year": {"type": "integer"}, "tags": texts}
    schema = {"type": "object", "properties": properties, "required": ["title", "year", "tags"]}
    text = f'Invent a book about {_topic(draw)[0]}. Answer with a JSON object only, with the keys "title" (a text), '
    text += f'"year" (a whole number) and "tags" (a list of {_NUMBERS[count]} texts).'
    return _item(text, json=json.dumps(schema))


def _json_list(draw: Draw) -> dict[str, Any]:
    count = draw.whole(3, 6)
    texts = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": count, "maxItems": count}
    text = f"Name {_NUMBERS[count]} {draw.one(_KINDS)}. Answer with a JSON list of {_NUMBERS[count]} texts only."
    return _item(text, json=json.dumps(texts))


def _keywords(draw: Draw) -> dict[str, Any]:
    topic, words = _topic(draw)
    first, second, third = draw.some(words, 3)
    text = f'Write two or three sentences about {topic} with the words "{first}", "{second}" and "{third}".'
    return _item(text, contains=(first, second, third), sentences=Range(2, 3))


def _without_word(draw: Draw) -> dict[str, Any]:
    topic, words = _topic(draw)
    word = draw.one(words)
    text = f'Describe {topic} in one or two sentences without the word "{word}".'
    return _item(text, without=(word,), sentences=Range(1, 2), words=Range(5, None))


def _without_letter(draw: Draw) -> dict[str, Any]:
    letter = draw.one("bkpvwgm")
    text = f'Write one sentence about {_topic(draw)[0]}. No word in it may have the letter "{letter}".'
    return _item(text, no_characters=letter, words=Range(4, None))


def _without_commas(draw: Draw) -> dict[str, Any]:
    count = draw.whole(2, 4)
    text = f"Write exactly {_NUMBERS[count]} sentences about {_topic(draw)[0]} without any commas."
    return _item(text, no_characters=",", sentences=_exact(count))


def _capitals(draw: Draw) -> dict[str, Any]:
    text = f"Describe {_topic(draw)[0]} in one sentence. Write in capital letters only."
    return _item(text, case="upper", words=Range(4, None))


def _small_letters(draw: Draw) -> dict[str, Any]:
    text = f"Describe {_topic(draw)[0]} in one sentence. Write in small letters only, without any capital letter."
    return _item(text, case="lower", words=Range(4, None))


def _first_word(draw: Draw) -> dict[str, Any]:
    word = draw.one(_FIRST_WORDS)
    text = f'Write one sentence about {_topic(draw)[0]}. Its first word must be "{word}".'
    return _item(text, begins=word, sentences=_exact(1), words=Range(4, None))


def _last_words(draw: Draw) -> dict[str, Any]:
    ending = draw.one(_ENDINGS)
    text = (
        f'Describe {_topic(draw)[0]} in two sentences. After them, end your answer with exactly these words: "{ending}"'
    )
    return _item(text, ends=ending, sentences=_exact(3))


def _language(draw: Draw) -> dict[str, Any]:
    code = draw.one(tuple(_LANGUAGES))
    text = f"Describe {_topic(draw)[0]} in two sentences. Answer in {_LANGUAGES[code]} only."
    return _item(text, language=code, sentences=_exact(2))


def _often(draw: Draw) -> dict[str, Any]:
    topic, words = _topic(draw)
    word, count = draw.one(words), draw.whole(2, 4)
    text = f'Write a short text about {topic} that has the word "{word}" exactly {_NUMBERS[count]} times.'
    return _item(text, times=((word, _exact(count)),), words=Range(8, None))


def _paragraphs(draw: Draw) -> dict[str, Any]:
    count = draw.whole(2, 3)
    text = f"Write {_NUMBERS[count]} short paragraphs about {_topic(draw)[0]}, with a blank line between them and no heading."
    return _item(text, paragraphs=_exact(count), words=Range(20, None))


def _repeat(draw: Draw) -> dict[str, Any]:
    sentence = draw.one(_SENTENCES)
    return _item(f"Repeat this sentence word for word, and write nothing else: {sentence}", exactly=sentence)


def _sort(draw: Draw) -> dict[str, Any]:
    words = draw.some(_SORTED, draw.whole(4, 6))
    text = f"Sort these words from A to Z, one on each line, and write nothing else: {', '.join(words)}"
    return _item(text, exactly="\n".join(sorted(words)), lines=_exact(len(words)))


def _acrostic(draw: Draw) -> dict[str, Any]:
    word = draw.one(_ACROSTICS)
    text = (
        f"Write {_NUMBERS[len(word)]} short lines about {_topic(draw)[0]}. The first letters of the lines, from top to "
    )
    return _item(f"{text}bottom, must spell {word}. Write nothing else.", initials=word)


def _csv(draw: Draw) -> dict[str, Any]:
    columns, rows = draw.one(_TABLES), draw.whole(2, 5)
    text = f"Write a table in CSV with the header {','.join(columns)} and {_NUMBERS[rows]} rows of your choice. "
    text += "No value may have a comma in it. Write nothing else."
    return _item(text, csv=len(columns), lines=_exact(rows + 1), begins=",".join(columns))


def _one_word(draw: Draw) -> dict[str, Any]:
    return _item(f"Name {draw.one(_SINGLE)}. Answer with a single word.", words=_exact(1))


def _brackets(draw: Draw) -> dict[str, Any]:
    text = f"Write one sentence about {_topic(draw)[0]}. Put the whole answer in square brackets: [like this]."
    return _item(text, begins="[", ends="]", words=Range(4, None))


def _question(draw: Draw) -> dict[str, Any]:
    text = f"Ask me exactly one question about {_topic(draw)[0]}, and write nothing else."
    return _item(text, ends="?", sentences=_exact(1))


def _words_and_end(draw: Draw) -> dict[str, Any]:
    low, ending = draw.whole(3, 5) * 10, draw.one(_ENDINGS)
    text = f"Write about {_topic(draw)[0]} in {low} to {low + 20} words without any commas. "
    text += f'The last words of your answer must be "{ending}"'
    return _item(text, words=Range(low, low + 20), no_characters=",", ends=ending)


def _bullets_in_language(draw: Draw) -> dict[str, Any]:
    code, count = draw.one(("de", "fr", "es", "it")), draw.whole(3, 5)
    text = f"Write {_NUMBERS[count]} sentences about {_topic(draw)[0]} in {_LANGUAGES[code]}, as bullet points that begin with "
    return _item(f'{text}"- ". Write nothing else.', language=code, bullets=_exact(count), lines=_exact(count))


def _bullets_and_words(draw: Draw) -> dict[str, Any]:
    (topic, words), count = _topic(draw), draw.whole(2, 4)
    first, second = draw.some(words, 2)
    text = f'Describe {topic} in {_NUMBERS[count]} bullet points that begin with "- ". Use the words "{first}" and "{second}", '
    return _item(
        f"{text}and write in small letters only, without any capital letter.",
        bullets=_exact(count),
        contains=(first, second),
        case="lower",
    )


def _sentences_and_words(draw: Draw) -> dict[str, Any]:
    (topic, words), count = _topic(draw), draw.whole(2, 4)
    wanted, avoided = draw.some(words, 2)
    text = f'Describe {topic} in exactly {_NUMBERS[count]} sentences. Use the word "{wanted}", but not the word "{avoided}".'
    return _item(text, sentences=_exact(count), contains=(wanted,), without=(avoided,))


ORDERS = (
    _words, _bullets, _json_object, _keywords, _language, _first_word, _sort, _few_words, _numbered, _capitals, _without_word,
    _csv, _sentences, _json_list, _last_words, _repeat, _without_letter, _one_word, _often, _brackets, _small_letters,
    _paragraphs, _question, _characters, _without_commas, _acrostic, _words_and_end, _bullets_in_language, _bullets_and_words,
    _sentences_and_words,
)  # fmt: skip
