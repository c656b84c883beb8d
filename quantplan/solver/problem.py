"""The problem: every group takes one of its choices, the damages add up, the bytes must fit.

A multiple-choice knapsack. A group is a tensor, tensors tied together, or a whole block in layer mode;
metadata, padding and tensors that no plan decides have been taken off the budget.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

COURSES = ("rising", "falling", "monotone", "valley")


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to store a group: its exact bytes and the damage expected of it in nats per token; ``domains``: on each text where
    the sensitivities are known for several.
    """

    label: str
    bytes: int
    damage: float
    domains: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Resource:
    """A further limit: ``use[group][choice]`` adds up to at most ``limit``, all integers >= 0 in one unit.

    Bytes on one device (0 for groups that live elsewhere), nanoseconds per token, ...
    """

    name: str
    limit: int
    use: tuple[tuple[int, ...], ...]

    def used(self, choices: Sequence[int]) -> int:
        return sum(use[index] for use, index in zip(self.use, choices, strict=True))


@dataclass(frozen=True, slots=True)
class Distinct:
    """At most ``most`` different labels among the choices of ``groups`` (indices)."""

    most: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """``groups`` (indices) from first to last; ``ranks[i][choice]`` of ``groups[i]`` follows the ``course``.

    "rising": never falls; "falling": never rises; "monotone": one of the two; "valley": falls, then rises.
    """

    course: str
    groups: tuple[int, ...]
    ranks: tuple[tuple[int, ...], ...]

    def holds(self, choices: Sequence[int]) -> bool:
        """Whether one choice for each group of the problem follows the course."""
        ranks = [ranks[choices[group]] for group, ranks in zip(self.groups, self.ranks, strict=True)]
        steps = list(zip(ranks, ranks[1:], strict=False))
        first_rise = next((at for at, (one, two) in enumerate(steps) if two > one), len(steps))
        last_fall = max((at for at, (one, two) in enumerate(steps) if two < one), default=-1)
        rising, falling = last_fall < 0, first_rise == len(steps)
        if self.course == "monotone":
            return rising or falling
        return {"rising": rising, "falling": falling, "valley": last_fall < first_rise}[self.course]


@dataclass(frozen=True)
class Problem:
    """Minimise the sum of damages; bytes <= ``budget_bytes`` and every further resource within its limit.

    ``distinct`` and ``chains`` hold besides. ValueError naming the group or resource for anything that is no such
    problem.
    """

    groups: tuple[Group, ...]
    budget_bytes: int
    resources: tuple[Resource, ...] = ()
    distinct: Distinct | None = None
    chains: tuple[Chain, ...] = ()

    def __post_init__(self) -> None:
        for group in self.groups:
            _check_group(group)
        for resource in self.resources:
            _check_resource(resource, self.groups)
        for chain in self.chains:
            _check_chain(chain, self.groups)

    @property
    def smallest_bytes(self) -> int:
        """Bytes when every group takes its smallest choice; further resources not looked at."""
        return sum(min(choice.bytes for choice in group.choices) for group in self.groups)

    @property
    def largest_bytes(self) -> int:
        return sum(max(choice.bytes for choice in group.choices) for group in self.groups)

    @property
    def limits(self) -> tuple[Resource, ...]:
        """All resources alike, bytes first."""
        use = tuple(tuple(choice.bytes for choice in group.choices) for group in self.groups)
        return (Resource("bytes", self.budget_bytes, use), *self.resources)

    def taken(self, choices: Sequence[int]) -> Iterator[Choice]:
        return (group.choices[index] for group, index in zip(self.groups, choices, strict=True))

    def damage(self, choices: Sequence[int]) -> float:
        """Sum of damages, correctly rounded."""
        return math.fsum(choice.damage for choice in self.taken(choices))

    def domain_damages(self, choices: Sequence[int]) -> tuple[float, ...]:
        """Sum of damages on each text, correctly rounded; empty where they are not known."""
        return tuple(map(math.fsum, zip(*(choice.domains for choice in self.taken(choices)), strict=True)))

    def bytes(self, choices: Sequence[int]) -> int:
        return sum(choice.bytes for choice in self.taken(choices))

    def fits(self, choices: Sequence[int]) -> bool:
        """Whether one choice for each group keeps every limit, added up in integers, and the other conditions."""
        return (
            self.bytes(choices) <= self.budget_bytes
            and all(resource.used(choices) <= resource.limit for resource in self.resources)
            and (self.distinct is None or len(self.labels(choices)) <= self.distinct.most)
            and all(chain.holds(choices) for chain in self.chains)
        )

    def labels(self, choices: Sequence[int]) -> set[str]:
        """The different labels that ``distinct`` counts."""
        counted = self.distinct.groups if self.distinct else ()
        return {self.groups[group].choices[choices[group]].label for group in counted}


def _check_group(group: Group) -> None:
    if not group.choices:
        raise ValueError(f"{group.name} has no choice")
    for choice in group.choices:
        if not 0 <= choice.damage < math.inf:  # NaN fails too
            raise ValueError(f"{group.name}: the damage of {choice.label} is {choice.damage}; it must be a number >= 0")
        if choice.bytes < 0:
            raise ValueError(f"{group.name}: {choice.label} has {choice.bytes} bytes")


def _check_resource(resource: Resource, groups: tuple[Group, ...]) -> None:
    if [len(use) for use in resource.use] != [len(group.choices) for group in groups]:
        raise ValueError(f"{resource.name} does not give the use of every choice of every group")
    for group, uses in zip(groups, resource.use, strict=True):
        if min(uses) < 0:
            raise ValueError(f"{group.name} uses {min(uses)} of {resource.name}")


def _check_chain(chain: Chain, groups: tuple[Group, ...]) -> None:
    if chain.course not in COURSES:
        raise ValueError(f"{chain.course} is not a course of a chain")
    if [len(ranks) for ranks in chain.ranks] != [len(groups[group].choices) for group in chain.groups]:
        raise ValueError("a chain does not rank every choice of every one of its groups")
