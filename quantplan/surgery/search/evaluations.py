"""What a text says of layer maps: PPL and KLD of each, and the score at a suite, from a model in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from quantplan.budget import human_bytes
from quantplan.errors import BadFile, BadUsage
from quantplan.evaluate.figures import figures
from quantplan.evaluate.same_tokens import tokenize
from quantplan.evaluate.suites.scoring import ppl_ratio, score_loaded
from quantplan.evaluate.suites.suite import Suite
from quantplan.execution import Execution
from quantplan.gguf.imatrix_files import read_imatrix
from quantplan.llamacpp.engine import EngineOptions
from quantplan.llamacpp.token_scores import BaseRows, base_rows, joined, token_scores
from quantplan.measurement import Estimate
from quantplan.records.codec import finite
from quantplan.sensitivity.probe_tasks import model_here
from quantplan.surgery.assembly import assemble
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.host import Host, frame
from quantplan.tensor import Model

VERSION = 1  # of scores in the cache; 1: first
DEFAULT_TOKENS = 8192
_LOGIT_BYTES = 2 << 30  # of the original's logits that are kept in memory, where no number of windows is asked for


@dataclass(frozen=True)
class EvaluationJob:
    """All that a reading depends on but the map; the model by path and digest: a worker reads what is meant, or refuses.

    ``folder``: where files of hosts may be for a moment. ``suite``: what is asked besides, if anything is.
    """

    model: Path
    model_digest: str
    text: str
    n_ctx: int
    chunks: int
    folder: Path
    execution: Execution = Execution()
    imatrix: Path | None = None
    suite: Suite | None = None

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(self.n_ctx, self.execution, swappable=True)


@dataclass(frozen=True)
class CandidateScore:
    """Figures of one map. ``nll``: mean negative log likelihood by window. None and empty where logits are no numbers.

    ``score``: out of 100, and ``scores``, credits of the parts from 0 to 1, where there is a suite.
    """

    ppl: Estimate | None
    kld: Estimate | None
    nll: tuple[float, ...] = ()
    score: Estimate | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class SearchTiming:
    """Where the seconds of readings went: ``forward``: in llama.cpp's forward passes; ``load``: in loading hosts."""

    total: float = 0.0
    forward: float = 0.0
    load: float = 0.0
    readings: int = 0

    @property
    def overhead(self) -> float | None:
        """Seconds of readings over those of their forward passes and loading; None where nothing was read."""
        bare = self.forward + self.load
        return self.total / bare if bare > 0 else None


def chunks_of(model: Model, text: str, n_ctx: int, wanted: int | None, jobs: int = 1) -> int:
    """Windows that are read: those wanted as far as the text goes, else ``DEFAULT_TOKENS`` or 2 GiB of logits, whatever is less.

    Raises TextTooShort, and BadUsage where ``jobs`` processes cannot hold the logits: they must not decide how many are read.
    """
    found = tokenize(model, text, n_ctx, wanted or max(8, DEFAULT_TOKENS // n_ctx))
    per_chunk = _scored(n_ctx) * found.vocabulary * np.dtype(np.float32).itemsize
    count = len(found.chunks) if wanted else min(len(found.chunks), max(2, _LOGIT_BYTES // per_chunk))
    room = psutil.virtual_memory().available // 2 // jobs
    if count * per_chunk > room:
        raise BadUsage(
            f"{count} windows: the original's logits take {human_bytes(count * per_chunk)} in each process, and there is room "
            f"for {human_bytes(room)}; use --windows {max(2, room // per_chunk)}, or fewer --jobs"
        )
    return count


def _scored(n_ctx: int) -> int:
    return n_ctx - n_ctx // 2 - 1


class MapEvaluator:
    """The original's logits, and a host that becomes one map after the other. Use as a context manager."""

    def __init__(self, job: EvaluationJob) -> None:
        self.timing, self._job = SearchTiming(), job
        self._model = model_here(job.model, job.model_digest)
        self._imatrix = read_imatrix(job.imatrix) if job.imatrix else None
        self._host = self._load(LayerMap.identity(self._model.blocks))
        try:
            self._chunks = self._host.engine.chunks(job.text, job.chunks)
            self._base = self._base_rows()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MapEvaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._host.close()

    def read(self, layer_map: LayerMap) -> CandidateScore:
        """The figures of the map. Raises BadFile, NoSpace."""
        began = time.perf_counter()
        self._become(layer_map)
        found = self._figures()
        self.timing.total += time.perf_counter() - began
        self.timing.readings += 1
        return found

    def _figures(self) -> CandidateScore:
        scores = joined([token_scores(base, logits, targets) for base, logits, targets in self._batches()])
        with np.errstate(all="ignore"):
            found = figures(scores, len(self._chunks))
        values = (found.ppl.value, found.ppl.stderr, found.kld.value, found.kld.stderr)
        if any(value is not None and finite(value) is None for value in values):
            return self._with_score(CandidateScore(None, None), math.inf)
        return self._with_score(
            CandidateScore(found.ppl, found.kld, found.per_chunk_nll), ppl_ratio(found.ln_ppl_ratio)
        )

    def _with_score(self, reading: CandidateScore, ratio: Estimate | float) -> CandidateScore:
        if self._job.suite is None:
            return reading
        found = score_loaded(self._host.engine, self._model.metadata, self._job.suite, ratio)
        credits = {part.name: part.credit.value for part in found.applicable}
        return replace(reading, score=found.overall, scores=credits)

    def _become(self, layer_map: LayerMap) -> None:
        parts = assemble(self._model, layer_map)
        if self._host.frame == frame(self._model, layer_map, parts) and self._host.become(parts):
            return
        self._host.close()
        self._host = self._load(layer_map)

    def _load(self, layer_map: LayerMap) -> Host:
        host = Host(self._model, layer_map, self._job.engine, self._job.folder, self._imatrix)
        self.timing.load += host.load_seconds
        return host

    def _base_rows(self) -> list[BaseRows]:
        rows = [base_rows(logits) for logits in self._host.engine.logits(self._chunks)]
        if not all(np.isfinite(each.log_sum).all() for each in rows):
            raise BadFile(f"{self._model.path}: the model gives NaN or infinite logits; is the file damaged?")
        return rows

    def _batches(self) -> Iterator[tuple[BaseRows, np.ndarray, np.ndarray]]:
        """The original's rows, the logits of what is loaded now, and the tokens that came."""
        engine = self._host.engine
        size, batches = engine.chunks_per_batch, engine.logits(self._chunks)
        for index, base in enumerate(self._base):
            began = time.perf_counter()
            logits = next(batches)
            self.timing.forward += time.perf_counter() - began
            yield base, logits, self._chunks[index * size :][: len(logits), engine.first_scored + 1 :].reshape(-1)
