"""A model loaded in this process: logits of chunks of tokens, and the swap of one tensor's weights in memory.

Everything goes through llama.cpp's public API. Weights are found by watching the nodes of one decode
(``cb_eval``) and replaced with ``ggml_backend_tensor_set``, which works on any backend and repacks where the
backend does. Memory-mapped weights are read-only, so a model whose tensors are to be swapped is loaded without mmap.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from quantplan.abilities import PLAN_WITHOUT_TEXT, check_positions, check_predicts
from quantplan.errors import BadFile, BadUsage, QuantplanError, TextTooShort
from quantplan.llamacpp.libraries import base
from quantplan.llamacpp.loaded_model import EngineOptions, LoadedModel
from quantplan.llamacpp.nodes import NodeWatcher
from quantplan.llamacpp.signatures import GgmlTensor
from quantplan.quant_type import QuantType, ggml_type
from quantplan.tensor import Model
from quantplan.text import Domains, OneText, Text

_BATCH_TOKENS = 2048  # llama-perplexity's default n_batch: chunks are decoded together up to this many tokens


def chunks_per_batch(n_ctx: int) -> int:
    """Chunks that are decoded together."""
    return max(1, _BATCH_TOKENS // n_ctx)


def shared_out(limit: int | None, available: Sequence[int], least: int = 2) -> list[int]:
    """Of several texts how many chunks each: ``limit`` in all as evenly as they have them, at least ``least`` each."""
    counts = list(available)
    if limit is None:
        return counts
    left = limit
    for place, at in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        share = -(-left // (len(counts) - place))
        counts[at] = min(counts[at], max(share, least))
        left = max(0, left - counts[at])
    return counts


class Engine(LoadedModel):
    """A loaded model that turns chunks of tokens into logits. Use it as a context manager.

    Of a ``Model`` the predictions are asked for: BadUsage where it has none, see ``abilities``. A path is loaded whatever it is.
    """

    def __init__(
        self, source: Model | Path | str, options: EngineOptions | None = None, watch: NodeWatcher | None = None
    ) -> None:
        if isinstance(source, Model):
            check_predicts(source)
        super().__init__(Path(source.path if isinstance(source, Model) else source), options or EngineOptions())
        self._source = source if isinstance(source, Model) else None
        self._handles: dict[str, list[int]] = {}
        self._watch = watch
        self._context: int | None = None
        self._raised: BaseException | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees context and model."""
        if self._context is not None:
            self._llama.llama_free(self._context)
            self._context = None
        super().close()

    def new_context(self, n_ctx: int, chunks: int, watch: NodeWatcher | None = None, **settings: int) -> int:
        """A context for ``chunks`` sequences of ``n_ctx`` tokens, to be freed by the caller with ``llama_free``.

        ``settings``: fields of llama_context_params that are not to have their defaults.
        """
        parameters = self._llama.llama_context_default_params()
        parameters.n_ctx = n_ctx * chunks
        parameters.n_batch = n_ctx * chunks
        parameters.n_seq_max = chunks
        parameters.n_threads = parameters.n_threads_batch = self.options.execution.threads_used
        for name, value in settings.items():
            setattr(parameters, name, value)
        if watch is not None:
            self._eval = self._llama.ggml_backend_sched_eval_callback(self._guarded(watch))
            parameters.cb_eval = self._eval
        self._log.clear()
        context = self._llama.llama_init_from_model(self.model, parameters)
        if not context:
            raise QuantplanError(f"llama.cpp cannot make a context of {n_ctx} tokens: {self._reason()}")
        if self._source and not self._llama.llama_get_memory(context):  # no cache: attention to both sides
            self._llama.llama_free(context)
            raise BadUsage(
                f"{self._source.path}: llama.cpp runs {self._source.architecture} as an encoder, which has no next-token "
                f"logits, so PPL and KLD cannot be taken; {PLAN_WITHOUT_TEXT}"
            )
        return context

    def free_context(self, context: int) -> None:
        """Frees what ``new_context`` made."""
        self._llama.llama_free(context)

    def _guarded(self, watch: NodeWatcher) -> Callable[[int, bool, int], bool]:
        """ctypes swallows what a callback raises: keep it and raise it after the decode."""

        def call(node: int, ask: bool, _data: int) -> bool:
            try:
                return watch(ctypes.cast(node, ctypes.POINTER(GgmlTensor)).contents, ask)
            except BaseException as error:  # noqa: BLE001 - raised again in run
                self._raised = error
                return False

        return call

    def run(self, context: int, batch: object) -> None:
        """One llama_decode; raises what a watcher raised, or QuantplanError where llama.cpp fails."""
        self._raised = None
        code = self._llama.llama_decode(context, batch)
        if self._raised is not None:
            raise self._raised
        if code != 0:
            raise QuantplanError(
                f"llama.cpp could not run the model (llama_decode returned {code}); is there memory enough?"
            )

    def chunks(self, text: Text, limit: int | None = None) -> np.ndarray:
        """int32 [chunks, n_ctx]: the text cut as llama-perplexity cuts it; what is left over is dropped.

        A vocabulary with a BOS token has it in front of each chunk. TextTooShort below two chunks, like the tool; BadUsage for
        chunks longer than the model's table of positions. Domains: as ``domain_chunks``, one after the other.
        """
        return np.concatenate(list(self.domain_chunks(text, limit).values()))

    def domain_chunks(self, text: Text, limit: int | None = None) -> dict[str, np.ndarray]:
        """The chunks of each domain by its name, "" for a text that has none. Each is cut by itself and has two chunks at least,
        else TextTooShort names it. ``limit``: chunks in all, shared out evenly.
        """
        if not isinstance(text, Domains):
            return {"": self._cut(text, "the text")[:limit].copy()}
        cut = {part.name: self._cut(part.text, f"the text {part.name}") for part in text.parts}
        counts = shared_out(limit, [len(chunks) for chunks in cut.values()])
        return {name: chunks[:count].copy() for (name, chunks), count in zip(cut.items(), counts, strict=True)}

    def _cut(self, text: OneText, called: str) -> np.ndarray:
        n_ctx = self.options.n_ctx
        if self._source:
            check_positions(self._source, n_ctx)
        tokens = self.tokenize(text)
        if len(tokens) < 2 * n_ctx:
            raise TextTooShort(
                f"{called} has {len(tokens)} tokens, at least {2 * n_ctx} are needed for chunks of {n_ctx}; "
                "give more text or a smaller --ctx"
            )
        count = len(tokens) // n_ctx
        cut = tokens[: count * n_ctx].reshape(count, n_ctx)
        if self._llama.llama_vocab_get_add_bos(self.vocab):
            cut[:, 0] = self._llama.llama_vocab_bos(self.vocab)
        return cut

    @property
    def first_scored(self) -> int:
        """Position in the chunk from which on the next token is scored: only the second half counts."""
        return self.options.n_ctx // 2

    @property
    def chunks_per_batch(self) -> int:
        return chunks_per_batch(self.options.n_ctx)

    def logits(self, chunks: np.ndarray) -> Iterator[np.ndarray]:
        """For each batch of chunks float32 [chunks in batch, scored positions, vocabulary].

        The array is llama.cpp's own buffer: it changes with the next batch. The last position of a chunk predicts
        a token outside of it and is left out, as llama-perplexity does.
        """
        size = self.chunks_per_batch
        if self._context is None:
            types = {
                f"type_{which}": quant.ggml_id for which, quant in zip("kv", self.options.cache_types, strict=True)
            }
            self._context = self.new_context(self.options.n_ctx, size, self._watch, **types)
        for start in range(0, len(chunks), size):
            yield self._decode(chunks[start : start + size], self._context)

    def _decode(self, chunks: np.ndarray, context: int) -> np.ndarray:
        count, n_ctx = chunks.shape
        self.forward(context, chunks, self.first_scored)
        scored = n_ctx - self.first_scored
        pointer = self._llama.llama_get_logits(context)
        flat = np.ctypeslib.as_array(pointer, (count, scored, self.vocabulary))[:, :-1]
        if all_equal(flat).any():
            raise BadFile(
                f"{self.path}: the model gives every token the same logit over a whole chunk: it has no next-token "
                "predictions, or the file is corrupt; build or download it again"
            )
        return flat

    def forward(self, context: int, chunks: np.ndarray, first_output: int = 0) -> None:
        """One decode of int32 [chunks, tokens] from an empty memory; outputs are asked for from ``first_output`` on.

        The last block computes its feed-forward part for outputs only.
        """
        llama = self._llama
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        batch = llama.llama_batch_init(chunks.size, 0, 1)
        try:
            self._fill(batch, chunks, first_output)
            self.run(context, batch)
        finally:
            llama.llama_batch_free(batch)

    def _fill(self, batch: Any, chunks: np.ndarray, first_output: int) -> None:
        count, n_ctx = chunks.shape
        np.ctypeslib.as_array(ctypes.cast(batch.token, ctypes.POINTER(ctypes.c_int32)), (chunks.size,))[:] = (
            chunks.reshape(-1)
        )
        self._place(batch, n_ctx, count, first_output)

    def _place(self, batch: Any, n_ctx: int, count: int, first_output: int) -> None:
        """Positions, sequences and outputs of ``count`` chunks."""
        total = count * n_ctx

        def view(pointer: Any, dtype: type) -> np.ndarray:
            return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(dtype)), (total,))

        view(batch.pos, ctypes.c_int32)[:] = np.tile(np.arange(n_ctx, dtype=np.int32), count)
        view(batch.n_seq_id, ctypes.c_int32)[:] = 1
        view(batch.logits, ctypes.c_int8)[:] = np.tile(np.arange(n_ctx) >= first_output, count)
        for index in range(total):
            batch.seq_id[index][0] = index // n_ctx
        batch.n_tokens = total

    def find_weights(self, names: set[str]) -> set[str]:
        """Looks for the named tensors in the graph of one decode; returns those found, which can be swapped.

        A tensor may live at several places (tied embeddings on two devices): all of them are swapped.
        """
        addresses_of: dict[str, set[int]] = {}

        def look(node: GgmlTensor, ask: bool) -> bool:
            for source in node.src:
                if source:
                    name = source.contents.name.decode("utf-8", "replace")
                    if name in names:
                        addresses_of.setdefault(name, set()).add(ctypes.addressof(source.contents))
            return False

        tokens = min(self.options.n_ctx, 32)
        context = self.new_context(tokens, 1, look)
        try:
            self.forward(context, np.zeros((1, tokens), np.int32), self.first_scored)
        finally:
            self._llama.llama_free(context)
        self._handles |= {name: sorted(addresses) for name, addresses in addresses_of.items()}
        return set(addresses_of)

    def stored_type(self, name: str) -> QuantType:
        """The type in which the loaded model holds the tensor."""
        kind = ggml_type(ctypes.cast(self._handles[name][0], ctypes.POINTER(GgmlTensor)).contents.type)
        assert kind is not None
        return kind

    def put(self, name: str, data: np.ndarray) -> None:
        """Replaces the tensor's bytes in memory; ``data``: uint8, all rows in the tensor's own type."""
        if not self.options.swappable:
            raise ValueError("the model was loaded memory-mapped; load it with swappable=True")
        data = np.ascontiguousarray(data)
        for address in self._handles[name]:
            base().ggml_backend_tensor_set(address, data.ctypes.data, 0, data.nbytes)


def all_equal(logits: np.ndarray) -> np.ndarray:
    """bool [chunks]: whether the logits of all tokens are the same at every position of a chunk: nothing was computed."""
    even = (logits[:, :, 0] == logits[:, :, -1]).all(axis=1)  # the first and the last token are seldom equal
    even[even] = [bool((chunk == chunk[:, :1]).all()) for chunk in logits[even]]
    return even
