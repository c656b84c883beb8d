"""A model's own MTP block run in this process: what it drafts for each position of a text, next to what the model predicts there.

llama.cpp's speculative decoding (``common_speculative_impl_draft_mtp``, common/speculative.cpp) gives the block the state of the
position before and the token of this one; its logits are a draft of the next token. Contexts of that type are in llama.h; the two
functions that hand the state over are in llama-ext.h, in C++, and found by their mangled names where the platform has those.
"""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from quantplan.errors import BadUsage, ToolMissing
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.libraries import library_path
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.nodes import NodeWatcher
from quantplan.llamacpp.signatures import GgmlTensor
from quantplan.tensor import Model

_SET = "_Z26llama_set_embeddings_nextnP13llama_contextbb"
_GET = "_Z26llama_get_embeddings_nextnP13llama_context"


class DraftEngine(Engine):
    """A loaded model whose first MTP block runs, too. BadUsage for a model without one, ToolMissing where llama.cpp cannot."""

    def __init__(self, source: Model, options: EngineOptions) -> None:
        if not source.mtp_blocks:
            raise BadUsage(
                f"{source.path}: no block of it predicts further tokens (MTP), so it drafts nothing by itself; leave --drafts out"
            )
        self._set, self._get = _state_functions()
        super().__init__(source, options)
        self._contexts: tuple[int, int] | None = None

    def close(self) -> None:
        """Frees contexts and model."""
        for context in self._contexts or ():
            self._llama.llama_free(context)
        self._contexts = None
        super().close()

    def _model_parameters(self) -> Any:
        parameters = super()._model_parameters()
        parameters.load_mtp = True
        return parameters

    def __enter__(self) -> "DraftEngine":
        return self

    def predictions(self, chunks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each chunk the logits of model and draft, float32 [scored positions, vocabulary] each, for the same next tokens.

        The arrays are llama.cpp's own: they change with the next chunk.
        """
        model, draft = self._opened()
        for chunk in chunks:
            self.forward(model, chunk[None])
            count, first = len(chunk), self.first_scored
            states = np.ctypeslib.as_array(self._get(model), (count, self._width)).copy()
            self._draft(draft, chunk, states)
            scored = slice(first, count - 1)
            pointers = (self._llama.llama_get_logits(context) for context in (model, draft))
            of_model, of_draft = (np.ctypeslib.as_array(each, (count, self.vocabulary))[scored] for each in pointers)
            yield of_model, of_draft

    def _opened(self) -> tuple[int, int]:
        if self._contexts is None:
            tokens = self.options.n_ctx
            self._width = int(self._llama.llama_model_n_embd_out(self.model))
            model = self.new_context(tokens, 1, n_ubatch=tokens)
            self._set(model, True, False)
            self._contexts = model, self._draft_context(tokens)
            self._check_runs()
        return self._contexts

    def _draft_context(self, tokens: int, watch: NodeWatcher | None = None) -> int:
        return self.new_context(tokens, 1, watch, n_ubatch=tokens, ctx_type=self._llama.LLAMA_CONTEXT_TYPE_MTP)

    def _check_runs(self) -> None:
        """BadUsage where the graph for drafts has no weight of the block: llama.cpp runs it of some architectures only, of
        others such a context runs the model itself.
        """
        assert self._source is not None
        block = f"blk.{self._source.main_blocks}.".encode()
        seen: list[int] = []

        def look(node: GgmlTensor, ask: bool) -> bool:
            seen.extend(1 for source in node.src if source and source.contents.name.startswith(block))
            return False

        context = self._draft_context(8, look)
        try:
            self._draft(context, np.zeros(8, np.int32), np.zeros((8, self._width), np.float32))
        finally:
            self.free_context(context)
        if not seen:
            raise BadUsage(
                f"{self._source.path}: llama.cpp runs no MTP block of {self._source.architecture} models; leave --drafts out"
            )

    def _draft(self, context: int, tokens: np.ndarray, states: np.ndarray) -> None:
        """One decode of the MTP block: at each position its token and the state of the position before, zeros at the first."""
        llama, count = self._llama, len(tokens)
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        batch = llama.llama_batch_init(count, self._width, 1)  # with room for states; the tokens are ours
        kept = np.ascontiguousarray(tokens, np.int32)
        batch.token = ctypes.cast(kept.ctypes.data, type(batch.token))
        try:
            rows = np.ctypeslib.as_array(batch.embd, (count, self._width))
            rows[0], rows[1:] = 0, states[:-1]
            self._place(batch, count, 1, 0)
            self.run(context, batch)
        finally:
            batch.token = None
            llama.llama_batch_free(batch)


def _state_functions() -> tuple[Callable[..., None], Callable[..., Any]]:
    """(Set whether a context keeps the states, pointer to them)."""
    path = Path(library_path("llama"))
    library = ctypes.CDLL(str(path))
    try:
        switch, states = getattr(library, _SET), getattr(library, _GET)
    except AttributeError:
        raise ToolMissing(
            f"{path} does not have what MTP blocks are run with here; leave --drafts out, or measure with llama-server "
            "--spec-type draft-mtp"
        ) from None
    switch.argtypes, switch.restype = [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool], None
    states.argtypes, states.restype = [ctypes.c_void_p], ctypes.POINTER(ctypes.c_float)
    return switch, states
