"""The base model's logits of a text, and the scores of files against them, on float32 logits in this process.

The base runs once and its logits stay in memory; then each file is loaded alone and runs on the same chunks. Where the logits
of all chunks do not fit, the chunks are taken in groups and the files are loaded again for each group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import psutil

from quantplan.cache_types import CacheTypes, kv_name
from quantplan.errors import BadFile
from quantplan.evaluate.same_tokens import TokenizedText, tokenize
from quantplan.llamacpp.engine import Engine, chunks_per_batch
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.token_scores import BaseRows, TokenScores, base_rows, joined, token_scores
from quantplan.measurement import Conditions
from quantplan.progress import Advance
from quantplan.records.journal import text_digest
from quantplan.tensor import Model
from quantplan.text import Text

ENGINE = "in-process"
Run = tuple[Model, CacheTypes]  # what is scored: a file, and the types of its KV cache


class BaseLogits:
    """The chunks of a text in groups whose logits fit into memory, and the base's logits for one group at a time.

    ``limit``: chunks at most. ``memory_bytes``: for the logits, and at most half of what is free. Raises BadFile, TextTooShort.
    """

    def __init__(self, base: Model, text: Text, engine: EngineOptions, limit: int | None, memory_bytes: int) -> None:
        self.base, self.text, self.engine = base, text, engine
        self.tokens = tokenize(base, text, engine.n_ctx, limit)
        self.chunks = self.tokens.chunks
        self.groups = chunk_groups(self.tokens, memory_bytes)
        self._logits: np.ndarray | None = None

    def conditions(self, cache_types: CacheTypes) -> Conditions:
        """Of a run with these types of the KV cache."""
        return Conditions(
            text_digest=text_digest(self.text),
            n_ctx=self.engine.n_ctx,
            chunks=len(self.chunks),
            base_digest=self.base.digest,
            engine=ENGINE,
            backend=self.engine.execution.backend,
            llama_cpp=f"llama-cpp-python {version('llama-cpp-python')}",
            cache_types=kv_name(cache_types),
        )

    def scores(self, runs: Sequence[Run], step: Advance) -> Iterator[tuple[Run, TokenScores]]:
        """Each run with its scores of the whole text, as soon as it has done its last group."""
        parts: dict[int, list[TokenScores]] = {number: [] for number in range(len(runs))}
        for group in self.groups if runs else ():
            rows = self._rows(group, step)
            for number, run in enumerate(runs):
                parts[number].append(self._score(run, group, rows, step))
                if group is self.groups[-1]:
                    yield run, joined(parts.pop(number))

    def _rows(self, group: slice, step: Advance) -> BaseRows:
        """The base's logits for a group, which overwrite those of the last group. Its model is freed before a file is loaded."""
        with Engine(self.base, self.engine) as engine:
            chunks, per_chunk = self.chunks[group], _scored(self.engine.n_ctx)
            if self._logits is None:
                self._logits = np.empty((len(chunks) * per_chunk, engine.vocabulary), np.float32)
            log_sums, first = [], 0
            for logits in engine.logits(chunks):
                last = first + len(logits) * per_chunk
                log_sums.append(base_rows(logits, self._logits[first:last]).log_sum)
                first = last
                step(len(logits))
        _check_finite(log_sums, self.base)
        return BaseRows(self._logits[:first], np.concatenate(log_sums))

    def _score(self, run: Run, group: slice, base: BaseRows, step: Advance) -> TokenScores:
        """The run's scores on a group of chunks."""
        model, cache_types = run
        chunks, first = self.chunks[group], 0
        scores: list[TokenScores] = []
        with Engine(model, replace(self.engine, cache_types=cache_types)) as engine:
            for logits in engine.logits(chunks):
                batch = chunks[len(scores) * engine.chunks_per_batch :][: len(logits)]
                targets = batch[:, engine.first_scored + 1 :].reshape(-1)
                rows = slice(first, first + len(targets))
                scores.append(token_scores(BaseRows(base.logits[rows], base.log_sum[rows]), logits, targets))
                first = rows.stop
                step(len(logits))
        _check_finite([score.kld + score.nll for score in scores], model)
        return joined(scores)


def chunk_groups(tokens: TokenizedText, memory_bytes: int) -> list[slice]:
    """Whole batches of chunks, so that results do not depend on the memory: the size of a batch may change rounding."""
    chunks, n_ctx = tokens.chunks.shape
    together = chunks_per_batch(n_ctx)
    room = min(memory_bytes, psutil.virtual_memory().available // 2)
    per_chunk = _scored(n_ctx) * tokens.vocabulary * np.dtype(np.float32).itemsize
    size = max(1, room // (per_chunk * together)) * together
    return [slice(start, min(start + size, chunks)) for start in range(0, chunks, size)]


def _scored(n_ctx: int) -> int:
    """Tokens of a chunk that are scored: those of its second half but the last, which predicts a token outside of it."""
    return n_ctx - n_ctx // 2 - 1


def _check_finite(arrays: list[np.ndarray], model: Model) -> None:
    if not all(np.isfinite(values).all() for values in arrays):
        raise BadFile(
            f"{model.path}: the model produced NaN or infinite logits on this text; the file may be corrupt: "
            "build or download it again"
        )
