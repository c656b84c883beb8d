"""Groups with what they stand for: which tensors, and the type of each under every choice.

Tensor mode has a group for each tensor, layer mode one for each block; ties join groups. Sizes, speeds and memory of
a choice are sums over its tensors, so any further limit is stated here in the same way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from quantplan.errors import NothingSelected
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.problem import Choice, Group, Resource
from quantplan.tensor import Tensor, padded

Candidates = Mapping[str, tuple[QuantType, ...]]


@dataclass(frozen=True)
class Grouping:
    """``kinds[g][c][m]`` is the type of ``members[g][m]`` when group g takes its choice c.

    ``blocks[g]``: the blocks of a group of layer mode, empty for groups of single tensors.
    """

    groups: tuple[Group, ...]
    members: tuple[tuple[Tensor, ...], ...]
    kinds: tuple[tuple[tuple[QuantType, ...], ...], ...]
    blocks: tuple[tuple[int, ...], ...]

    def types(self, choices: Sequence[int]) -> dict[str, QuantType]:
        """The assignment {tensor: stored type} of one choice for each group."""
        taken = zip(self.members, self.kinds, choices, strict=True)
        return {
            tensor.name: kind for members, kinds, at in taken for tensor, kind in zip(members, kinds[at], strict=True)
        }

    def priced(self, choices: Sequence[int], table: SensitivityTable) -> dict[str, str]:
        """The assignment as ``table.predict`` takes it: a tensor that stays as it is stored costs nothing, priced or not."""
        stored = {tensor.name: tensor.type for members in self.members for tensor in members}
        return table.measured(self.types(choices), stored)

    def layer_types(self, choices: Sequence[int]) -> tuple[tuple[int, str], ...]:
        """(block, FTYPE) as in Plan.layer_types; empty in tensor mode."""
        taken = zip(self.blocks, self.groups, choices, strict=True)
        return tuple(sorted((block, group.choices[at].label) for blocks, group, at in taken for block in blocks))

    def resource(self, name: str, limit: int, use: Callable[[Tensor, QuantType], int]) -> Resource:
        """A limit on a sum over tensors."""
        rows = tuple(
            tuple(sum(use(tensor, kind) for tensor, kind in zip(members, each, strict=True)) for each in kinds)
            for members, kinds in zip(self.members, self.kinds, strict=True)
        )
        return Resource(name, limit, rows)

    @property
    def of_tensor(self) -> dict[str, int]:
        """Tensor -> index of its group."""
        return {tensor.name: at for at, members in enumerate(self.members) for tensor in members}


def tensor_groups(tensors: tuple[Tensor, ...], left: Candidates, table: SensitivityTable) -> Grouping:
    """A group per tensor, sizes padded as they lie in the file.

    Types without a damage value are no choice; a tensor with no choice left raises NothingSelected.
    """
    groups, kinds = [], []
    for tensor in tensors:
        row = table.rows[tensor.name]
        measured = tuple(kind for kind in left[tensor.name] if kind.name in row.weights)
        if not measured:
            names = ", ".join(kind.name for kind in left[tensor.name]) or "nothing"
            raise NothingSelected(
                f"{tensor.name}: the sensitivity table has no value for {names} (it has {', '.join(row.weights)}); "
                "choose others with --types"
            )
        groups.append(
            Group(tensor.name, tuple(choice_of(tensor, kind, row.damage(kind.name), table) for kind in measured))
        )
        kinds.append(tuple((kind,) for kind in measured))
    return Grouping(tuple(groups), tuple((tensor,) for tensor in tensors), tuple(kinds), tuple(() for _ in tensors))


def choice_of(tensor: Tensor, kind: QuantType, damage: float, table: SensitivityTable) -> Choice:
    """The type of one tensor as a choice."""
    return Choice(kind.name, padded(tensor.bytes_as(kind)), damage, table.domain_damages(tensor.name, damage))


def summed(label: str, parts: Sequence[Choice]) -> Choice:
    """Choices of several groups made at once."""
    domains = tuple(map(sum, zip(*(part.domains for part in parts), strict=True)))
    return Choice(label, sum(part.bytes for part in parts), sum(part.damage for part in parts), domains)


def joined(grouping: Grouping, sets: Iterable[Sequence[int]]) -> Grouping:
    """Each set of groups (indices, disjoint) made one whose choices are the labels that all of them have.

    The joined group stands in the place of its first. NothingSelected, naming two of them, where no label is common.
    """
    sets = [sorted(each) for each in sets]
    first = {each[0]: each for each in sets}
    gone = {index for each in sets for index in each[1:]}
    parts = [
        _join(grouping, first[index]) if index in first else _one(grouping, index)
        for index in range(len(grouping.groups))
        if index not in gone
    ]
    return Grouping(*(tuple(column) for column in zip(*parts, strict=True)))


def _one(grouping: Grouping, index: int) -> tuple:
    return grouping.groups[index], grouping.members[index], grouping.kinds[index], grouping.blocks[index]


def _join(grouping: Grouping, indices: Sequence[int]) -> tuple:
    groups = [grouping.groups[index] for index in indices]
    choices, kinds = [], []
    places = [{choice.label: at for at, choice in enumerate(group.choices)} for group in groups]
    for label in (label for label in places[0] if all(label in each for each in places)):
        at = [each[label] for each in places]
        taken = [group.choices[index] for group, index in zip(groups, at, strict=True)]
        choices.append(summed(label, taken))
        kinds.append(tuple(kind for index, one in zip(indices, at, strict=True) for kind in grouping.kinds[index][one]))
    if not choices:
        raise _nothing_common(groups, [grouping.members[index] for index in indices])
    name = groups[0].name if len(groups) == 1 else f"{groups[0].name} and {len(groups) - 1} tied to it"
    members = tuple(tensor for index in indices for tensor in grouping.members[index])
    blocks = tuple(block for index in indices for block in grouping.blocks[index])
    return Group(name, tuple(choices)), members, tuple(kinds), blocks


def _nothing_common(groups: Sequence[Group], members: Sequence[Sequence[Tensor]]) -> NothingSelected:
    """Names the first two that have nothing in common, or, where each two have, all of them."""
    labels = [{choice.label for choice in group.choices} for group in groups]
    for one, other in combinations(range(len(groups)), 2):
        if not labels[one] & labels[other]:
            return NothingSelected(
                f"{_shown(groups[one], members[one])} and {_shown(groups[other], members[other])} are tied, but no type is "
                f"allowed for both: {_listed(groups[one])} for the first, {_listed(groups[other])} for the second; "
                f"{_nearest(groups[one], (*members[one], *members[other]))}"
            )
    return NothingSelected(f"no type is allowed for all {len(groups)} that are tied to {groups[0].name}")


def _shown(group: Group, members: Sequence[Tensor]) -> str:
    return f"{group.name} ({' x '.join(map(str, members[0].shape))})" if len(members) == 1 else group.name


def _nearest(group: Group, tensors: Sequence[Tensor]) -> str:
    """The type nearest in bits to what the group may take that the rows of all tensors hold."""
    bits = [BY_NAME[choice.label].bits for choice in group.choices if choice.label in BY_NAME]
    fitting = [kind for kind in BY_NAME.values() if kind.block > 1 and all(kind.fits(each.columns) for each in tensors)]
    if not bits or not fitting:
        return "drop the tie"
    nearest = min(fitting, key=lambda kind: (min(abs(kind.bits - each) for each in bits), kind.name))
    return f"the nearest type that fits the rows of all of them is {nearest}: allow it, or drop the tie"


def _listed(group: Group) -> str:
    return ", ".join(choice.label for choice in group.choices)
