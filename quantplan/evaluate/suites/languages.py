"""Which language a text is in: by its script, or by the most frequent short words of languages in Latin letters."""

import re

_WORDS = {
    "de": "der die das und ist nicht ein eine einen zu den dem mit sich auf für von im auch wird sind ich wir sie es oder aus",
    "en": "the and of to is a in that it was for on with as are be this have not you they from or by an we his her which",
    "es": "el la los las de y que en un una es se no con por para del su al lo más como pero muy está son hay también",
    "fr": "le la les des et est un une que dans il elle pour pas sur au avec se ce qui ne vous nous sont du son mais être",
    "it": "il lo la gli le di e che in un una è non per con si del della sono come ma anche più nel alla dei questo molto",
    "nl": "de het een en van is dat in niet te op met voor zijn er aan ook die wij ze maar bij naar om uit heeft wordt deze",
    "pt": "o a os as de e que em um uma é não com por para do da no na se mais como mas são muito ao também dos das",
    "sv": "och det att en ett som är på för av med inte den till de har vi jag om men så kan från eller när vara mycket",
    "pl": "i w nie na się z do to jest że jak o po ale jego dla są przez który czy tak już od oraz tym bardzo ich",
}
_LATIN = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_SCRIPTS = {
    "ru": "\u0400-\u04ff",
    "el": "\u0370-\u03ff",
    "ar": "\u0600-\u06ff",
    "hi": "\u0900-\u097f",
    "ko": "\uac00-\ud7af",
    "ja": "\u3040-\u30ff",
    "zh": "\u4e00-\u9fff",
}
LANGUAGES = tuple(sorted([*_LATIN, *_SCRIPTS]))
_LEAST_SHARE = 0.15  # of frequent words, from which a text counts as one of a language
_LEAST_LETTERS = 0.5  # of the script; Japanese writes at least a fifth in its own letters, the rest in Chinese ones
_LEAST_KANA = 0.2
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """The code of one of ``LANGUAGES``; empty where the text is too short to tell, or is in none of them."""
    letters = _LETTER.findall(text)
    if not letters:
        return ""
    for language, script in _SCRIPTS.items():
        least = _LEAST_KANA if language == "ja" else _LEAST_LETTERS
        if sum(re.match(f"[{script}]", letter) is not None for letter in letters) >= least * len(letters):
            return language
    words = [word.casefold() for word in _WORD.findall(text)]
    shares = {language: sum(word in known for word in words) / len(words) for language, known in _LATIN.items()}
    best = max(shares, key=lambda language: shares[language])
    return best if shares[best] >= _LEAST_SHARE else ""
