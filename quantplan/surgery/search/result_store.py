"""Readings under one set of conditions: each kept at once, none made twice, each held against the original's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version

from quantplan.evaluate.base_logits import ENGINE
from quantplan.evaluate.significance import chunks_gap
from quantplan.imatrix import Imatrix
from quantplan.measurement import Conditions
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import text_digest
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search.candidates import Candidate
from quantplan.surgery.search.evaluations import VERSION, CandidateScore, EvaluationJob
from quantplan.surgery.search.evaluators import Evaluators
from quantplan.surgery.search.leaderboard import RankedCandidate
from quantplan.tensor import Model

ORIGINAL = "original"


def conditions_of(model: Model, job: EvaluationJob) -> Conditions:
    """What readings hold under."""
    return Conditions(
        text_digest=text_digest(job.text),
        n_ctx=job.n_ctx,
        chunks=job.chunks,
        base_digest=model.digest,
        engine=ENGINE,
        backend=job.execution.backend,
        llama_cpp=f"llama-cpp-python {version('llama-cpp-python')}",
    )


class ResultStore:
    """Readings under one set of conditions by map, those of the cache and those read now."""

    def __init__(self, model: Model, job: EvaluationJob, imatrix: Imatrix | None, readers: Evaluators) -> None:
        self._model, self._readers = model, readers
        self.conditions = conditions_of(model, job)
        suite = job.suite.digest if job.suite else None
        made_from = (asdict(self.conditions), imatrix.digest if imatrix else None, suite, VERSION)
        self._scores = Cache(Plain(CandidateScore), job.folder, "surgery", *made_from)
        self._standings: dict[str, RankedCandidate] = {}

    def __contains__(self, layer_map: LayerMap) -> bool:
        return layer_map.digest in self._scores

    def read(self, maps: Iterable[LayerMap]) -> Iterator[LayerMap]:
        """Those that are not there yet, each as soon as it is."""
        left = [each for each in maps if each not in self]
        with closing(self._readers.read(self._model, left)) as readings:
            for each, reading in readings:
                self._scores.put(each.digest, reading)
                yield each

    def original(self) -> RankedCandidate:
        identity = LayerMap.identity(self._model.blocks)
        reading = self._reading(identity)
        return RankedCandidate(
            edits="",
            layer_map=identity,
            family=ORIGINAL,
            phase=0,
            ppl=reading.ppl,
            kld=reading.kld,
            score=reading.score,
            scores=reading.scores,
        )

    def standing(self, of: RankedCandidate | Candidate) -> RankedCandidate:
        """Figures and the difference from the original, which must have been read."""
        layer_map = of.layer_map
        if layer_map.digest not in self._standings:
            reading, base = self._reading(layer_map), self._reading(LayerMap.identity(layer_map.original))
            gap = chunks_gap(reading.nll, base.nll) if reading.nll and base.nll else None  # type: ignore[arg-type]
            self._standings[layer_map.digest] = RankedCandidate(
                edits=of.edits if isinstance(of, RankedCandidate) else str(of),
                layer_map=layer_map,
                family=of.family,
                phase=of.phase,
                ppl=reading.ppl,
                kld=reading.kld,
                gap=gap,
                score=reading.score,
                scores=reading.scores,
            )
        return self._standings[layer_map.digest]

    def _reading(self, layer_map: LayerMap) -> CandidateScore:
        return self._scores[layer_map.digest]
