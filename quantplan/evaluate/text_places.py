"""Where a chunk stands in its text."""

from collections.abc import Sequence
from dataclasses import replace

from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.spikes import Spike
from quantplan.tensor import Model
from quantplan.text import SpecialText, Text, content

_SHOWN = 60  # characters of the text


def placed(spikes: Sequence[Spike], model: Model, text: Text, n_ctx: int) -> tuple[Spike, ...]:
    """The spikes with line and first words of their scored halves; only the model's vocabulary is loaded.

    As far as tokens give back their text: a tokenizer that rewrites white space moves the place by a few characters. The line
    of a chat is that of its file.
    """
    if not spikes:
        return ()
    raw, special = content(text).encode("utf-8", "surrogateescape"), isinstance(text, SpecialText)
    with Engine(model.path, EngineOptions(n_ctx, vocabulary_only=True)) as engine:
        tokens = engine.tokenize(text).tolist()
        ends = {(spike.chunk - 1) * n_ctx + n_ctx // 2: spike.chunk for spike in spikes}
        places, offset = {}, 0
        # a BOS token that the tokenizer adds is not in the text
        read = int(special and not raw.startswith(engine.piece(tokens[0], special)))
        for end in sorted(ends):
            offset += sum(len(engine.piece(token, special)) for token in tokens[read:end])
            read = end
            places[ends[end]] = offset
    return tuple(
        replace(spike, line=_line(text, raw[: places[spike.chunk]]), words=_words(raw[places[spike.chunk] :]))
        for spike in spikes
    )


def _line(text: Text, before: bytes) -> int:
    if isinstance(text, SpecialText):
        return text.line(len(before.decode("utf-8", "ignore")))
    return before.count(b"\n") + 1


def _words(raw: bytes) -> str:
    return " ".join(raw[: 8 * _SHOWN].decode("utf-8", "ignore").split())[:_SHOWN]
