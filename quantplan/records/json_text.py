"""JSON as text: read strictly, so that whatever is wrong with it is a ValueError."""

import json
import math
from collections.abc import Sequence
from typing import Any


def parse_json(text: str | bytes, allow_nan: bool = False) -> Any:
    """The value; ValueError with the reason for what is not JSON, for keys that stand twice, endless nesting, and numbers
    that are NaN or infinite, unless ``allow_nan``.
    """
    number = float if allow_nan else _finite
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is NaN or infinite")
    return number


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return content
