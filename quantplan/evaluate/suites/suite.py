"""A suite: short tasks that score a model's answers, in weighted parts. The files are described in docs/suites.md.

A suite's digest covers everything that can change a score, so two scores with one digest were asked and graded alike.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from quantplan.errors import BadUsage
from quantplan.evaluate.suites.checks import Checks
from quantplan.evaluate.suites.tool_calls import Tool, ToolCall

FACTS, COHERENCE, REPETITION, THINKING, DIRECT = "facts", "coherence", "repetition", "thinking", "direct"
MATH, FEELINGS, REASONING, PERPLEXITY = "math", "feelings", "reasoning", "perplexity"
TOOLS, INSTRUCTIONS, CODE, ENDING = "tools", "instructions", "code", "ending"
ALL_OR_NOTHING = (FACTS, REASONING, TOOLS, INSTRUCTIONS, CODE, ENDING)  # kinds whose credits are 0 or 1
NOT_MEASURED = "not measured: it needs a text (--text) and the original model (--model)"  # of perplexity
KINDS = (
    *(TOOLS, INSTRUCTIONS, CODE, FACTS, REASONING, MATH, ENDING),
    *(COHERENCE, REPETITION, THINKING, DIRECT, FEELINGS, PERPLEXITY),
)


@dataclass(frozen=True, kw_only=True)
class SuiteItem:
    """One task. ``text``: the question, the beginning of a text or a dialogue; the other fields depend on the kind of its part.

    ``accept``, ``reject``: words, or patterns between slashes. ``answer``: a number as written, or one of ``choices``.
    ``feelings``: names with intensities from 0 to 10 of ``who``. ``at_least``: words of an answer, ``needed``: keywords.
    ``tools``: offered; ``calls``: those to make, none where the question needs no tool. ``tests``: expressions in Python that are
    true after a right program has run.
    """

    name: str
    text: str
    max_tokens: int
    accept: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    needed: int = 1
    at_least: int = 0
    answer: str = ""
    choices: tuple[str, ...] = ()
    who: str = ""
    feelings: tuple[tuple[str, float], ...] = ()
    topic: str = ""
    checks: Checks | None = None
    tools: tuple[Tool, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    tests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """Where the last ``count`` items of a part come from: a generator, with its seed and the most tokens of an item."""

    name: str
    count: int
    seed: int
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class SuitePart:
    """Items of one kind. ``weight``: in the overall score, in any unit; ``thinking``: asked in thinking mode.

    ``instruction`` is said with every question. ``common_words``: the most frequent words of the language (coherence).
    ``generated``: what makes further items.
    """

    name: str
    kind: str
    weight: float
    items: tuple[SuiteItem, ...] = ()
    instruction: str = ""
    thinking: bool = False
    common_words: tuple[str, ...] = ()
    generated: Generated | None = None

    @property
    def thinks(self) -> bool:
        """Whether the model is asked in thinking mode."""
        return self.thinking or self.kind == THINKING


@dataclass(frozen=True, kw_only=True)
class Suite:
    """``thinking_tokens``: added to those of an item where a model thinks and cannot be told not to."""

    name: str
    parts: tuple[SuitePart, ...]
    thinking_tokens: int = 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is asked and accepted, without its name and the comments in the file."""
        content = [self.thinking_tokens, *(asdict(replace(part, generated=None)) for part in self.parts)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def items(self) -> int:
        return sum(len(part.items) for part in self.parts)

    @property
    def total_weight(self) -> float:
        return sum(part.weight for part in self.parts)


def chosen(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite with these parts only; ``-NAME`` leaves one out. BadUsage for a name that no part has, and where none is left."""
    known = [part.name for part in suite.parts]
    for name in names:
        if name.removeprefix("-") not in known:
            raise BadUsage(f"--parts {name}: the suite {suite.name} has the parts {', '.join(known)}")
    wanted = [name for name in names if not name.startswith("-")] or known
    parts = tuple(part for part in suite.parts if part.name in wanted and f"-{part.name}" not in names)
    if not parts:
        raise BadUsage(f"--parts {','.join(names)}: no part of the suite {suite.name} is left")
    return replace(suite, parts=parts)


def joined(suites: Sequence[Suite]) -> Suite:
    """One suite of all parts, weights unchanged; a part whose name is taken is called ``SUITE:PART``.

    BadUsage where that is not enough: the same suite twice.
    """
    parts: dict[str, SuitePart] = {}
    for suite in suites:
        for part in suite.parts:
            name = part.name if part.name not in parts else f"{suite.name}:{part.name}"
            if name in parts:
                raise BadUsage(f"two suites have the name {suite.name} and a part {part.name}; rename one of them")
            parts[name] = replace(part, name=name)
    return Suite(
        name="+".join(suite.name for suite in suites),
        parts=tuple(parts.values()),
        thinking_tokens=max(suite.thinking_tokens for suite in suites),
    )
