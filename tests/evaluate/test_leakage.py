from quantplan.evaluate.leakage import overlap
from quantplan.text import SpecialText

LONG = [
    f"{number:03d} " + "a line that is long enough to be no chance repetition of the other text"
    for number in range(100)
]


def test_share_of_long_lines_seen_before():
    assert overlap("\n".join(LONG), "\n".join(LONG[:25])) == 0.25


def test_white_space_and_short_lines_do_not_matter():
    judging = "\n".join(f"   {line}\t" for line in LONG[:2]) + "\nshort\nshort"
    assert overlap(judging, f"{LONG[0]}\nshort") == 0.5


def test_texts_that_share_nothing():
    assert overlap("\n".join(LONG), "short\n" * 50) == 0
    assert overlap("only short lines", "only short lines") == 0


def test_of_chats_the_messages_count_alone():
    """What a template adds to every conversation is in all texts."""
    system = f"<|im_start|>system\n{'You are a helpful assistant, and the template always says so. ' * 2}<|im_end|>\n"
    one, two = (SpecialText((f"{system}<|im_start|>user\n{line}<|im_end|>\n",), (line,)) for line in (LONG[0], LONG[1]))
    assert overlap(one, two) == 0 and overlap(one, one) == 1
    assert overlap(one, LONG[0]) == overlap(LONG[0], one) == 1, "the same words as a plain text"
