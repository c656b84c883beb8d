"""Files against the first of them on the same text, tasks and machine, paired where that can be, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantplan.budget import human_bytes
from quantplan.comparison import AVERAGE, KLD, PPL, SAME_SIZE, SIZE, ComparedFile, Comparison, Gap, Row
from quantplan.errors import BadUsage, ConditionsDiffer
from quantplan.evaluate.bootstrap import chunks_needed, ratio_interval
from quantplan.evaluate.gaps import average_gap, chunks_gap, speed_gap, tasks_gap
from quantplan.evaluate.measure import MeasureOptions
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

    ``subject``: what the verdict calls the first file. ``sort_by``: order by this figure, the best first, which all others
    are then held against; None keeps the order.
    """

    reference: tuple[str, int] | None = None
    subject: str = "the plan"
    sort_by: str | None = None


def check_options(options: MeasureOptions) -> None:
    """BadUsage for fewer than two windows, to be found before files are built."""
    if options.chunks is not None and options.chunks < 2:
        raise BadUsage(f"--windows {options.chunks}: a comparison needs at least two windows to know its own error")


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


def judge(names: Sequence[str], measurements: Sequence[Measurement]) -> Comparison:
    """The comparison of measurements alone, the first of which is the plan's; errors as ``compare_files``."""
    pairs = zip(names, measurements, strict=True)
    return compare_files([ComparedFile(name=name, measurement=each) for name, each in pairs])


def compare_files(found: Sequence[ComparedFile], judging: CompareOptions | None = None) -> Comparison:
    """The comparison of what was measured. ConditionsDiffer where conditions are not the same for all, BadUsage where
    figures of single windows are missing (llama-perplexity prints none) or the figure to sort by was not measured.
    """
    judging = judging or CompareOptions()
    check_comparable([each.measurement for each in found])
    _check_tasks(found)
    _check_speeds(found)
    ordered = _sorted(found, judging.sort_by) if judging.sort_by else list(found)
    rows = [_row(ordered[0], each, judging.reference) for each in ordered]
    sentence = best_of(rows, judging.sort_by) if judging.sort_by else verdict(rows, judging.subject)
    reference = f"{judging.reference[0]} ({human_bytes(judging.reference[1])})" if judging.reference else None
    return Comparison(tuple(rows), sentence, reference, judging.sort_by)


def _check_tasks(found: Sequence[ComparedFile]) -> None:
    names = [tuple(score.task for score in each.tasks) for each in found]
    for each, own in zip(found, names, strict=True):
        if own != names[0]:
            raise ConditionsDiffer(
                f"{found[0].name} was measured at the tasks {', '.join(names[0]) or '(none)'}, {each.name} at "
                f"{', '.join(own) or '(none)'}; measure all at the same"
            )
    for scores in zip(*(each.tasks for each in found), strict=True):
        check_same_tasks(scores)


def _check_speeds(found: Sequence[ComparedFile]) -> None:
    measured = [each.throughput for each in found if each.throughput]
    if measured and len(measured) < len(found):
        without = next(each.name for each in found if not each.throughput)
        raise ConditionsDiffer(f"the speed of {without} was not measured, that of others was; measure all or none")
    check_same_machine(measured)


def _sorted(found: Sequence[ComparedFile], by: str) -> list[ComparedFile]:
    """The best first: least KLD, PPL and size, most of everything else."""
    sign = 1 if by in (KLD, PPL, SIZE) else -1
    return sorted(found, key=lambda each: sign * figure(each, by))


def figure(of: ComparedFile, name: str) -> float:
    """A figure by its name; BadUsage where it was not measured."""
    known = {KLD: of.measurement.kld.value, PPL: of.measurement.ppl.value, SIZE: float(of.measurement.file_bytes)}
    if of.average:
        known |= {score.task: score.score.value for score in of.tasks} | {AVERAGE: of.average.value}
    if of.throughput:
        known |= {test.name: test.speed.value for test in of.throughput.tests}
    if name not in known:
        raise BadUsage(f"--sort {name}: not measured of {of.name}; there is {', '.join(known)}")
    return known[name]


def _row(first: ComparedFile, other: ComparedFile, reference: tuple[str, int] | None) -> Row:
    own, theirs = _chunks(first), _chunks(other)
    ratio = ratio_interval(own, theirs)
    apart = ratio.high < 1 or ratio.low > 1
    needed = None if apart else chunks_needed(own, theirs)
    size = other.measurement.file_bytes
    return Row(
        **vars(other),
        kld_ratio=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        size_difference=size / first.measurement.file_bytes - 1,
        chunks_needed=None if needed is None else max(needed, len(own) + 1),
        shrinkage=1 - size / reference[1] if reference else None,
        gaps={} if other is first else _gaps(first, other),
    )


def _chunks(of: ComparedFile) -> np.ndarray:
    if len(of.measurement.per_chunk_kld) < 2:
        raise BadUsage(
            f"{of.name} has no figures of two single windows, which a comparison pairs; measure it with --engine in-process "
            "and more than one window"
        )
    return np.array(of.measurement.per_chunk_kld)


def _gaps(first: ComparedFile, other: ComparedFile) -> dict[str, Gap]:
    """Of everything that both were measured at, the other minus the first."""
    own, theirs = first.measurement, other.measurement
    found = {KLD: chunks_gap(_chunks(other), _chunks(first))}
    if own.per_chunk_nll and theirs.per_chunk_nll:
        found[PPL] = chunks_gap(np.array(theirs.per_chunk_nll), np.array(own.per_chunk_nll))
    pairs = [(score.outcomes, base.outcomes) for score, base in zip(other.tasks, first.tasks, strict=True)]
    found |= {score.task: tasks_gap(*pair) for score, pair in zip(other.tasks, pairs, strict=True)}
    if pairs:
        found[AVERAGE] = average_gap(pairs)
    if first.throughput and other.throughput:
        known = {test.name: test.samples for test in first.throughput.tests}
        tests = [test for test in other.throughput.tests if test.name in known]
        found |= {test.name: speed_gap(test.samples, known[test.name]) for test in tests}
    return found


def best_of(rows: Sequence[Row], by: str) -> str:
    """Who leads by that figure, who comes next, and who cannot be told apart from the leader."""
    leader, others = rows[0], rows[1:]
    sentence = f"{leader.name} leads by {by} ({figure(leader, by):.4g})"
    if others:
        sentence += f", then {others[0].name} ({figure(others[0], by):.4g})"
    alike = [row.name for row in others if row.alike(by)]
    unsure = f". Not told apart from {leader.name}: {', '.join(alike)}" if alike else ""
    return sentence + unsure + _basis(rows)


def verdict(rows: Sequence[Row], subject: str = "the plan") -> str:
    """What a newcomer should take home about the first row (``subject``) and the best of the others that is no
    larger.
    """
    plan, others = rows[0], rows[1:]
    fitting = [row for row in others if not row.larger]
    if not others:
        return (
            f"{_capital(subject)} stands alone: KLD {_kld(plan)} at {_size(plan)}; name others with --with to compare."
        )
    rival = min(fitting or others, key=lambda row: row.measurement.kld.value)
    sentence = _judgement(plan, rival, subject) + _basis(rows)
    if not fitting:
        return f"No other file is as small as {subject}'s {_size(plan)}. {sentence}"
    return sentence


def _judgement(plan: Row, rival: Row, subject: str) -> str:
    pair = f"KLD {_kld(plan)} against {_kld(rival)} of {_described(rival)}"
    if not rival.significant and rival.chunks_needed is None:
        return f"At {_size(plan)} {subject} and {_described(rival)} lose exactly the same: KLD {_kld(plan)}"
    if not rival.significant:
        conditions, many = plan.measurement.conditions, rival.chunks_needed
        needed = f"about {many:,} windows ({many * conditions.n_ctx:,} tokens) of such text would decide"
        needed += f", this text gave {conditions.chunks}"
        return f"At {_size(plan)} {subject} and {rival.name} cannot be told apart ({pair}; {needed})"
    if rival.kld_ratio < 1:
        low, high = 1 - rival.high, 1 - rival.low
        less = f"{_percent(1 - rival.kld_ratio)} % less ({pair}, 95 % interval {_range(low, high)})"
        return f"At {_size(plan)} {subject} loses {less}"
    if math.isinf(rival.kld_ratio):
        return f"At {_size(plan)} {subject} is WORSE than {rival.name}, which loses nothing ({pair})"
    low, high = rival.low - 1, rival.high - 1
    more = f"it loses {_percent(rival.kld_ratio - 1)} % more ({pair}, 95 % interval {_range(low, high)})"
    return f"At {_size(plan)} {subject} is WORSE than {rival.name}: {more}; use {rival.name}"


def _basis(rows: Sequence[Row]) -> str:
    conditions = rows[0].measurement.conditions
    return f". Judged on {conditions.chunks} windows of {conditions.n_ctx} tokens."


def _capital(subject: str) -> str:
    return subject[:1].upper() + subject[1:] if subject.startswith("the ") else subject


def _described(row: Row) -> str:
    if abs(row.size_difference) <= SAME_SIZE:
        return row.name
    more = "larger" if row.larger else "smaller"
    return f"{row.name}, which is {100 * abs(row.size_difference):.1f} % {more}"


def _size(row: Row) -> str:
    return human_bytes(row.measurement.file_bytes)


def _kld(row: Row) -> str:
    return f"{row.measurement.kld.value:.3g}"


def _range(low: float, high: float) -> str:
    return f"{_percent(low)} to {_percent(high)} %"


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if abs(share) >= 0.02 else 1}f}"
