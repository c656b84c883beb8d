"""The kinds of a model's blocks as llama.cpp distinguishes them: the rules of its architecture applied to its header."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from quantplan.gguf.layer_arrays import is_per_layer_array
from quantplan.gguf.reader import number_arrays
from quantplan.surgery.architectures.rules import RULES, ArchitectureItem, Cycle, Lead, Rules
from quantplan.tensor import Model

Numbers = tuple[float, ...]
_SCALES = (".scale", ".input_scale")  # come with some stored types, and say nothing about the block


@dataclass(frozen=True)
class Trait:
    """One way in which blocks differ. ``kinds``: that of each block of the original, without those that predict further tokens.

    ``expected``: what llama.cpp takes the block at a position for; None where the kind moves with the block. ``cause``: key and
    value, or where else llama.cpp has it from; ``rule``: what follows from it, appended to it. ``leading``: the kind that only
    the first blocks have, their number in ``key``. ``period``: after which positions repeat, 0 where they do not. ``older``: the
    trait for builds of llama.cpp that do not know the array.
    """

    kinds: tuple[str, ...]
    cause: str
    expected: Callable[[int], str] | None = None
    rule: str = ""
    period: int = 0
    leading: str | None = None
    key: str = ""
    older: "Trait | None" = None


@dataclass(frozen=True)
class BlockKinds:
    """``main``: number of blocks without the ``trailing`` ones that predict further tokens. ``items``: arrays with an item per
    block, by key without architecture. ``sizes``: shapes of blocks of one kind that no metadata explains. ``images``: number of
    first blocks that take features of images. ``first_not``, ``stays``: see Rules. ``refused``: why no map is possible.
    """

    main: int
    trailing: int
    traits: tuple[Trait, ...]
    items: dict[str, Numbers]
    sizes: Trait | None = None
    images: int = 0
    first_not: tuple[str, ...] = ()
    stays: tuple[frozenset[str], ...] = ()
    refused: str | None = None

    def are(self, block: int, kinds: frozenset[str]) -> bool:
        """Whether the block is of all these kinds."""
        return kinds <= {trait.kinds[block] for trait in self.traits}

    def name(self, block: int) -> str:
        """The block's kind in words, empty where all blocks are alike."""
        if block >= self.main:
            return "predicts further tokens"
        return ", ".join(trait.kinds[block] for trait in self.traits if len(set(trait.kinds)) > 1)


def block_kinds(model: Model) -> BlockKinds:
    """What is known of the model's blocks. Reads the header once per model object; searches ask thousands of times."""
    return _block_kinds(_SameModel(model))


class _SameModel:
    """A model as a cache key by identity: to hash all its tensors would take longer than the check."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __hash__(self) -> int:
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameModel) and other.model is self.model


@lru_cache(maxsize=16)
def _block_kinds(key: _SameModel) -> BlockKinds:
    model = key.model
    rules = RULES.get(model.architecture, Rules())
    trailing = model.mtp_blocks
    main = model.blocks - trailing
    arrays = number_arrays(model.path)
    items = {_bare(model, key): array for key, array in arrays.items() if _per_block(model, main, key, array)}
    header = _Header(model, main, {_bare(model, key): array for key, array in arrays.items()})
    traits = header.traits(rules)
    return BlockKinds(
        main,
        trailing,
        traits,
        items,
        sizes=_sizes(model, main, traits, items),
        images=int(header.number("n_deepstack_layers", 0)),
        first_not=rules.first_not,
        stays=rules.stays,
        refused=header.refused(rules),
    )


def _bare(model: Model, key: str) -> str:
    return key.removeprefix(f"{model.architecture}.")


def _per_block(model: Model, main: int, key: str, array: Numbers) -> bool:
    return len(array) >= main and is_per_layer_array(model.architecture, key, len(array), model.blocks)


@dataclass(frozen=True)
class _Header:
    """Turns rules into traits of one model: None where its metadata say that its blocks do not differ in that way."""

    model: Model
    main: int
    arrays: dict[str, Numbers]

    def traits(self, rules: Rules) -> tuple[Trait, ...]:
        traits = [*map(self.cycle, rules.cycles), *map(self.lead, rules.leads), *map(self.item, rules.items)]
        traits += [self.halved(rules.halved), self.opens(rules.opens), self.listed(rules.listed)]
        traits += [self.placed(rules.placed, [trait for trait in traits if trait])]
        return tuple(trait for trait in traits if trait)

    def number(self, key: str, default: float) -> float:
        return self.model.hyperparameter(key, default)

    def _key(self, key: str) -> str:
        return f"{self.model.architecture}.{key}"

    def cycle(self, cycle: Cycle) -> Trait | None:
        if cycle.blocks is not None and self.main != cycle.blocks:
            return None
        if cycle.when is not None and self.number(*cycle.when) <= 0:
            return None
        by_position = self._by_position(cycle)
        if cycle.array in self.arrays:
            listed = self.item(ArchitectureItem(cycle.array, cycle.nth, cycle.others))
            same = listed and by_position and listed.kinds == by_position.kinds
            return replace(listed, older=by_position) if listed and same else listed
        return by_position

    def _by_position(self, cycle: Cycle) -> Trait | None:
        period = int(self.number(cycle.key, cycle.period)) if cycle.key else cycle.period
        if period < 2:
            return None
        stated = cycle.key and self._key(cycle.key) in self.model.metadata
        cause = (
            f"{self._key(cycle.key or '')} = {period}"
            if stated
            else f"{self.model.architecture} has periods of {period}"
        )
        rule = f": the {'first' if cycle.first else 'last'} layer of every {period} is {cycle.nth}, the others {cycle.others}"
        kinds = tuple(cycle.kind(block, period) for block in range(self.main))
        return Trait(kinds, cause, lambda place: cycle.kind(place, period), rule, period)

    def lead(self, lead: Lead) -> Trait | None:
        count = int(self.number(lead.key, 0))
        if count <= 0:
            return None
        kinds = tuple(lead.leading if block < count else lead.rest for block in range(self.main))
        return Trait(kinds, f"{self._key(lead.key)} = {count}", leading=lead.leading, key=self._key(lead.key))

    def item(self, item: ArchitectureItem) -> Trait | None:
        items = self.arrays.get(item.key, ())
        if len(items) < self.main:
            return None
        kinds = tuple(item.other if value else item.zero for value in items[: self.main])
        return Trait(kinds, self._key(item.key))

    def halved(self, key: str | None) -> Trait | None:
        every = int(self.number(key, 0)) if key else 0
        if every <= 0:
            return None

        def kind(place: int) -> str:
            return f"with weights halved {place // every} times"

        return Trait(tuple(map(kind, range(self.main))), f"{self._key(key or '')} = {every}", kind)

    def opens(self, does: str | None) -> Trait | None:
        if does is None:
            return None

        def kind(place: int) -> str:
            return "a later one" if place else "the first"

        return Trait(tuple(map(kind, range(self.main))), f"the first layer of {self.model.architecture} {does}", kind)

    def placed(self, placed: tuple[str, str] | None, traits: list[Trait]) -> Trait | None:
        if placed is None:
            return None
        kind, why = placed
        tied = [any(trait.kinds[block] == kind for trait in traits) for block in range(self.main)]
        kinds = tuple(f"made for place {block}" if fixed else "for any place" for block, fixed in enumerate(tied))
        return Trait(kinds, f"{self.model.architecture}: {why}", lambda place: kinds[min(place, self.main - 1)])

    def listed(self, listed: tuple[str, str] | None) -> Trait | None:
        if listed is None or listed[0] not in self.arrays:
            return None
        key, what = listed
        numbers = set(self.arrays[key])

        def kind(place: int) -> str:
            return f"with {what}" if place in numbers else f"without {what}"

        return Trait(tuple(map(kind, range(self.main))), f"{self._key(key)} lists it by number", kind)

    def refused(self, rules: Rules) -> str | None:
        for key, why in rules.refused_with:
            if self.number(key, 0) > 0 or any(self.arrays.get(key, ())):
                return f"{why} ({self._key(key)})"
        if rules.refused_without is not None:
            array, key, least, why = rules.refused_without
            if array not in self.arrays and self.number(key, 0) >= least:
                return f"{why}, and the file has no {self._key(array)}"
        return rules.refused


def _sizes(model: Model, main: int, traits: tuple[Trait, ...], arrays: dict[str, Numbers]) -> Trait | None:
    """Blocks of one kind, and with the same items in all arrays, whose tensors of one role differ in shape."""
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in range(main)]
    for tensor in model.tensors:
        if tensor.block is not None and tensor.block < main and not tensor.name.endswith(_SCALES):
            shapes[tensor.block][tensor.role] = tensor.shape
    seen: dict[tuple[object, ...], tuple[int, ...]] = {}
    for block in range(main):
        kind = tuple(trait.kinds[block] for trait in traits) + tuple(items[block] for items in arrays.values())
        for role, shape in shapes[block].items():
            if seen.setdefault((*kind, role), shape) != shape:
                return _sizes_trait(role, [of_block.get(role) for of_block in shapes])
    return None


def _sizes_trait(role: str, shapes: list[tuple[int, ...] | None]) -> Trait:
    def name(shape: tuple[int, ...] | None) -> str:
        return f"{role} of {' x '.join(map(str, shape))}" if shape else f"without {role}"

    kinds = tuple(map(name, shapes))
    cause = "no metadata say which layer has which size"
    return Trait(kinds, cause, lambda place: kinds[min(place, len(kinds) - 1)])
