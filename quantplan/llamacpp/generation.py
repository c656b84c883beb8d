"""Greedy answers of a loaded model to many prompts at once, as sequences of one context.

The likeliest token is taken at every step (of equals the one with the lowest number), until the model ends its answer or
the tokens asked for are there. Nothing is drawn, so the same model and the same prompts give the same texts. Which prompts
are decoded together is decided by their number and lengths alone, never by memory, time or threads, because the rounding of
a sum depends on the shape of the matrix product that it is part of. For the same reason flash attention is off: its CPU code
cuts long sequences into as many parts as there are threads.

Works on the weights as they are in memory, also after ``Engine.put``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from quantplan.errors import QuantplanError
from quantplan.llamacpp.chat import Prompt
from quantplan.llamacpp.engine import Engine
from quantplan.progress import Advance
from quantplan.text import SpecialText

AT_ONCE = 32  # sequences that are decoded together
_CELLS = 16384  # places of all their caches: below 2 GiB for models up to 2B, whatever memory there is
_CELL_BLOCK = 256  # llama.cpp rounds a sequence's share of the context up to this
ENDED, LENGTH, STOPPED, BROKEN = "ended", "length", "stop", "broken"
TOO_LONG, EMPTY = "too long", "empty"


@dataclass(frozen=True)
class GenerationRequest:
    prompt: Prompt
    max_tokens: int


@dataclass(frozen=True)
class Generation:
    """``text``: the answer, special tokens written out, the one that ends it left out; ``tokens`` that it took.

    ``ending``: ENDED by the model, LENGTH: all tokens used, STOPPED at a text that ends answers, BROKEN: the model's logits
    are NaN or infinite, TOO_LONG: the prompt does not fit the context that the model was trained for, EMPTY: it has no token.
    """

    text: str
    tokens: int
    ending: str


def generate(engine: Engine, requests: Sequence[GenerationRequest], step: Advance | None = None) -> list[Generation]:
    """An answer to each request, in their order. ``step`` is told how many more are finished.

    Raises QuantplanError for a model that cannot generate, or where memory does not suffice.
    """
    import llama_cpp

    step = step or (lambda _count: None)
    if llama_cpp.llama_model_has_encoder(engine.model):
        raise QuantplanError("a model with an encoder cannot continue a text by itself; score decoder models only")
    trained = int(llama_cpp.llama_model_n_ctx_train(engine.model))
    sequences = [_Sequence(request, engine, trained) for request in requests]
    waiting = [each for each in sequences if not each.ending]
    step(len(sequences) - len(waiting))
    for cells in sorted({each.cells for each in waiting}):
        alike = sorted((each for each in waiting if each.cells == cells), key=lambda each: each.most)
        with _Decoder(engine, alike, cells) as decoder:
            for group in decoder.groups:
                decoder.run(group)
                step(len(group))
    return [each.result() for each in sequences]


@dataclass
class _Sequence:
    """One request on its way: ``tokens`` of the prompt, ``pieces`` of the answer so far."""

    request: GenerationRequest
    engine: Engine
    trained: int
    pieces: list[bytes] = field(default_factory=list)
    ending: str = ""

    def __post_init__(self) -> None:
        prompt = self.request.prompt
        self.tokens = self.engine.tokenize(SpecialText((prompt.text,)) if prompt.special else prompt.text)
        self.most = min(self.request.max_tokens, self.trained - len(self.tokens))
        self._stops = [each.encode() for each in prompt.stop]
        if self.most < 1 or not len(self.tokens):
            self.ending = TOO_LONG if self.most < 1 else EMPTY

    @property
    def cells(self) -> int:
        """Places of the cache that it may need, as llama.cpp shares them out."""
        return -(-(len(self.tokens) + self.most) // _CELL_BLOCK) * _CELL_BLOCK

    def take(self, token: int, piece: bytes | None) -> None:
        """The next token; ``piece`` None: one that ends the answer."""
        if piece is None:
            self.ending = ENDED
            return
        self.pieces.append(piece)
        self.last = token
        if any(stop in b"".join(self.pieces[-len(stop) - 1 :]) for stop in self._stops):
            self.ending = STOPPED
        elif len(self.pieces) == self.most:
            self.ending = LENGTH

    def result(self) -> Generation:
        raw = b"".join(self.pieces)
        for stop in self._stops:
            raw = raw.partition(stop)[0]
        return Generation(raw.decode("utf-8", "replace"), len(self.pieces), self.ending)


class _Decoder:
    """A context for groups of sequences, and the batch they are decoded in. Use it as a context manager."""

    def __init__(self, engine: Engine, waiting: list[_Sequence], cells: int) -> None:
        import llama_cpp

        self._llama, self._engine = llama_cpp, engine
        together = min(len(waiting), AT_ONCE, max(1, _CELLS // cells))
        self.groups = [waiting[start : start + together] for start in range(0, len(waiting), together)]
        room = max(sum(len(each.tokens) for each in group) for group in self.groups)
        self._context = engine.new_context(
            cells,
            together,
            n_batch=max(room, together),
            n_outputs_max=together,
            flash_attn_type=llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        )
        self._batch = llama_cpp.llama_batch_init(max(room, together), 0, 1)

    def __enter__(self) -> "_Decoder":
        return self

    def __exit__(self, *_error: object) -> None:
        self._llama.llama_batch_free(self._batch)
        self._llama.llama_free(self._context)

    def run(self, group: list[_Sequence]) -> None:
        """Decodes the group until all its answers have ended."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), True)
        active = list(enumerate(group))
        logits = self._decode(self._prompts(group), len(group))
        while True:
            self._choose([sequence for _, sequence in active], logits)
            active = [(slot, sequence) for slot, sequence in active if not sequence.ending]
            if not active:
                return
            logits = self._decode(self._next(active), len(active))

    def _choose(self, sequences: list[_Sequence], logits: np.ndarray) -> None:
        best = logits.argmax(axis=1)
        sound = np.isfinite(logits[np.arange(len(best)), best])  # argmax finds a NaN where there is one
        for sequence, token, number in zip(sequences, best.tolist(), sound.tolist(), strict=True):
            if number:
                sequence.take(token, self._piece(token))
            else:
                sequence.ending = BROKEN

    def _piece(self, token: int) -> bytes | None:
        """The token's bytes; None for one that ends an answer."""
        if self._llama.llama_vocab_is_eog(self._engine.vocab, token):
            return None
        return self._engine.piece(token, special=True)

    @staticmethod
    def _prompts(group: list[_Sequence]) -> Iterator[tuple[int, int, int, bool]]:
        """(token, position, sequence, whether its logits are wanted) of all prompts."""
        for slot, sequence in enumerate(group):
            last = len(sequence.tokens) - 1
            yield from ((int(token), place, slot, place == last) for place, token in enumerate(sequence.tokens))

    @staticmethod
    def _next(active: list[tuple[int, _Sequence]]) -> Iterator[tuple[int, int, int, bool]]:
        return (
            (sequence.last, len(sequence.tokens) + len(sequence.pieces) - 1, slot, True) for slot, sequence in active
        )

    def _decode(self, entries: Iterator[tuple[int, int, int, bool]], outputs: int) -> np.ndarray:
        """float32 [wanted, vocabulary]: llama.cpp's own buffer, valid until the next decode."""
        batch, count = self._batch, 0
        for count, (token, place, slot, output) in enumerate(entries, 1):
            index = count - 1
            batch.token[index], batch.pos[index] = token, place
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, slot
            batch.logits[index] = output
        batch.n_tokens = count
        self._engine.run(self._context, batch)
        pointer = self._llama.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (outputs, self._engine.vocabulary))
