"""Where a chunk stands in its text."""

from collections.abc import Sequence
from dataclasses import replace

from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.spikes import Spike
from quantplan.tensor import Model

_SHOWN = 60  # characters of the text


def placed(spikes: Sequence[Spike], model: Model, text: str, n_ctx: int) -> tuple[Spike, ...]:
    """The spikes with line and first words of their scored halves; only the model's vocabulary is loaded.

    As far as tokens give back their text: a tokenizer that rewrites white space moves the place by a few characters.
    """
    if not spikes:
        return ()
    raw = text.encode()
    with Engine(model.path, EngineOptions(n_ctx, vocabulary_only=True)) as engine:
        tokens = engine.tokenize(text).tolist()
        ends = {(spike.chunk - 1) * n_ctx + n_ctx // 2: spike.chunk for spike in spikes}
        places, offset, read = {}, 0, 0
        for end in sorted(ends):
            offset += sum(len(engine.piece(token)) for token in tokens[read:end])
            read = end
            places[ends[end]] = offset
    return tuple(
        replace(spike, line=raw[: places[spike.chunk]].count(b"\n") + 1, words=_words(raw[places[spike.chunk] :]))
        for spike in spikes
    )


def _words(raw: bytes) -> str:
    return " ".join(raw[: 8 * _SHOWN].decode("utf-8", "ignore").split())[:_SHOWN]
