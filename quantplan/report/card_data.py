"""What a model card is made of: the files that are published, and the records that are theirs.

A record belongs to a file by the digest of header and weights, never by a name: a file that was built again may be another.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantplan.comparison import Comparison, Row
from quantplan.errors import BadUsage
from quantplan.evaluate.compare import retested
from quantplan.evaluate.published_files import PublishedFile
from quantplan.evaluate.published_tables import PublishedTable
from quantplan.measurement import Conditions, Measurement
from quantplan.records.codec import read_any
from quantplan.records.formats import COMPARISONS, MEASUREMENTS, TASK_SCORES, THROUGHPUTS
from quantplan.task_score import TaskScore
from quantplan.throughput import Throughput


@dataclass(frozen=True)
class CardData:
    """``files`` from the smallest to the largest; records by the names of files; ``left_out``: records of other files.

    ``compared``: comparisons whose first file is published; published files have their names in them. ``tables``: the
    sensitivity tables of the files' plans.
    """

    files: tuple[PublishedFile, ...]
    measured: Mapping[str, tuple[Measurement, ...]]
    compared: tuple[Comparison, ...] = ()
    scores: Mapping[str, tuple[TaskScore, ...]] = field(default_factory=dict)
    speeds: Mapping[str, tuple[Throughput, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    tables: tuple[PublishedTable, ...] = ()

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


def card_data(files: Sequence[PublishedFile], records: Iterable[Path], speeds: Sequence[Throughput] = ()) -> CardData:
    """The files with the measurements and comparisons among ``records`` that are theirs, and ``speeds`` measured just now.

    BadUsage for two of one name.
    """
    ordered = sorted(files, key=lambda file: (file.file_bytes, file.name))
    twice = [name for name, count in Counter(file.name for file in ordered).items() if count > 1]
    if twice:
        raise BadUsage(f"two files are called {twice[0]}; publish them from folders of their own")
    names = {file.digest: file.name for file in ordered if file.digest}
    by_class: dict[type, dict[str, list]] = {Measurement: {}, TaskScore: {}, Throughput: {}}
    compared, left_out = [], []
    for path in records:
        record = read_any(path, MEASUREMENTS, TASK_SCORES, THROUGHPUTS, COMPARISONS)
        if isinstance(record, Comparison) and record.rows[0].measurement.model_digest in names:
            compared.append(_with_names(record, names))
            for row in record.rows:
                if name := names.get(row.measurement.model_digest):
                    by_class[Measurement].setdefault(name, []).append(row.measurement)
        elif isinstance(record, (Measurement, TaskScore, Throughput)) and record.model_digest in names:
            by_class[type(record)].setdefault(names[record.model_digest], []).append(record)
        elif record is not None:
            left_out.append(path.name)
    for fresh in speeds:
        by_class[Throughput].setdefault(names[fresh.model_digest], []).append(fresh)
    measured, scores, throughputs = (
        {name: tuple({record.conditions: record for record in own}.values()) for name, own in by_name.items()}
        for by_name in by_class.values()
    )
    return CardData(tuple(ordered), measured, tuple(compared), scores, throughputs, tuple(left_out))


def _with_names(comparison: Comparison, names: Mapping[str, str]) -> Comparison:
    return retested(replace(comparison, rows=tuple(_named(row, names) for row in comparison.rows)))


def _named(row: Row, names: Mapping[str, str]) -> Row:
    return replace(row, name=names.get(row.measurement.model_digest) or Path(row.name).name)
