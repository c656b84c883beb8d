"""The program in an answer."""

import ast
import re
import warnings

_FENCE = re.compile(r"```(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(r"^(?:def|import|from|class|@)\b", re.MULTILINE)


def code_in(answer: str) -> str:
    """The code of an answer: that of its first block that defines something, without a block the text from the first definition
    or import on. Empty where there is none.
    """
    blocks = [code for language, code in _FENCE.findall(answer) if language.lower() in ("", "py", "python", "python3")]
    if blocks:
        return next((code for code in blocks if _START.search(code)), blocks[0]).strip()
    start = _START.search(answer)
    return _without_prose(answer[start.start() :]) if start else ""


def _without_prose(text: str) -> str:
    """The longest beginning, in whole lines, that is Python; all of it where none is."""
    lines = text.rstrip().splitlines()
    beginnings = ("\n".join(lines[:end]) for end in range(len(lines), 0, -1))
    return next(filter(_is_python, beginnings), text)


def _is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
