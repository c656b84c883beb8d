"""Evaluations under one set of conditions: each kept at once, none made twice, each compared with the original's."""

from collections.abc import Generator, Iterable
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
    """The conditions that evaluations hold under."""
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
    """Evaluations by layer map, those of the cache and those made now."""

    def __init__(self, model: Model, job: EvaluationJob, imatrix: Imatrix | None, evaluators: Evaluators) -> None:
        self._model, self._evaluators = model, evaluators
        self._identity = LayerMap.identity(model.blocks)
        self.conditions = conditions_of(model, job)
        suite = job.suite.digest if job.suite else None
        made_from = (asdict(self.conditions), imatrix.digest if imatrix else None, suite, VERSION)
        self._scores: Cache[CandidateScore] = Cache(Plain(CandidateScore), job.folder, "surgery", *made_from)
        self._ranked: dict[str, RankedCandidate] = {}

    def __contains__(self, layer_map: LayerMap) -> bool:
        return layer_map.digest in self._scores

    def evaluate(self, maps: Iterable[LayerMap]) -> Generator[LayerMap, None, None]:
        """The maps that are not in the store yet, each as soon as it is."""
        missing = [layer_map for layer_map in maps if layer_map not in self]
        with closing(self._evaluators.evaluate(self._model, missing)) as results:
            for layer_map, score in results:
                self._scores.put(layer_map.digest, score)
                yield layer_map

    def evaluate_original(self) -> None:
        """Everything else is compared with it."""
        for _ in self.evaluate([self._identity]):
            pass

    def original(self) -> RankedCandidate:
        return self._with_figures("", self._identity, ORIGINAL, phase=0)

    def standing(self, candidate: RankedCandidate | Candidate) -> RankedCandidate:
        """Figures and the difference from the original; both must have been evaluated."""
        key = candidate.layer_map.digest
        if key not in self._ranked:
            edits = candidate.edits if isinstance(candidate, RankedCandidate) else str(candidate)
            self._ranked[key] = self._with_figures(edits, candidate.layer_map, candidate.family, candidate.phase)
        return self._ranked[key]

    def _with_figures(self, edits: str, layer_map: LayerMap, family: str, phase: int) -> RankedCandidate:
        score, base = self._score(layer_map), self._score(self._identity)
        gap = chunks_gap(score.nll, base.nll) if score.nll and base.nll and family != ORIGINAL else None
        return RankedCandidate(
            edits=edits,
            layer_map=layer_map,
            family=family,
            phase=phase,
            ppl=score.ppl,
            kld=score.kld,
            gap=gap,
            score=score.score,
            scores=score.scores,
        )

    def _score(self, layer_map: LayerMap) -> CandidateScore:
        return self._scores[layer_map.digest]
