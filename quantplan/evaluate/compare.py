"""Files against the first of them on the same text, tasks and machine, in pairs where that can be, with a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.budget import human_bytes
from quantplan.comparison import AVERAGE, KLD, PPL, SIZE, ComparedFile, Comparison, Gap, Row, of_domain
from quantplan.errors import BadUsage, ConditionsDiffer
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.significance import average_gap, chunks_gap, kld_gap, ratio_interval, speed_gap, tasks_gap
from quantplan.evaluate.verdict import leader_verdict, verdict
from quantplan.gguf.reader import read_model
from quantplan.measurement import Measurement, check_comparable
from quantplan.task_score import TaskScore, check_same_tasks
from quantplan.throughput import Throughput, check_same_machine


@dataclass(frozen=True)
class CompareEntry:
    """A file that takes part, under the name it is shown with."""

    name: str
    file: Path


@dataclass(frozen=True)
class CompareOptions:
    """How a comparison is laid out. ``reference``: name and bytes of the file that shrinkage is counted from.

    ``subject``: what the verdict calls the first file. ``sort_by``: order by this figure, best first, and compare all others
    with the best; None keeps the order.
    """

    reference: tuple[str, int] | None = None
    subject: str = "the plan"
    sort_by: str | None = None


def check_options(options: MeasureOptions) -> None:
    """BadUsage for fewer than two chunks, raised before files are built."""
    if options.chunks is not None and options.chunks < 2:
        raise BadUsage(f"--chunks {options.chunks}: a comparison needs at least two chunks to know its standard error")


def compared_files(
    entries: Sequence[CompareEntry],
    measurements: Sequence[Measurement],
    tasks: Sequence[Sequence[TaskScore]] = (),
    speeds: Sequence[Throughput] = (),
) -> list[ComparedFile]:
    """What was measured of the files, put together in their order."""
    models = [read_model(entry.file) for entry in entries]
    return [
        ComparedFile(
            name=entry.name,
            measurement=measurements[index],
            tasks=tuple(tasks[index]) if tasks else (),
            throughput=speeds[index] if speeds else None,
            blocks=models[index].blocks,
            elements=models[index].elements,
        )
        for index, entry in enumerate(entries)
    ]


def compare_measurements(names: Sequence[str], measurements: Sequence[Measurement]) -> Comparison:
    """The comparison of measurements alone, the first of which is the plan's; errors as ``compare_files``."""
    pairs = zip(names, measurements, strict=True)
    return compare_files([ComparedFile(name=name, measurement=measurement) for name, measurement in pairs])


def compare_files(files: Sequence[ComparedFile | Measurement], options: CompareOptions | None = None) -> Comparison:
    """The comparison of what was measured; a measurement alone is shown under the name of its file.

    ConditionsDiffer where conditions are not the same for all; BadUsage where KLDs per chunk are missing (llama-perplexity
    prints none) or the figure to sort by was not measured.
    """
    options = options or CompareOptions()
    compared = [
        ComparedFile(name=Path(file.file).stem, measurement=file) if isinstance(file, Measurement) else file
        for file in files
    ]
    check_comparable([file.measurement for file in compared])
    _check_tasks(compared)
    _check_speeds(compared)
    ordered = _sorted(compared, options.sort_by) if options.sort_by else compared
    rows = [_row(ordered[0], file, options.reference) for file in ordered]
    sentence = _leader(rows, options.sort_by) if options.sort_by else verdict(rows, options.subject)
    reference = f"{options.reference[0]} ({human_bytes(options.reference[1])})" if options.reference else None
    return Comparison(tuple(rows), sentence, reference, options.sort_by)


def retested(comparison: Comparison) -> Comparison:
    """A comparison from a record with the KLD differences tested as ``compare_files`` does, whatever version wrote it.

    Rows whose KLDs cannot be compared have no ``gaps[KLD]``.
    """
    first, *others = comparison.rows
    rows = [first]
    for row in others:
        gap = kld_gap(row.measurement, first.measurement)
        rest = {name: figure for name, figure in row.gaps.items() if name != KLD}
        rows.append(replace(row, gaps=({KLD: gap} if gap else {}) | rest))
    return replace(comparison, rows=tuple(rows))


def _check_tasks(files: Sequence[ComparedFile]) -> None:
    first = [score.task for score in files[0].tasks]
    for file in files:
        tasks = [score.task for score in file.tasks]
        if tasks != first:
            raise ConditionsDiffer(
                f"{files[0].name} was measured at the tasks {', '.join(first) or '(none)'}, {file.name} at "
                f"{', '.join(tasks) or '(none)'}; measure all at the same"
            )
    for scores in zip(*(file.tasks for file in files), strict=True):
        check_same_tasks(scores)


def _check_speeds(files: Sequence[ComparedFile]) -> None:
    measured = [file.throughput for file in files if file.throughput]
    if measured and len(measured) < len(files):
        without = next(file.name for file in files if not file.throughput)
        raise ConditionsDiffer(f"the speed of {without} was not measured, that of others was; measure all or none")
    check_same_machine(measured)


def _sorted(files: Sequence[ComparedFile], by: str) -> list[ComparedFile]:
    """Best first: least KLD, PPL and size, most of everything else."""
    sign = 1 if by in (KLD, PPL, SIZE) else -1
    return sorted(files, key=lambda file: sign * figure(file, by))


def figure(file: ComparedFile, name: str) -> float:
    """A figure by its name; BadUsage where it was not measured."""
    measurement = file.measurement
    known = {KLD: measurement.kld.value, PPL: measurement.ppl.value, SIZE: float(measurement.file_bytes)}
    if file.average:
        known |= {score.task: score.score.value for score in file.tasks} | {AVERAGE: file.average.value}
    if file.throughput:
        known |= {test.name: test.speed.value for test in file.throughput.tests}
    if name not in known:
        raise BadUsage(f"--sort {name}: not measured of {file.name}; there is {', '.join(known)}")
    return known[name]


def _leader(rows: Sequence[Row], by: str) -> str:
    return leader_verdict(rows, by, [figure(row, by) for row in rows[:2]])


def _row(first: ComparedFile, file: ComparedFile, reference: tuple[str, int] | None) -> Row:
    ratio = ratio_interval(_klds(first), _klds(file))
    size = file.measurement.file_bytes
    return Row(
        **vars(file),
        kld_ratio=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        size_difference=size / first.measurement.file_bytes - 1,
        shrinkage=1 - size / reference[1] if reference else None,
        gaps={} if file is first else _gaps(first, file),
    )


def _klds(file: ComparedFile) -> tuple[float, ...]:
    """KLDs per chunk."""
    if len(file.measurement.per_chunk_kld) < 2:
        raise BadUsage(
            f"{file.name} has no KLDs per chunk, which a comparison pairs; measure it with --engine in-process and more than "
            "one chunk"
        )
    return file.measurement.per_chunk_kld


def _gaps(first: ComparedFile, file: ComparedFile) -> dict[str, Gap]:
    """Of everything that both were measured at, this file minus the first."""
    gap = kld_gap(file.measurement, first.measurement)
    gaps = {KLD: gap} if gap else {}
    nlls = file.measurement.per_chunk_nll, first.measurement.per_chunk_nll
    if all(nlls):
        gaps[PPL] = chunks_gap(*nlls)
    first_klds = first.measurement.domain_klds()
    gaps |= {
        of_domain(name): chunks_gap(klds, first_klds[name]) for name, klds in file.measurement.domain_klds().items()
    }
    outcomes = [(score.outcomes, base.outcomes) for score, base in zip(file.tasks, first.tasks, strict=True)]
    gaps |= {score.task: tasks_gap(*pair) for score, pair in zip(file.tasks, outcomes, strict=True)}
    if outcomes:
        gaps[AVERAGE] = average_gap(outcomes)
    if first.throughput and file.throughput:
        samples = {test.name: test.samples for test in first.throughput.tests}
        tests = [test for test in file.throughput.tests if test.name in samples]
        gaps |= {test.name: speed_gap(test.samples, samples[test.name]) for test in tests}
    return gaps
