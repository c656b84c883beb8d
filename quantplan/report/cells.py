"""Figures as the text of table cells."""

import math

from quantplan.budget import human_bytes
from quantplan.measurement import Estimate

UNKNOWN = "-"
TOO_FEW = "too few samples"
READ = "Read/token"  # heading of a column of ``per_token``
_GIB = 1 << 30


def estimate(figure: Estimate | None) -> str:
    """``0.00849 ± 0.00025``: as many decimals as give the error two digits."""
    if figure is None:
        return UNKNOWN
    if figure.stderr is None:
        return number(figure.value)
    if figure.stderr == 0:
        return f"{number(figure.value)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(figure.stderr)))
    return f"{figure.value:.{decimals}f} ± {figure.stderr:.{decimals}f}"


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits."""
    return UNKNOWN if value is None else f"{value:.{digits}g}"


def fixed(value: float | None, decimals: int) -> str:
    """Decimals; a dash where the value is not defined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def percent(share: float | None, decimals: int = 2) -> str:
    return UNKNOWN if share is None else f"{100 * share:.{decimals}f} %"


def per_token(size: int | None) -> str:
    """Bytes that a token reads, in the units of file sizes."""
    return UNKNOWN if size is None else human_bytes(size)


def weights(count: int | None) -> str:
    """A number of weights: ``1.82 B``, ``10.10 M``."""
    if count is None:
        return UNKNOWN
    return f"{count / 1e9:.2f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def interval(low: float, high: float, form: str, joint: str = " to ") -> str:
    """Both ends; in words where the samples are too few for an interval."""
    if math.isinf(high) and (low <= 0 or math.isinf(low)):
        return TOO_FEW
    return f"{low:{form}}{joint}{'∞' if math.isinf(high) else format(high, form)}"


def gibibytes(size: int) -> str:
    return f"{size / _GIB:.2f}" if size >= _GIB else f"{size / _GIB:.3f}"
