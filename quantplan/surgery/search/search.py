"""The search: candidates of families, finer ones around the best, then phases that combine the best of them.

Every evaluation is kept at once, so a search that was killed resumes and ends with the same leaderboard.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage
from quantplan.imatrix import Imatrix
from quantplan.progress import SILENT, Reporter
from quantplan.surgery.apply_edits import apply_edits
from quantplan.surgery.edits import Edit
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search import host
from quantplan.surgery.search.candidates import COMBINED, EXPLICIT, Candidate, CandidateFilter, check_explicit, extended
from quantplan.surgery.search.evaluations import EvaluationJob, SearchTiming
from quantplan.surgery.search.evaluators import Evaluators
from quantplan.surgery.search.families import Family
from quantplan.surgery.search.leaderboard import PPL, BestCandidateTest, Leaderboard, RankedCandidate, ordered
from quantplan.surgery.search.result_store import ResultStore
from quantplan.tensor import Model


@dataclass(frozen=True)
class SearchOptions:
    """``keep`` best maps are extended with each of the ``breadth`` best single edits in every phase after the first.

    ``max_candidates``: without the original; ``max_seconds``: no candidate is begun later. ``top``: how many are evaluated again
    on evaluation text. ``skip_check``: architectures without known rules are searched, too.
    """

    families: tuple[Family, ...]
    explicit: tuple[tuple[Edit, ...], ...] = ()
    by: str = PPL
    phases: int = 1
    keep: int = 3
    breadth: int = 8
    max_candidates: int | None = None
    max_seconds: float | None = None
    top: int = 5
    skip_check: bool = False


@dataclass(frozen=True)
class SearchResult:
    """``timing``: of what was evaluated now; ``reasons``: why the first candidate of a family was refused; ``ended``: the limit
    that ended the search, if one did.
    """

    board: Leaderboard
    timing: SearchTiming
    reasons: dict[str, str]
    ended: str | None = None


OnResult = Callable[[Leaderboard], None]  # gets the leaderboard after each result


def search(
    model: Model,
    job: EvaluationJob,
    options: SearchOptions,
    imatrix: Imatrix | None = None,
    report: Reporter = SILENT,
    on_result: OnResult = lambda _board: None,
) -> SearchResult:
    """Evaluates all candidates except those kept in ``job.folder``; ``on_result`` after each.

    Raises BadUsage for explicit candidates that cannot be run, TextTooShort, BadFile, NoSpace, WorkersLost.
    """
    check_explicit(model, options.explicit, imatrix, options.skip_check)
    host.clear(job.folder)
    with Evaluators(job) as evaluators:
        run = _SearchRun(model, job, options, ResultStore(model, job, imatrix, evaluators), imatrix)
        run.run(report, on_result)
        return SearchResult(run.board(), evaluators.timing, run.filter.reasons, run.ended)


def judge(
    model: Model,
    job: EvaluationJob,
    board: Leaderboard,
    top: int,
    imatrix: Imatrix | None = None,
    report: Reporter = SILENT,
) -> Leaderboard:
    """The leaderboard with the figures of its best ``top`` and of the original on the text of ``job``. Raises as ``search``."""
    best = [candidate for candidate in board.standings[:top] if candidate.ppl]
    with Evaluators(job) as evaluators:
        results = ResultStore(model, job, imatrix, evaluators)
        with report.stage("evaluation text", 1 + len(best)) as advance:
            for _ in results.evaluate([LayerMap.identity(model.blocks), *(candidate.layer_map for candidate in best)]):
                advance(1)
    test = BestCandidateTest(
        conditions=results.conditions,
        original=results.original(),
        standings=tuple(results.standing(candidate) for candidate in best),
    )
    return replace(board, judgement=test)


class _SearchRun:
    """A search under way: stage after stage, until a limit ends it."""

    def __init__(
        self, model: Model, job: EvaluationJob, options: SearchOptions, results: ResultStore, imatrix: Imatrix | None
    ) -> None:
        self._model, self._options, self._results = model, options, results
        self._suite = job.suite.name if job.suite else None
        self.filter = CandidateFilter(model, imatrix, options.skip_check)
        self._candidates: list[Candidate] = []
        self._evaluated: dict[str, Candidate] = {}
        self._began = time.monotonic()
        self.ended: str | None = None

    # -- stages

    def run(self, report: Reporter, on_result: OnResult) -> None:
        self._results.evaluate_original()
        for name, candidates in self._stages():
            self._candidates += candidates
            if not self._candidates:
                reasons = "; ".join(self.filter.reasons.values())
                raise BadUsage(f"there are no candidates: {reasons or 'all of them are the original'}")
            self._stage(name, candidates, report, on_result)
            if self.ended:
                return

    def _stages(self) -> Iterator[tuple[str, list[Candidate]]]:
        """(name, candidates) of one stage after the other: each may depend on the results of the stage before."""
        yield "phase 1", self._first()
        passes = max((len(family.passes) for family in self._options.families), default=0)
        for number in range(1, passes):
            yield f"phase 1, pass {number + 1}", self._around(number)
        for phase in range(2, self._options.phases + 1):
            candidates = self._combined(phase)
            if not candidates:
                return
            yield f"phase {phase}", candidates

    def _first(self) -> list[Candidate]:
        candidates = []
        for family in self._options.families:
            candidates += self._of_family(family, family.first(self._model.blocks))
        return candidates + self.filter.admit(self._options.explicit, EXPLICIT, 1)

    def _of_family(self, family: Family, edits: Iterable[Edit]) -> list[Candidate]:
        return self.filter.admit([(edit,) for edit in edits], family.name, 1)

    def _around(self, number: int) -> list[Candidate]:
        """The finer ranges of each family with that many passes, around the best of its pass before."""
        candidates = []
        for family in self._options.families:
            if len(family.passes) > number:
                candidates += self._of_family(family, self._of_pass(family, number))
        return candidates

    def _of_pass(self, family: Family, number: int) -> list[Edit]:
        """The edits of a pass, whichever family their maps came from."""
        blocks = self._model.blocks
        if number == 0:
            return family.first(blocks)
        best = self._best_of(self._of_pass(family, number - 1))
        return family.around(best, number, blocks) if best else []

    def _best_of(self, edits: Iterable[Edit]) -> Edit | None:
        by_map = {apply_edits(self._model.blocks, (edit,)).digest: edit for edit in reversed(list(edits))}
        ranking = self._ranked(self._evaluated[digest] for digest in by_map if digest in self._evaluated)
        best = next((candidate for candidate in ranking if candidate.ppl), None)
        return by_map[best.layer_map.digest] if best else None

    def _combined(self, phase: int) -> list[Candidate]:
        """Each of the best maps so far with each of the best single edits."""
        ranking = self._ranked(self._evaluated.values())
        best = [self._evaluated[candidate.layer_map.digest] for candidate in ranking if candidate.ppl]
        singles = [candidate.edits[0] for candidate in best if len(candidate.edits) == 1][: self._options.breadth]
        combined = [extended(candidate, edit) for candidate in best[: self._options.keep] for edit in singles]
        return self.filter.admit([edits for edits in combined if edits], COMBINED, phase)

    # -- one stage

    def _stage(self, name: str, candidates: list[Candidate], report: Reporter, on_result: OnResult) -> None:
        allowed = self._allowed(candidates)
        by_map = {candidate.key: candidate for candidate in allowed}
        known = {key: candidate for key, candidate in by_map.items() if candidate.layer_map in self._results}
        self._evaluated |= known
        with report.stage(name, len(candidates)) as advance:
            if known:
                advance(len(known))
                on_result(self.board())
            with closing(self._results.evaluate(candidate.layer_map for candidate in allowed)) as results:
                for layer_map in results:
                    self._evaluated[layer_map.digest] = by_map[layer_map.digest]
                    advance(1)
                    on_result(self.board())
                    if self._out_of_time() and len(self._evaluated) < len(self._candidates):
                        self.ended = f"--max-time of {self._options.max_seconds:g} seconds is over"
                        return
        if len(allowed) < len(candidates):
            self.ended = f"--max-candidates {self._options.max_candidates} is reached"

    def _allowed(self, candidates: list[Candidate]) -> list[Candidate]:
        most = self._options.max_candidates
        return candidates if most is None else candidates[: max(0, most - len(self._evaluated))]

    def _out_of_time(self) -> bool:
        most = self._options.max_seconds
        return most is not None and time.monotonic() - self._began >= most

    # -- what is known

    def _ranked(self, candidates: Iterable[Candidate]) -> tuple[RankedCandidate, ...]:
        return ordered((self._results.standing(candidate) for candidate in candidates), self._options.by)

    def board(self) -> Leaderboard:
        return Leaderboard(
            model=self._model.path.name,
            blocks=self._model.blocks,
            by=self._options.by,
            conditions=self._results.conditions,
            families=tuple(map(str, self._options.families)),
            original=self._results.original(),
            standings=self._ranked(self._evaluated.values()),
            refused=dict(self.filter.refused),
            left_out=len(self._candidates) - len(self._evaluated),
            suite=self._suite,
        )
