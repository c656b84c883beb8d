"""Where a chunk stands in its text."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.spikes import Spike
from quantplan.tensor import Model
from quantplan.text import Domains, OneText, SpecialText, Text, content

_SHOWN = 60  # characters of the text


def placed(
    spikes: Sequence[Spike], model: Model, text: Text, n_ctx: int, domains: Sequence[tuple[str, int]] = ()
) -> tuple[Spike, ...]:
    """The spikes with line and first words of their scored halves; only the model's vocabulary is loaded.

    As far as tokens give back their text: a tokenizer that rewrites white space moves the place by a few characters. The line
    of a chat is that of its file. ``domains``: names and numbers of chunks that were measured, where the text has several.
    """
    if not spikes:
        return ()
    parts = {part.name: part.text for part in text.parts} if isinstance(text, Domains) else {"": text}
    numbers = [(name, number) for name, count in domains for number in range(1, count + 1)]
    with Engine(model.path, EngineOptions(n_ctx, vocabulary_only=True)) as engine:
        read: dict[str, _ReadText] = {}
        found = []
        for spike in spikes:
            name, number = numbers[spike.chunk - 1] if numbers else ("", spike.chunk)
            if name not in read:
                read[name] = _ReadText(parts[name], engine)
            line, words = read[name].place((number - 1) * n_ctx + n_ctx // 2)
            found.append(replace(spike, line=line, words=words, domain=name))
        return tuple(found)


class _ReadText:
    """A text next to its tokens."""

    def __init__(self, text: OneText, engine: Engine) -> None:
        self._text, self._raw = text, content(text).encode("utf-8", "surrogateescape")
        special, tokens = isinstance(text, SpecialText), engine.tokenize(text).tolist()
        sizes = [len(engine.piece(token, special)) for token in tokens]
        if special and not self._raw.startswith(engine.piece(tokens[0], special)):
            sizes[0] = 0  # a BOS token that the tokenizer adds is not in the text
        self._ends = [0, *accumulate(sizes)]

    def place(self, token: int) -> tuple[int, str]:
        """Line and first words from a token on."""
        at = self._ends[token]
        return _line(self._text, self._raw[:at]), _words(self._raw[at:])


def _line(text: OneText, before: bytes) -> int:
    if isinstance(text, SpecialText):
        return text.line(len(before.decode("utf-8", "ignore")))
    return before.count(b"\n") + 1


def _words(raw: bytes) -> str:
    return " ".join(raw[: 8 * _SHOWN].decode("utf-8", "ignore").split())[:_SHOWN]
