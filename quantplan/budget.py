"""The size of a file, however it is given. A budget is the whole file, metadata included."""

import re
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from quantplan.errors import BadFile, BadUsage
from quantplan.tensor import Model, padded

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_ABSURD = 1e24  # no number is as large in any unit, and int() of infinity would fail
_FORM = re.compile(r"([0-9]*\.?[0-9]+)\s*([A-Za-z%]*)")


@dataclass(frozen=True)
class Budget:
    """An integer number of bytes, and the text that it was given as."""

    bytes: int
    asked: str

    @classmethod
    def parse(cls, text: str, model: Model, metadata_bytes: int = 0) -> "Budget":
        """17.9GB (1e9), 16.7GiB (2^30), 4.25bpw, 40% (of the model's file), 123456789 (bytes), =other.gguf.

        Bits per weight are counted as llama.cpp prints them, tensor data over all weights; the
        ``metadata_bytes`` of the file to be built come on top; 100% holds a copy, which may be a little larger than its
        source. Raises BadUsage, BadFile.
        """
        words = text.strip()
        if words.startswith("="):
            return cls(_size_of(Path(words[1:]).expanduser()), words)
        number, unit = _split(text, "budget", "17.9GB, 16.7GiB, 4.25bpw, 40% or =other.gguf")
        if unit.upper() == "BPW":
            return cls(int(number * model.elements / 8) + metadata_bytes, words)
        if unit == "%":
            copy = metadata_bytes + sum(padded(tensor.bytes) for tensor in model.tensors)
            size = int(number / 100 * model.file_bytes)
            return cls(max(size, copy) if number >= 100 else size, words)
        return cls(_bytes(text, number, unit, "budget", ("bpw", "%")), words)


def parse_size(text: str, what: str = "size") -> int:
    """Bytes of ``24GiB``, ``24GB`` (1e9), ``800MiB`` or ``123456789``; BadUsage for anything else."""
    number, unit = _split(text, what, "24GiB, 24GB or 800MiB")
    return _bytes(text, number, unit, what)


def _split(text: str, what: str, examples: str) -> tuple[float, str]:
    """Number and unit; ``what`` the text is, for messages."""
    match = _FORM.fullmatch(text.strip())
    if not match:
        raise BadUsage(f"cannot read the {what} {text!r}; write {examples}")
    number = float(match.group(1))
    if not 0 < number < _ABSURD:
        raise BadUsage(
            f"the {what} {text!r} {'is more than any disk holds' if number else 'must be greater than zero'}"
        )
    return number, match.group(2)


def _bytes(text: str, number: float, unit: str, what: str, further: tuple[str, ...] = ()) -> int:
    if not unit and number < 10**4:
        words = [f"{text}{each}" for each in ("GB", "GiB", *(each for each in further if each != "%"))]
        raise BadUsage(f"the {what} {text!r} has no unit; write {', '.join(words[:-1])} or {words[-1]}")
    if unit and unit.upper() not in _UNITS:
        known = " ".join(("GB", "GiB", "MB", "MiB", *further))
        raise BadUsage(f"unknown unit {unit!r} in the {what} {text!r}; known: {known}")
    return int(number * _UNITS.get(unit.upper(), 1))


def _size_of(path: Path) -> int:
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadFile(f"cannot take the budget from {path}: {reason}; give the path of a file") from None
    if not S_ISREG(stat.st_mode):
        raise BadFile(f"cannot take the budget from {path}: not a file; write =other.gguf")
    return stat.st_size


def human_bytes(size: float) -> str:
    """Decimal units, as model cards write sizes: 17.91 GB."""
    for unit in ("GB", "MB", "kB"):
        if abs(size) >= _UNITS[unit.upper()]:
            return f"{size / _UNITS[unit.upper()]:.2f} {unit}"
    return f"{size:.0f} B"
