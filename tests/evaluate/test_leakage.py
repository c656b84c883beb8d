from quantplan.evaluate.leakage import overlap

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
