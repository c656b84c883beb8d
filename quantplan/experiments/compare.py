"""A plan's file against others on the same text, paired window by window, with a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantplan.analyze.bootstrap import ratio_interval, windows_needed
from quantplan.budget import human_bytes
from quantplan.comparison import SAME_SIZE, Comparison, Row
from quantplan.errors import BadUsage
from quantplan.experiments.measure import Advance, MeasureOptions, measure
from quantplan.measurement import Measurement, check_comparable


@dataclass(frozen=True)
class Entry:
    """A file that takes part, under the name it is shown with."""

    name: str
    file: Path


def compare(
    base: Path, entries: Sequence[Entry], text: str, options: MeasureOptions | None = None,
    advance: Advance | None = None, cache: Path | None = None,
) -> Comparison:  # fmt: skip
    """Measures all entries, the first of them being the plan, and judges. See ``measure`` for the arguments
    and errors.

    BadUsage for fewer than two windows: without a second one there is no telling how far chance goes.
    """
    options = options or MeasureOptions()
    check_options(options)
    return judge(
        [entry.name for entry in entries],
        measure(base, [entry.file for entry in entries], text, options, advance, cache),
    )


def check_options(options: MeasureOptions) -> None:
    """BadUsage for fewer than two windows, to be found before files are built."""
    if options.windows is not None and options.windows < 2:
        raise BadUsage(f"--windows {options.windows}: a comparison needs at least two windows to know its own error")


def judge(names: Sequence[str], measurements: Sequence[Measurement]) -> Comparison:
    """The comparison of measurements, the first of which is the plan's; ConditionsDiffer where they do not
    compare.
    """
    check_comparable(measurements)
    plan = measurements[0]
    rows = [_row(name, plan, other) for name, other in zip(names, measurements, strict=True)]
    return Comparison(tuple(rows), verdict(rows))


def _row(name: str, plan: Measurement, other: Measurement) -> Row:
    own, theirs = np.array(plan.per_window_kld), np.array(other.per_window_kld)
    ratio = ratio_interval(own, theirs)
    apart = ratio.high < 1 or ratio.low > 1
    needed = None if apart else windows_needed(own, theirs)
    return Row(
        name=name,
        measurement=other,
        kld_ratio=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        size_difference=other.file_bytes / plan.file_bytes - 1,
        windows_needed=None if needed is None else max(needed, len(own) + 1),
    )


def verdict(rows: Sequence[Row]) -> str:
    """What a newcomer should take home about the plan (the first row) and the best of the others that is no
    larger.
    """
    plan, others = rows[0], rows[1:]
    fitting = [row for row in others if not row.larger]
    if not others:
        return f"The plan stands alone: KLD {_kld(plan)} at {_size(plan)}; name others with --with to compare."
    rival = min(fitting or others, key=lambda row: row.measurement.kld.value)
    sentence = _judgement(plan, rival) + _basis(rows)
    if not fitting:
        return f"No other file is as small as the plan's {_size(plan)}. {sentence}"
    return sentence


def _judgement(plan: Row, rival: Row) -> str:
    pair = f"KLD {_kld(plan)} against {_kld(rival)} of {_described(rival)}"
    if not rival.told_apart and rival.windows_needed is None:
        return f"At {_size(plan)} the plan and {_described(rival)} lose exactly the same: KLD {_kld(plan)}"
    if not rival.told_apart:
        windows = plan.measurement.conditions.windows
        needed = f"about {rival.windows_needed} windows would be needed, this text gave {windows}"
        return f"At {_size(plan)} the plan and {rival.name} cannot be told apart ({pair}; {needed})"
    if rival.kld_ratio < 1:
        low, high = 1 - rival.high, 1 - rival.low
        less = f"{_percent(1 - rival.kld_ratio)} % less ({pair}, 95 % interval {_range(low, high)})"
        return f"At {_size(plan)} the plan loses {less}"
    if math.isinf(rival.kld_ratio):
        return f"At {_size(plan)} the plan is WORSE than {rival.name}, which loses nothing ({pair})"
    low, high = rival.low - 1, rival.high - 1
    more = f"it loses {_percent(rival.kld_ratio - 1)} % more ({pair}, 95 % interval {_range(low, high)})"
    return f"At {_size(plan)} the plan is WORSE than {rival.name}: {more}; use {rival.name}"


def _basis(rows: Sequence[Row]) -> str:
    conditions = rows[0].measurement.conditions
    return f". Judged on {conditions.windows} windows of {conditions.n_ctx} tokens."


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
