"""Text files of people: looked at before they are read, so that a model of 200 GB is not taken for one."""

from pathlib import Path

from quantplan.budget import human_bytes
from quantplan.errors import BadFile
from quantplan.file_kinds import START, file_kind

MAX_BYTES = 256 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text_file(path: Path, what: str, most: int = MAX_BYTES) -> str:
    """The text of a file, without a byte order mark; UTF-16 as Windows writes it, too. ``what``: it should be, for messages.

    BadFile where it cannot be read, is a failed download, is no text or is larger than ``most`` bytes.
    """
    try:
        start = check_text_file(path, what, most)
        data = path.read_bytes()
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None
    if start and (kind := file_kind(start, len(data))):
        raise BadFile(f"{path} is {kind}; {what} is needed")
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: not UTF-8 text (byte {error.start:,}); {what} is needed") from None


def check_text_file(path: Path, what: str, most: int = MAX_BYTES) -> bytes:
    """The first bytes of a file. BadFile where they, or its size, show that it is no text; OSError where it cannot be read."""
    with path.open("rb") as file:
        start = file.read(START)
    size = path.stat().st_size
    if start[:4] == b"GGUF" or (b"\0" in start and not start.startswith(_UTF16)):
        kind = "a GGUF file" if start[:4] == b"GGUF" else file_kind(start, size) or "a binary file"
        raise BadFile(f"{path}: not UTF-8 text but {kind}; {what} is needed")
    if size > most:
        raise BadFile(f"{path} has {human_bytes(size)}, too much for a text; {what} is needed")
    return start


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF does, or is called one: who reads it as one says what it is instead. BadFile where it
    cannot be read."""
    return starts_as_gguf(path) or path.suffix.lower() == ".gguf"


def starts_as_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF does; BadFile where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None
