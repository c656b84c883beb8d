"""The generators of items by name. The items of a seed are always the same, and fewer of them are the first of more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count as counted
from itertools import zip_longest
from typing import Any

from quantplan.evaluate.suites import suite
from quantplan.evaluate.suites.generated.arithmetic import SUMS
from quantplan.evaluate.suites.generated.draw import Draw
from quantplan.evaluate.suites.generated.instructions import ORDERS
from quantplan.evaluate.suites.generated.programs_on_numbers import ON_NUMBERS
from quantplan.evaluate.suites.generated.programs_on_texts import ON_TEXTS
from quantplan.evaluate.suites.generated.requests import REQUESTS
from quantplan.evaluate.suites.suite import Generated, Suite, SuiteItem, SuitePart

Template = Callable[[Draw], dict[str, Any]]
_TRIES = 50  # for an item that was not there before; a template with fewer items repeats itself


@dataclass(frozen=True)
class Generator:
    """``templates`` take turns; each makes the fields of a ``SuiteItem`` except its name and tokens."""

    kinds: tuple[str, ...]
    templates: Sequence[Template]


def _in_turns(*groups: Sequence[Template]) -> list[Template]:
    return [template for row in zip_longest(*groups) for template in row if template]


GENERATORS = {
    "arithmetic": Generator((suite.REASONING, suite.MATH), SUMS),
    "instructions": Generator((suite.INSTRUCTIONS,), ORDERS),
    "tools": Generator((suite.TOOLS,), REQUESTS),
    "code": Generator((suite.CODE,), _in_turns(ON_NUMBERS, ON_TEXTS)),
}


def with_items(suite: Suite, count: int) -> Suite:
    """The suite with ``count`` items of each part: the first of those listed, then generated ones, as far as there are."""
    return replace(suite, parts=tuple(_with_items(part, count) for part in suite.parts))


def _with_items(part: SuitePart, count: int) -> SuitePart:
    listed = part.items[: len(part.items) - part.generated.count] if part.generated else part.items
    more = max(0, count - len(listed))
    if part.generated is None:
        return replace(part, items=listed[:count])
    made = generate(part.generated, more)
    return replace(part, items=(*listed[:count], *made), generated=replace(part.generated, count=len(made)))


def generate(generated: Generated, count: int | None = None) -> tuple[SuiteItem, ...]:
    """``count`` items, by default as many as the suite says; fewer where the generator has no more that differ."""
    count = generated.count if count is None else count
    generator, draw = GENERATORS[generated.name], Draw(f"{generated.name}:{generated.seed}")
    items: list[SuiteItem] = []
    texts: set[str] = set()
    misses = 0
    for number in counted():
        if len(items) == count or misses > _TRIES * len(generator.templates):
            return tuple(items)
        template = generator.templates[number % len(generator.templates)]
        fields = template(draw)
        if fields["text"] in texts:
            misses += 1
            continue
        misses = 0
        texts.add(fields["text"])
        name = f"{template.__name__.strip('_').replace('_', ' ')} {len(items) + 1}"
        items.append(SuiteItem(name=name, max_tokens=generated.max_tokens, **fields))
    raise AssertionError("counted() has no end")
