"""Check that evaluation text does not overlap the text that a plan was made with (data leakage)."""

from quantplan.text import Text, written

LONG_LINE = 60  # characters: shorter lines (headings, code, dialogue) may recur by chance
WORRYING = 0.01


def overlap(evaluation: Text, calibration: Text) -> float:
    """Share of the long lines of ``evaluation`` that are in ``calibration`` too, white space at the ends aside; 0 to 1.

    Of chats the messages count alone: what the template adds, or the tools offered, is the same in every text.
    """
    lines = _long_lines(evaluation)
    if not lines:
        return 0.0
    known = set(_long_lines(calibration))
    return sum(line in known for line in lines) / len(lines)


def _long_lines(text: Text) -> list[str]:
    return [line for line in map(str.strip, written(text).splitlines()) if len(line) >= LONG_LINE]
