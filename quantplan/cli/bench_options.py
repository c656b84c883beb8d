"""Tokens per second that a command measures: which tests, named as llama-bench's options name them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quantplan.cli.framework import option, whole
from quantplan.cli.option_groups import MEASURING, repetitions_option
from quantplan.errors import BadUsage
from quantplan.llamacpp.bench import USUAL_TESTS, BenchTests
from quantplan.whole_number import whole_number

_PAIR = "write a prompt and a generation in tokens, as --pg 1024,1024"
_MOST = 1 << 24  # tokens of a test: no context is as long


def _tests_option(what: str, *names: str, **settings: Any) -> Any:
    return option(f"{what}, as llama-bench's {names[0]}; 0: none; repeatable.", *names, default=(), **settings)


@dataclass(frozen=True)
class BenchOptions:
    panel: ClassVar[str] = MEASURING
    speed: bool = option("Measure tokens per second with llama-bench; -p, --n-gen and -pg imply it.", default=False)
    n_prompt: tuple[str, ...] = _tests_option("Prompts to time", "-p", metavar="TOKENS", show_default="512")
    n_gen: tuple[str, ...] = option(
        "Generations to time, as llama-bench's -n; 0: none; repeatable.",
        default=(),
        metavar="TOKENS",
        show_default="128",
    )
    pg: tuple[str, ...] = _tests_option(
        "Prompts with a generation after each", "-pg", split=whole, metavar="TOKENS,TOKENS", show_default="512,128"
    )
    repetitions: int = repetitions_option()

    @property
    def tests(self) -> BenchTests | None:
        """What to measure, None for nothing; BadUsage for what is not a number of tokens."""
        if not (self.speed or self.n_prompt or self.n_gen or self.pg):
            return None
        tests = BenchTests(
            _lengths("--n-prompt", self.n_prompt) if self.n_prompt else USUAL_TESTS.prompt,
            _lengths("--n-gen", self.n_gen) if self.n_gen else USUAL_TESTS.generation,
            _pairs(self.pg) if self.pg else USUAL_TESTS.combined,
        )
        if not tests.lengths:
            raise BadUsage("--n-prompt 0, --n-gen 0 and --pg 0 leave no test; leave one of them out")
        return tests

    @property
    def words(self) -> tuple[str, ...]:
        """The options as they are typed; none where nothing is to be measured."""
        if self.tests is None:
            return ()
        pairs = (("--n-prompt", self.n_prompt), ("--n-gen", self.n_gen), ("--pg", self.pg))
        typed = (word for name, values in pairs for value in values for word in (name, value))
        return ("--speed", *typed, "--repetitions", str(self.repetitions))


def _lengths(name: str, words: Sequence[str]) -> tuple[int, ...]:
    return tuple(
        filter(None, dict.fromkeys(_tokens(name, word, "write tokens, several as 512,2048") for word in words))
    )


def _pairs(words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    return tuple(filter(None, dict.fromkeys(map(_pair, words))))


def _pair(word: str) -> tuple[int, int] | None:
    """Prompt and generation; None for 0."""
    if word.strip() == "0":
        return None
    lengths = [_tokens("--pg", part, _PAIR) for part in word.split(",")]
    if len(lengths) != 2 or 0 in lengths:
        raise BadUsage(f"--pg {word}: {_PAIR}")
    return lengths[0], lengths[1]


def _tokens(name: str, word: str, advice: str) -> int:
    tokens = whole_number(word.strip())
    if tokens is None or tokens > _MOST:
        raise BadUsage(f"{name} {word}: not a number of tokens up to {_MOST:,}; {advice}")
    return tokens
