"""A text cut in two that share nothing."""

from quantplan.text import Domain, Domains, SpecialText
from quantplan.text_parts import EVERY, PIECES, probing_and_refinement

LINES = [f"line {index} of a text that has many of them\n" for index in range(997)]


def test_every_line_is_in_one_part_and_in_order():
    probing, refinement = (part.splitlines(keepends=True) for part in probing_and_refinement("".join(LINES)))
    assert not set(probing) & set(refinement)
    assert sorted(probing + refinement, key=LINES.index) == LINES
    assert probing == sorted(probing, key=LINES.index) and refinement == sorted(refinement, key=LINES.index)


def test_a_quarter_in_contiguous_pieces_from_all_over_the_text():
    _, refinement = probing_and_refinement("".join(LINES))
    places = [LINES.index(line) for line in refinement.splitlines(keepends=True)]
    assert abs(len(places) / len(LINES) - 1 / EVERY) < 0.01
    breaks = sum(after != before + 1 for before, after in zip(places, places[1:], strict=False))
    assert breaks == PIECES // EVERY - 1
    assert places[0] < len(LINES) / 4 and places[-1] == len(LINES) - 1


def test_a_single_line_is_cut_between_words():
    words = [f"word{index}" for index in range(400)]
    probing, refinement = probing_and_refinement(" ".join(words))
    assert not set(probing.split()) & set(refinement.split())
    assert set(probing.split()) | set(refinement.split()) == set(words)
    assert 0.2 < len(refinement) / (len(probing) + len(refinement)) < 0.3


def test_too_little_text_leaves_a_part_empty():
    assert probing_and_refinement("") == ("", "")
    assert probing_and_refinement("word") in (("word", ""), ("", "word"))


def test_chats_are_cut_between_conversations():
    chats = SpecialText(tuple(LINES), tuple(line.upper() for line in LINES), bos="<s>")
    probing, refinement = probing_and_refinement(chats)
    plain = probing_and_refinement("".join(LINES))
    assert (probing.content, refinement.content) == plain
    assert probing.bos == "<s>" and "".join(refinement.written) == refinement.content.upper()


def test_domains_are_cut_one_by_one():
    texts = Domains(
        (Domain("lines", "".join(LINES)), Domain("words", "few words"), Domain("more", "".join(LINES[:99])))
    )
    probing, refinement = probing_and_refinement(texts)
    assert [part.name for part in probing.parts] == ["lines", "words", "more"]
    assert [part.name for part in refinement.parts] == ["lines", "more"], "empty parts are left out"
    assert (probing.parts[2].text, refinement.parts[1].text) == probing_and_refinement("".join(LINES[:99]))
    one_left = Domains((Domain("lines", "".join(LINES)), Domain("words", "few words")))
    assert probing_and_refinement(one_left)[1] == probing_and_refinement("".join(LINES))[1], "a text alone is no domain"
