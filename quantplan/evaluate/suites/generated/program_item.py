"""One function to write: how it is asked for, and the tests of the answer."""

from collections.abc import Callable, Sequence
from typing import Any


def program_item(
    signature: str, what: str, solution: Callable[..., Any], cases: Sequence[tuple[Any, ...]]
) -> dict[str, Any]:
    """The fields of an item. ``cases``: arguments; ``solution`` says what the function returns for them."""
    name = signature.partition("(")[0]
    tests = tuple(f"{name}({', '.join(map(repr, case))}) == {solution(*case)!r}" for case in cases)
    return {"text": f"Write a Python function `{signature}` that {what}", "tests": tests}
