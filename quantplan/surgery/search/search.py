"""The search: candidates of families, finer ones around the best, then phases that combine the best of them; every result
is kept at once, so that a search that was killed goes on where it stood and ends with the same leaderboard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from quantplan.errors import BadUsage
from quantplan.imatrix import Imatrix
from quantplan.surgery.edits import Edit, layer_map
from quantplan.surgery.layer_map import LayerMap
from quantplan.surgery.search import host
from quantplan.surgery.search.candidates import COMBINED, EXPLICIT, Admission, Candidate, check_explicit, extended
from quantplan.surgery.search.evaluations import EvaluationJob, SearchTiming
from quantplan.surgery.search.evaluators import Evaluators
from quantplan.surgery.search.families import Family
from quantplan.surgery.search.leaderboard import PPL, BestCandidateTest, Leaderboard, RankedCandidate, ordered
from quantplan.surgery.search.result_store import ResultStore
from quantplan.tensor import Model


@dataclass(frozen=True)
class SearchOptions:
    """``keep`` best maps are extended with each of the ``breadth`` best single edits in every phase after the first.

    ``max_candidates``: the original not counted; ``max_seconds``: no candidate is begun later. ``top``: how many are judged.
    ``forced``: architectures without known rules are searched too.
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
    forced: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a search is: candidates of all stages known by now, and the leaderboard so far."""

    stage: str
    done: int
    total: int
    board: Leaderboard


Tell = Callable[[Progress], None]


@dataclass
class SearchResult:
    """The leaderboard; ``timing``: of what was read now; ``reasons``: why the first candidate of a family was refused;
    ``ended``: the budget that ended the search, if one did.
    """

    board: Leaderboard
    timing: SearchTiming
    reasons: dict[str, str]
    ended: str | None = None


def search(
    model: Model,
    job: EvaluationJob,
    options: SearchOptions,
    imatrix: Imatrix | None = None,
    tell: Tell = lambda _: None,
) -> SearchResult:
    """Reads all candidates, those kept in ``job.folder`` not again; ``tell`` after each.

    Raises BadUsage for explicit candidates that cannot be run, TextTooShort, BadFile, NoSpace, WorkersLost.
    """
    check_explicit(model, options.explicit, imatrix, options.forced)
    host.clear(job.folder)
    with Evaluators(job) as readers:
        course = _Course(model, job, options, imatrix, readers, tell)
        course.run()
        return SearchResult(course.board(), readers.timing, course.admission.reasons, course.ended)


def judge(
    model: Model,
    job: EvaluationJob,
    board: Leaderboard,
    top: int,
    imatrix: Imatrix | None = None,
) -> Leaderboard:
    """The leaderboard with what another text says of its best ``top`` and of the original. Raises as ``search``."""
    best = [each for each in board.standings[:top] if each.ppl]
    with Evaluators(job) as readers:
        result_store = ResultStore(model, job, imatrix, readers)
        maps = [LayerMap.identity(model.blocks), *(each.layer_map for each in best)]
        for _ in result_store.read(maps):
            pass
    original = result_store.original()
    standings = tuple(result_store.standing(each) for each in best)
    return replace(
        board, judgement=BestCandidateTest(conditions=result_store.conditions, original=original, standings=standings)
    )


class _Course:
    """A search under way: stage after stage, as long as the budget lasts."""

    def __init__(
        self,
        model: Model,
        job: EvaluationJob,
        options: SearchOptions,
        imatrix: Imatrix | None,
        readers: Evaluators,
        tell: Tell,
    ) -> None:
        self._model, self._options, self._tell = model, options, tell
        self._suite = job.suite.name if job.suite else None
        self._result_store = ResultStore(model, job, imatrix, readers)
        self.admission = Admission(model, imatrix, options.forced)
        self._candidates: list[Candidate] = []
        self._read: dict[str, Candidate] = {}
        self._began = time.monotonic()
        self.ended: str | None = None

    # -- stages

    def run(self) -> None:
        list(self._result_store.read([LayerMap.identity(self._model.blocks)]))
        for stage, candidates in self._stages():
            self._candidates += candidates
            if not self._candidates:
                reasons = "; ".join(self.admission.reasons.values())
                raise BadUsage(f"there is no candidate: {reasons or 'every map is the original'}")
            self._stage(stage, candidates)
            if self.ended:
                return

    def _stages(self) -> Iterator[tuple[str, list[Candidate]]]:
        """What is to be read, one stage after the other: each may look at what the one before found."""
        yield "phase 1", self._first()
        rounds = max((len(family.passes) for family in self._options.families), default=0)
        for number in range(1, rounds):
            yield f"phase 1, pass {number + 1}", self._around(number)
        for phase in range(2, self._options.phases + 1):
            candidates = self._combined(phase)
            if not candidates:
                return
            yield f"phase {phase}", candidates

    def _first(self) -> list[Candidate]:
        admit, options = self.admission.admit, self._options
        found = [
            each for family in options.families for each in self._of_family(family, family.first(self._model.blocks))
        ]
        return found + admit(options.explicit, EXPLICIT, 1)

    def _of_family(self, family: Family, edits: Iterable[Edit]) -> list[Candidate]:
        return self.admission.admit([(edit,) for edit in edits], family.name, 1)

    def _around(self, number: int) -> list[Candidate]:
        """The finer ranges of each family that has so many passes, around the best of its pass before."""
        found = []
        for family in self._options.families:
            if len(family.passes) > number:
                best = self._best_of(self._ranges(family, number - 1))
                edits = family.around(best, number, self._model.blocks) if best else []
                found += self._of_family(family, edits)
        return found

    def _ranges(self, family: Family, number: int) -> list[Edit]:
        """The edits of a pass, whichever family their maps came in by."""
        blocks = self._model.blocks
        if number == 0:
            return family.first(blocks)
        best = self._best_of(self._ranges(family, number - 1))
        return family.around(best, number, blocks) if best else []

    def _best_of(self, edits: Iterable[Edit]) -> Edit | None:
        by_map = {layer_map(self._model.blocks, (edit,)).digest: edit for edit in reversed(list(edits))}
        standings = [self._result_store.standing(self._read[digest]) for digest in by_map if digest in self._read]
        best = next((each for each in ordered(standings, self._options.by) if each.ppl), None)
        return by_map[best.layer_map.digest] if best else None

    def _combined(self, phase: int) -> list[Candidate]:
        """Each of the best maps so far with each of the best single edits."""
        best = [self._read[each.layer_map.digest] for each in self._ranking() if each.ppl]
        singles = [candidate.edits[0] for candidate in best if len(candidate.edits) == 1][: self._options.breadth]
        edits = [extended(candidate, edit) for candidate in best[: self._options.keep] for edit in singles]
        return self.admission.admit([each for each in edits if each], COMBINED, phase)

    # -- one stage

    def _stage(self, stage: str, candidates: list[Candidate]) -> None:
        allowed = self._allowed(candidates)
        by_map = {each.key: each for each in allowed}
        known = {each.key: each for each in allowed if each.layer_map in self._result_store}
        self._read |= known
        if known:
            self._say(stage)
        with closing(self._result_store.read(each.layer_map for each in allowed)) as results:
            for made in results:
                self._read[made.digest] = by_map[made.digest]
                self._say(stage)
                if self._out_of_time() and len(self._read) < len(self._candidates):
                    self.ended = f"the time of {self._options.max_seconds:g} seconds is over"
                    return
        if len(allowed) < len(candidates):
            self.ended = f"{self._options.max_candidates} candidates are read"

    def _say(self, stage: str) -> None:
        self._tell(Progress(stage, len(self._read), len(self._candidates), self.board()))

    def _allowed(self, candidates: list[Candidate]) -> list[Candidate]:
        most = self._options.max_candidates
        return candidates if most is None else candidates[: max(0, most - len(self._read))]

    def _out_of_time(self) -> bool:
        most = self._options.max_seconds
        return most is not None and time.monotonic() - self._began >= most

    # -- what is known

    def _ranking(self) -> tuple[RankedCandidate, ...]:
        return ordered((self._result_store.standing(each) for each in self._read.values()), self._options.by)

    def board(self) -> Leaderboard:
        return Leaderboard(
            model=self._model.path.name,
            blocks=self._model.blocks,
            by=self._options.by,
            conditions=self._result_store.conditions,
            families=tuple(map(str, self._options.families)),
            original=self._result_store.original(),
            standings=self._ranking(),
            refused=dict(self.admission.refused),
            left_out=len(self._candidates) - len(self._read),
            suite=self._suite,
        )
