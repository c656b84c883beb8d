"""What a comparison says, in one sentence."""

import math
from collections.abc import Sequence

from quantplan.budget import human_bytes
from quantplan.comparison import SAME_SIZE, Row


def leader_verdict(rows: Sequence[Row], by: str, figures: Sequence[float]) -> str:
    """Who leads by the figure ``by``, who comes next, and who is not significantly different from the leader.

    ``figures``: of the first two rows.
    """
    leader, others = rows[0], rows[1:]
    sentence = f"{leader.name} leads by {by} ({figures[0]:.4g})"
    if others:
        sentence += f", then {others[0].name} ({figures[1]:.4g})"
    alike = [row.name for row in others if row.alike(by)]
    unsure = f". Not significantly different from {leader.name}: {', '.join(alike)}" if alike else ""
    return sentence + unsure + _basis(rows)


def verdict(rows: Sequence[Row], subject: str = "the plan") -> str:
    """The first row (``subject``) against the row of least KLD among those that are no larger, else among all."""
    plan, others = rows[0], rows[1:]
    smaller = [row for row in others if not row.larger]
    if not others:
        name = subject[:1].upper() + subject[1:] if subject.startswith("the ") else subject
        return f"{name} was measured alone: KLD {_kld(plan)} at {_size(plan)}; name others with --with to compare."
    rival = min(smaller or others, key=lambda row: row.measurement.kld.value)
    sentence = _against(plan, rival, subject) + _basis(rows)
    if not smaller:
        return f"No other file is as small as {subject}'s {_size(plan)}. {sentence}"
    return sentence


def _against(plan: Row, rival: Row, subject: str) -> str:
    pair = f"KLD {_kld(plan)} against {_kld(rival)} of {_described(rival)}"
    if not rival.significant and rival.chunks_needed is None:
        return f"At {_size(plan)} {subject} and {_described(rival)} have exactly the same KLD: {_kld(plan)}"
    if not rival.significant:
        conditions, chunks = plan.measurement.conditions, rival.chunks_needed or 0
        needed = f"about {chunks:,} chunks ({chunks * conditions.n_ctx:,} tokens) of such text would decide"
        needed += f", this text has {conditions.chunks}"
        return f"At {_size(plan)} {subject} and {rival.name} are not significantly different ({pair}; {needed})"
    if math.isinf(rival.kld_ratio):
        return f"At {_size(plan)} {subject} is WORSE than {rival.name}, whose KLD is 0 ({pair})"
    if rival.kld_ratio < 1:
        change = (
            f"{_percent(1 - rival.kld_ratio)} % less ({pair}, 95 % interval {_range(1 - rival.high, 1 - rival.low)})"
        )
        return f"At {_size(plan)} {subject} loses {change}"
    change = f"{_percent(rival.kld_ratio - 1)} % more ({pair}, 95 % interval {_range(rival.low - 1, rival.high - 1)})"
    return f"At {_size(plan)} {subject} is WORSE than {rival.name}: it loses {change}; use {rival.name}"


def _basis(rows: Sequence[Row]) -> str:
    first = rows[0].measurement
    texts = ""
    if worst := first.worst_domain:
        kld = next(domain.kld.value for domain in first.domains if domain.name == worst)
        texts = f" of {len(first.domains)} texts; {rows[0].name} loses most on {worst} (KLD {kld:.3g})"
    return f". Measured on {first.conditions.chunks} chunks of {first.conditions.n_ctx} tokens{texts}."


def _described(row: Row) -> str:
    if abs(row.size_difference) <= SAME_SIZE:
        return row.name
    return f"{row.name}, which is {100 * abs(row.size_difference):.1f} % {'larger' if row.larger else 'smaller'}"


def _size(row: Row) -> str:
    return human_bytes(row.measurement.file_bytes)


def _kld(row: Row) -> str:
    return f"{row.measurement.kld.value:.3g}"


def _range(low: float, high: float) -> str:
    return f"{_percent(low)} to {_percent(high)} %"


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if abs(share) >= 0.02 else 1}f}"
