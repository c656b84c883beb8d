"""What a model card is made of: the files that are published, the records that are theirs, and what they take in memory.

A record belongs to a file by the digest of header and weights, never by a name: a file that was built anew is another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantplan.build.build import stock_plan
from quantplan.comparison import Comparison, Row
from quantplan.devices.fit_params import memory_needs
from quantplan.devices.memory import MemoryUse, placement
from quantplan.errors import BadFile, BadUsage, NotAsPlanned
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import ftypes
from quantplan.measurement import Conditions, Measurement
from quantplan.plan import Plan
from quantplan.quant_type import QuantType
from quantplan.records.codec import finite, read_any
from quantplan.records.formats import COMPARISONS, MEASUREMENTS, PLANS, TASK_SCORES, THROUGHPUTS
from quantplan.selector import Selector
from quantplan.task_score import TaskScore
from quantplan.tensor import Model
from quantplan.throughput import Throughput

_FOLDER_NAME = re.compile(r"-[0-9a-f]{12}$")  # what contenders' names end with


@dataclass(frozen=True)
class PublishedFile:
    """A GGUF under the name it is published with. ``header``: the file's own, or of the model that the plan was made for.

    ``digest`` None: the file is not built, so nothing that was measured can be known to be its.
    """

    name: str
    header: Model
    types: Mapping[str, QuantType]
    sizes: Mapping[str, int]  # bytes of each tensor, padding not included
    file_bytes: int
    plan: Plan | None = None
    digest: str | None = None
    shards: int = 1
    stock_quant: str = ""  # the stock mix that it is, to the byte, of the file ``made_of``
    made_of: str = ""
    memory: tuple[MemoryUse, ...] = ()

    @property
    def bpw(self) -> float:
        return self.header.bits_per_weight(self.types)

    @property
    def by_type(self) -> dict[str, int]:
        """Bytes in each type, largest first."""
        found: dict[str, int] = {}
        for name, kind in self.types.items():
            found[kind.name] = found.get(kind.name, 0) + self.sizes[name]
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class ComparedRow:
    """A row of a comparison record; ``published``: it is one of the files, and ``name`` that file's."""

    name: str
    measurement: Measurement
    kld_ratio: float | None  # of the record's first file over this one; None: without end
    low: float | None
    high: float | None
    significant: bool
    larger: bool
    published: bool
    tasks: tuple[TaskScore, ...] = ()
    throughput: Throughput | None = None
    alike: frozenset[str] = frozenset()  # figures whose difference from the first file's is inside the noise


@dataclass(frozen=True)
class ComparedFiles:
    """A comparison record of which at least the first file is published."""

    rows: tuple[ComparedRow, ...]
    verdict: str


@dataclass(frozen=True)
class CardData:
    """``files`` from the smallest to the largest; records by their names; ``left_out``: records of other files."""

    files: tuple[PublishedFile, ...]
    measured: Mapping[str, tuple[Measurement, ...]]
    compared: tuple[ComparedFiles, ...] = ()
    scores: Mapping[str, tuple[TaskScore, ...]] = field(default_factory=dict)
    speeds: Mapping[str, tuple[Throughput, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def main(self) -> PublishedFile:
        """The file that examples name: the largest loses least as a rule."""
        return self.files[-1]

    def on_common_ground(self) -> tuple[Conditions | None, dict[str, Measurement]]:
        """The conditions that most files were measured under (of those, the most windows), and the figures under them."""
        groups: dict[Conditions, dict[str, Measurement]] = {}
        for name, found in self.measured.items():
            for each in found:
                groups.setdefault(each.conditions, {})[name] = each
        if not groups:
            return None, {}
        best = max(groups, key=lambda conditions: (len(groups[conditions]), conditions.chunks))
        return best, groups[best]


# --- the files


def published_plan(path: Path, source: Model, name: str, places: Iterable[Path]) -> PublishedFile:
    """The file that a plan describes. ``places``: files that may be it; one is believed when it is just as planned."""
    plan = PLANS.read(path)
    plan.check_belongs_to(source)
    built = next((each for each in map(_readable, places) if each and _as_planned(each, plan)), None)
    sizes = {each.name: each.bytes for each in plan.tensors}
    return PublishedFile(name, source, plan.types, sizes, plan.file_bytes, plan, built.digest if built else None)


def published_gguf(path: Path) -> PublishedFile:
    """A GGUF as it is, all shards together."""
    found = read_model(path)
    return PublishedFile(
        found.path.name,
        found,
        {each.name: each.type for each in found.tensors},
        {each.name: each.bytes for each in found.tensors},
        found.file_bytes,
        digest=found.digest,
        shards=len(found.paths),
    )


def with_stock_quant(file: PublishedFile, source: Model, imatrix: Imatrix | None) -> PublishedFile:
    """The file with the name of the stock mix that it is, where llama-quantize makes just such a file of ``source``."""
    stock_quant = _ftype_name(file.header)
    if stock_quant not in ftypes():
        return file
    noted = "quantize.imatrix.file" in file.header.metadata
    try:
        plan = stock_plan(source, stock_quant, imatrix if noted else None)
    except BadUsage:  # it needs an imatrix, and there is none
        return file
    return replace(file, stock_quant=stock_quant, made_of=source.path.name) if _as_planned(file.header, plan) else file


def _ftype_name(model: Model) -> str:
    """What the header says that it was made as (enum llama_ftype), empty where it says nothing known."""
    from gguf import LlamaFileType

    try:
        return LlamaFileType(model.metadata.get("general.file_type")).name.removeprefix("MOSTLY_")
    except ValueError:
        return ""


def plan_of(gguf: Path, plans: Iterable[Path]) -> Path | None:
    """The plan that describes the file to the byte, if one of them does."""
    built = read_model(gguf)
    return next((path for path in plans if _as_planned(built, PLANS.read(path))), None)


def places_of(plan: Path, name: str, folders: Iterable[Path]) -> list[Path]:
    """Where a plan's file may lie: under its own name, or as `quantplan compare` names what it builds."""
    found = []
    for folder in folders:
        candidates = sorted(folder.glob(f"{_glob_safe(plan.stem)}-*.gguf"))
        found += [folder / name, *(each for each in candidates if _FOLDER_NAME.sub("", each.stem) == plan.stem)]
    return [each for each in found if each.is_file()]


def _glob_safe(text: str) -> str:
    return re.sub(r"([*?\[\]])", r"[\1]", text)


def _readable(path: Path) -> Model | None:
    try:
        return read_model(path)
    except BadFile:  # half of a file is none
        return None


def _as_planned(built: Model, plan: Plan) -> bool:
    try:
        plan.check_built(built)
    except NotAsPlanned:
        return False
    return True


def with_memory(file: PublishedFile, contexts: Sequence[int]) -> PublishedFile:
    """The file with what it takes at those contexts that the model was trained for, at its longest one if all are longer."""
    trained = file.header.metadata.get(f"{file.header.architecture}.context_length")
    limit = trained if isinstance(trained, int) and trained >= 8 else max(contexts)
    fitting = [each for each in contexts if each <= limit] or [limit]
    moved = file.plan.on_cpu if file.plan else ()
    where = placement(file.header, [Selector(f"/{rule.rpartition('=')[0]}/") for rule in moved])
    return replace(file, memory=tuple(where.use(memory_needs(file.header, each), file.sizes) for each in fitting))


# --- the records


def card_data(files: Sequence[PublishedFile], records: Iterable[Path]) -> CardData:
    """The files with the measurements and comparisons among ``records`` that are theirs. BadUsage for two of one name."""
    ordered = sorted(files, key=lambda each: (each.file_bytes, each.name))
    names = [each.name for each in ordered]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadUsage(f"two files are called {twice}; publish them from folders of their own")
    by_digest = {each.digest: each.name for each in ordered if each.digest}
    own: dict[type, dict[str, list]] = {Measurement: {}, TaskScore: {}, Throughput: {}}
    compared, left_out = [], []
    for path in records:
        found = _record(path, by_digest)
        if isinstance(found, ComparedFiles) and found.rows[0].published:
            compared.append(found)
            for row in found.rows:
                if row.published:
                    own[Measurement].setdefault(row.name, []).append(row.measurement)
        elif isinstance(found, (Measurement, TaskScore, Throughput)) and found.model_digest in by_digest:
            own[type(found)].setdefault(by_digest[found.model_digest], []).append(found)
        elif found is not None:
            left_out.append(path.name)
    measured, scores, speeds = (
        {name: tuple({each.conditions: each for each in found}.values()) for name, found in by_name.items()}
        for by_name in own.values()
    )
    return CardData(tuple(ordered), measured, tuple(compared), scores, speeds, tuple(left_out))


def _record(path: Path, by_digest: Mapping[str, str]) -> Measurement | TaskScore | Throughput | ComparedFiles | None:
    """The record in a JSON file, None for one of another kind."""
    record = read_any(path, MEASUREMENTS, TASK_SCORES, THROUGHPUTS, COMPARISONS)
    if not isinstance(record, Comparison):
        return record
    return ComparedFiles(tuple(_row(row, by_digest) for row in record.rows), record.verdict)


def _row(row: Row, by_digest: Mapping[str, str]) -> ComparedRow:
    name = by_digest.get(row.measurement.model_digest)
    return ComparedRow(
        name or Path(row.name).name,
        row.measurement,
        finite(row.kld_ratio),
        finite(row.low),
        finite(row.high),
        row.significant,
        row.larger,
        name is not None,
        row.tasks,
        row.throughput,
        frozenset(figure for figure, gap in row.gaps.items() if not gap.decided),
    )
