"""What a model card is made of: the files that are published, and the records that are theirs.

A record belongs to a file by the digest of header and weights, never by a name: a file that was built again may be another.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.comparison import Comparison, Row
from quantplan.errors import BadUsage
from quantplan.evaluate.compare import retested
from quantplan.evaluate.other_publishers import OtherFile
from quantplan.evaluate.published_files import PublishedFile
from quantplan.evaluate.published_tables import PublishedTable
from quantplan.evaluate.suites.suite_score import SuiteScore
from quantplan.evaluate.suites.suite_score_files import SUITE_SCORES
from quantplan.measurement import Conditions, Measurement
from quantplan.records.codec import read_any
from quantplan.records.formats import CACHE_SENSITIVITIES, COMPARISONS, MEASUREMENTS, TASK_SCORES, THROUGHPUTS
from quantplan.task_score import TaskScore
from quantplan.throughput import Throughput

_FORMATS = (MEASUREMENTS, TASK_SCORES, THROUGHPUTS, COMPARISONS, SUITE_SCORES, CACHE_SENSITIVITIES)
_Record = Comparison | Measurement | TaskScore | Throughput | SuiteScore | CacheSensitivity


@dataclass(frozen=True)
class CardData:
    """``files`` from the smallest to the largest; records by the names of files; ``left_out``: records of other files.

    ``compared``: comparisons whose first file is published; published files have their names in them. ``tables``: the
    sensitivity tables of the files' plans. ``others``: files of the same model that others publish. ``original_scores`` and
    ``caches``: of the model that the files were made of.
    """

    files: tuple[PublishedFile, ...]
    measured: Mapping[str, tuple[Measurement, ...]]
    compared: tuple[Comparison, ...] = ()
    scores: Mapping[str, tuple[TaskScore, ...]] = field(default_factory=dict)
    speeds: Mapping[str, tuple[Throughput, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    tables: tuple[PublishedTable, ...] = ()
    others: tuple[OtherFile, ...] = ()
    suite_scores: Mapping[str, tuple[SuiteScore, ...]] = field(default_factory=dict)
    original_scores: tuple[SuiteScore, ...] = ()
    caches: tuple[CacheSensitivity, ...] = ()

    @property
    def main(self) -> PublishedFile:
        """The file that examples name: the largest loses least as a rule."""
        return self.files[-1]

    def comparable(self) -> tuple[Conditions | None, dict[str, Measurement]]:
        """The conditions that most files were measured under (of those, the most chunks), and the figures under them."""
        groups: dict[Conditions, dict[str, Measurement]] = {}
        for name, measurements in self.measured.items():
            for measurement in measurements:
                groups.setdefault(measurement.conditions, {})[name] = measurement
        if not groups:
            return None, {}
        best = max(groups, key=lambda conditions: (len(groups[conditions]), conditions.chunks))
        return best, groups[best]


def card_data(
    files: Sequence[PublishedFile],
    records: Iterable[Path],
    speeds: Sequence[Throughput] = (),
    others: Sequence[OtherFile] = (),
) -> CardData:
    """The files and ``others`` with the measurements and comparisons among ``records`` that are theirs, and ``speeds`` measured
    just now.

    BadUsage for two of one name.
    """
    ordered = sorted(files, key=lambda file: (file.file_bytes, file.name))
    twice = [name for name, count in Counter(file.name for file in ordered).items() if count > 1]
    if twice:
        raise BadUsage(f"two files are called {twice[0]}; publish them from folders of their own")
    names = {file.digest: file.name for file in ordered if file.digest}
    read = {path.name: record for path in records if (record := read_any(path, *_FORMATS)) is not None}
    originals = {file.header.digest for file in ordered} | _bases(names, read.values())
    kept = _Kept(names, {other.digest for other in others} - {None}, originals)
    for name, record in read.items():
        if not kept.take(record):
            kept.left_out.append(name)
    for fresh in speeds:
        kept.take(fresh)
    measured, scores, throughputs, suite_scores = (
        {name: tuple({record.conditions: record for record in own}.values()) for name, own in by_name.items()}
        for by_name in kept.by_class.values()
    )
    return CardData(
        tuple(ordered),
        measured,
        tuple(kept.compared),
        scores,
        throughputs,
        tuple(kept.left_out),
        others=_with_measurements(others, kept.of_others),
        suite_scores=suite_scores,
        original_scores=tuple(kept.original_scores),
        caches=tuple(kept.caches),
    )


def _bases(names: Container[str], records: Iterable[_Record]) -> set[str]:
    """Digests of the models that our files were measured against."""
    firsts = (record.rows[0].measurement if isinstance(record, Comparison) else record for record in records)
    measured = (record for record in firsts if isinstance(record, Measurement) and record.model_digest in names)
    return {record.conditions.base_digest for record in measured}


@dataclass
class _Kept:
    """Records by whose they are: ``names`` of our files by digest; digests of the files of others and of the ``originals``."""

    names: Mapping[str, str]
    theirs: Set[str | None]
    originals: Set[str]
    compared: list[Comparison] = field(default_factory=list)
    of_others: list[Measurement] = field(default_factory=list)
    original_scores: list[SuiteScore] = field(default_factory=list)
    caches: list[CacheSensitivity] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    by_class: dict[type, dict[str, list]] = field(
        default_factory=lambda: {Measurement: {}, TaskScore: {}, Throughput: {}, SuiteScore: {}}
    )

    def take(self, record: _Record) -> bool:
        """Whether it is of a file that is known here."""
        if isinstance(record, CacheSensitivity):
            if of_model := record.model_digest in self.originals:
                self.caches.append(record)
            return of_model
        if isinstance(record, Comparison):
            if record.rows[0].measurement.model_digest not in self.names:
                return False
            self.compared.append(_with_names(record, self.names))
            for row in record.rows:
                self.take(row.measurement)
            return True
        if name := self.names.get(record.model_digest):
            self.by_class[type(record)].setdefault(name, []).append(record)
            return True
        if isinstance(record, SuiteScore) and record.model_digest in self.originals:
            self.original_scores.append(record)
            return True
        if isinstance(record, Measurement) and record.model_digest in self.theirs:
            self.of_others.append(record)
        return record.model_digest in self.theirs


def _with_measurements(others: Sequence[OtherFile], measured: Sequence[Measurement]) -> tuple[OtherFile, ...]:
    """Each file once, with all that was measured of it."""
    files: dict[tuple[str, str], OtherFile] = {}
    for other in others:
        known = files.setdefault((other.publisher, other.digest or other.name), other)
        own = [*known.measured, *other.measured, *(each for each in measured if each.model_digest == other.digest)]
        by_conditions = {each.conditions: each for each in own}
        files[other.publisher, other.digest or other.name] = replace(known, measured=tuple(by_conditions.values()))
    return tuple(files.values())


def _with_names(comparison: Comparison, names: Mapping[str, str]) -> Comparison:
    return retested(replace(comparison, rows=tuple(_named(row, names) for row in comparison.rows)))


def _named(row: Row, names: Mapping[str, str]) -> Row:
    return replace(row, name=names.get(row.measurement.model_digest) or Path(row.name).name)
