"""Why this type: a group's damage curve against the price of bytes, and which groups stand to gain."""

from collections.abc import Sequence
from dataclasses import dataclass

from quantplan.solver.problem import Choice, Group, Problem

MB = 1e6


@dataclass(frozen=True)
class CurvePoint:
    """One choice on a group's curve. ``rate``: nats that the step between it and the chosen one saves per byte that it
    costs; None for the chosen one and for one as large.
    """

    label: str
    bytes: int
    damage: float
    rate: float | None
    chosen: bool

    @property
    def step_rate(self) -> float:
        """``rate`` of a choice of another size."""
        assert self.rate is not None
        return self.rate


@dataclass(frozen=True)
class GroupGain:
    """A group in a plan: its chosen rung, the best step up (None where no larger choice is better), and its surplus:
    damage saved against its smallest choice, less the price of the bytes that this took.
    """

    group: str
    chosen: CurvePoint
    up: CurvePoint | None
    surplus: float


def curve(group: Group, chosen: int) -> tuple[CurvePoint, ...]:
    """All choices, smallest first."""
    own = group.choices[chosen]
    rungs = [
        CurvePoint(each.label, each.bytes, each.damage, _rate(own, each), at == chosen)
        for at, each in enumerate(group.choices)
    ]
    return tuple(sorted(rungs, key=lambda rung: (rung.bytes, -rung.damage)))


def _rate(own: Choice, other: Choice) -> float | None:
    more = other.bytes - own.bytes
    return (own.damage - other.damage) / more if more else None


def step_up(rungs: Sequence[CurvePoint]) -> CurvePoint | None:
    """The larger choice that saves most per byte; None where none saves anything."""
    own = _chosen(rungs)
    larger = [each for each in rungs if each.bytes > own.bytes and each.step_rate > 0]
    return max(larger, key=lambda each: each.step_rate, default=None)


def step_down(rungs: Sequence[CurvePoint]) -> CurvePoint | None:
    """The smaller choice that costs least per byte it frees."""
    own = _chosen(rungs)
    return min((each for each in rungs if each.bytes < own.bytes), key=lambda each: each.step_rate, default=None)


def _chosen(rungs: Sequence[CurvePoint]) -> CurvePoint:
    return next(each for each in rungs if each.chosen)


def standings(problem: Problem, choices: Sequence[int], price: float) -> tuple[GroupGain, ...]:
    """Every group in a plan, at a price of bytes in nats per byte."""
    return tuple(_standing(group, chosen, price) for group, chosen in zip(problem.groups, choices, strict=True))


def _standing(group: Group, chosen: int, price: float) -> GroupGain:
    rungs = curve(group, chosen)
    own, smallest = _chosen(rungs), min(rungs, key=lambda each: (each.bytes, each.damage))
    surplus = smallest.damage - own.damage - price * (own.bytes - smallest.bytes)
    return GroupGain(group.name, own, step_up(rungs), surplus)


def verdict(rungs: Sequence[CurvePoint], price: float | None, free_bytes: int | None = None) -> str:
    """One sentence: the next step up, and the nearest one down, against the price (nats per byte; None: it has none).

    ``free_bytes``: what the plan leaves of its budget.
    """
    own, up, down = _chosen(rungs), step_up(rungs), step_down(rungs)
    words = [_upwards(own, up, price, free_bytes)] if up else ["no allowed type is better"]
    words += [_downwards(own, down, price)] if down else ["no allowed type is smaller"]
    return f"{own.label}: {'; '.join(words)}."


def _upwards(own: CurvePoint, up: CurvePoint, price: float | None, free_bytes: int | None) -> str:
    more = up.bytes - own.bytes
    words = f"the step to {up.label} would save {own.damage - up.damage:.3g} nats for {more:,} bytes = {_per_mb(up.step_rate)}"
    if price is None:
        return words
    if up.step_rate <= price:
        return f"{words}, not above the price of {_per_mb(price)}"
    words = f"{words}, above the price of {_per_mb(price)}"
    if free_bytes is not None and more > free_bytes:
        return f"{words}, but only {free_bytes:,} bytes are left and no exchange for them pays"
    return f"{words}, but another condition is in the way"


def _downwards(own: CurvePoint, down: CurvePoint, price: float | None) -> str:
    less = own.bytes - down.bytes
    words = (
        f"{down.label} would cost {down.damage - own.damage:.3g} nats for {less:,} bytes = {_per_mb(down.step_rate)}"
    )
    if price is None:
        return words
    if down.step_rate >= price:
        return f"{words}, not below it"
    return f"{words}, below it, but the whole plan is better with these bytes here"


def _per_mb(rate: float) -> str:
    return f"{rate * MB:.3g} per MB"
