"""stdout and stderr take any text and may be closed by their reader: no command fails for what a name holds, nor for what a
terminal can show, and `| head` ends it without a word.

Names of files and of tensors may be any bytes, also such as steer a terminal: those are shown as escapes. Python holds bytes
that are not UTF-8 as lone surrogates. A console may be cp1252, or ASCII (``LC_ALL=C`` in a container,
``PYTHONIOENCODING=ascii``).
"""

import codecs
import os
import re
import sys
from typing import NoReturn, TextIO

_HANDLER = "quantplan"
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_RAW_BYTES = range(0xDC80, 0xDD00)  # what surrogateescape makes of the bytes 0x80 to 0xFF
_PLAIN = {
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{GREEK CAPITAL LETTER DELTA}": "d",
    "\N{GREEK CAPITAL LETTER SIGMA}": "sum",
    "\N{GREEK SMALL LETTER MU}": "mean ",
    "\N{GREEK SMALL LETTER SIGMA}": "sigma",
    "\N{SUPERSCRIPT TWO}": "^2",
    "\N{ALMOST EQUAL TO}": "~",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{EN DASH}": "-",
    "\N{INFINITY}": "inf",
    "\N{LEFT RIGHT ARROW}": "<->",
}


def _writable(error: UnicodeError) -> tuple[str | bytes, int]:
    """For a character that the encoding does not have: the byte that it stands for, an ASCII sign like it, or its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if ord(character) in _RAW_BYTES:
        return bytes([ord(character) & 0xFF]), error.start + 1
    code = ord(character)
    number = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _PLAIN.get(character, number), error.start + 1


codecs.register_error(_HANDLER, _writable)


def take_any_text() -> None:
    """From now on stdout and stderr write whatever they are given; one that was closed before the start swallows it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def write(text: str, stream: TextIO) -> None:
    """A line, at once, without control characters; ends the program where nobody reads any longer."""
    try:
        print(visible(text), file=stream, flush=True)
    except BrokenPipeError:
        reader_gone(stream)


def reader_gone(stream: TextIO) -> NoReturn:
    """Ends the program as other tools end when their reader has gone: exit code 1, no message."""
    discard(stream)
    raise SystemExit(1)


def discard(stream: TextIO) -> None:
    """What the stream still holds, and all that comes, goes nowhere: Python would complain of it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def shown(text: str, stream: TextIO) -> str:
    """The text as the stream shows it, for layouts: control characters, which would break a line, as escapes."""
    encoding = stream.encoding or "utf-8"
    return _CONTROL.sub(_escaped, text).encode(encoding, _HANDLER).decode(encoding, "surrogateescape")


def visible(text: str) -> str:
    """The text with escapes for what would steer a terminal or turn its letters about; line ends and tabs are left."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else _escaped(match), text)


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
