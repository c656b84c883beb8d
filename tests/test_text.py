"""Texts whose special tokens are parsed: their pieces, their joins, what people wrote of them."""

from quantplan.records.journal import text_digest
from quantplan.text import SpecialText, content, joined, special, written

CHATS = SpecialText(("<s>one\n", "<s>two\n", "<s>three"), ("1", "2", "3"), bos="<s>")


def test_a_bos_that_the_tokenizer_adds_does_not_begin_the_text():
    assert CHATS.content == content(CHATS) == "one\n<s>two\n<s>three"
    assert CHATS.only([1, 2]).content == "two\n<s>three" and CHATS.only([1, 2]).written == ("2", "3")
    assert SpecialText(CHATS.pieces).content == "<s>one\n<s>two\n<s>three"


def test_the_line_is_that_of_the_file():
    text = CHATS.content
    assert [CHATS.line(text.index(word)) for word in ("one", "<s>two", "two", "three")] == [1, 2, 2, 3]
    assert CHATS.line(len(text)) == CHATS.line(10 * len(text)) == 3
    assert special("first\nsecond\n").line(6) == 2


def test_plain_texts_are_joined_as_before():
    assert joined(["one\n", "two"]) == "one\n\ntwo"
    assert joined(["one"]) == "one" and joined([CHATS]) is CHATS


def test_with_one_special_text_all_are():
    both = joined(["plain\ntext", CHATS])
    assert isinstance(both, SpecialText)
    assert both.content == "plain\ntext\n<s>one\n<s>two\n<s>three"
    assert both.pieces == ("plain\n", "text", "\n<s>one\n", "<s>two\n", "<s>three")
    assert len(both.written) == len(both.pieces)
    assert joined([CHATS, "more"]).content == "one\n<s>two\n<s>three\nmore"


def test_what_people_wrote():
    assert written(CHATS) == "1\n2\n3"
    assert written("plain") == "plain" and written(special("plain\n")) == "plain\n"


def test_other_tokens_are_another_text():
    assert text_digest("words") == "dba36bffa5cab0f922d087a3aeb179f9d4e745df40b323e1b1471402848c8a3e", "as ever"
    assert text_digest("words") != text_digest(special("words"))
    assert text_digest(SpecialText(("wo", "rds"))) == text_digest(special("words"))
