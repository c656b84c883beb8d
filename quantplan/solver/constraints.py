"""What people want besides a size: pins, floors, ceilings, types by selector, ties, and a safe floor by default.

Where two constraints speak of the same tensor the narrower one counts (its tensors are a proper part of the other's); if
neither is narrower they conflict, and the message says how.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import QuantType, fitted
from quantplan.selector import Selector
from quantplan.tensor import Tensor

Candidates = Mapping[str, tuple[QuantType, ...]]


@dataclass(frozen=True)
class Constraints:
    """``pins``: these tensors take exactly this type; ``floors`` and ``ceilings``: at least, at most as many bits as
    this type; ``only``: these types instead of the general candidates; ``ties``: see solver/ties.py; ``most_types``: of
    different types; ``course``: "monotone" or "valley" over the blocks (layer mode); ``one_bit``: types below 2 bits
    outside experts too.
    """

    pins: tuple[tuple[Selector, QuantType], ...] = ()
    floors: tuple[tuple[Selector, QuantType], ...] = ()
    ceilings: tuple[tuple[Selector, QuantType], ...] = ()
    only: tuple[tuple[Selector, tuple[QuantType, ...]], ...] = ()
    ties: tuple[str, ...] = ()
    most_types: int | None = None
    course: str | None = None
    one_bit: bool = False


@dataclass(frozen=True)
class Allowed:
    """``left[tensor]``: the types that it may take; ``excluded[tensor][type]``: the constraint that excludes a candidate."""

    left: dict[str, tuple[QuantType, ...]]
    excluded: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Bound:
    """What constraints of one kind ask of one tensor: the option as typed, and its type as the tensor would store it."""

    words: str
    kind: QuantType
    tensors: frozenset[str]


def types_by_tensor(
    tensors: tuple[Tensor, ...], types: tuple[QuantType, ...], constraints: Constraints
) -> dict[str, tuple[QuantType, ...]]:
    """The types to choose from for each tensor: those of the narrowest ``only`` that names it, else ``types``."""
    offered = {tensor.name: types for tensor in tensors}
    chosen = [(selector.select(tensors), kinds, selector.text) for selector, kinds in constraints.only]
    for selected, kinds, _ in sorted(chosen, key=lambda each: -len(each[0])):
        offered |= {tensor.name: kinds for tensor in selected}
    return offered


def allowed(tensors: tuple[Tensor, ...], candidates: Candidates, constraints: Constraints) -> Allowed:
    """The candidates that the constraints leave.

    NothingSelected where a selector matches nothing or nothing is left for a tensor, BadUsage where constraints conflict.
    """
    pins = _by_tensor(tensors, constraints.pins, "--pin")
    floors = _by_tensor(tensors, constraints.floors, "--min-type")
    ceilings = _by_tensor(tensors, constraints.ceilings, "--max-type")
    left: dict[str, tuple[QuantType, ...]] = {}
    excluded: dict[str, dict[str, str]] = {}
    for tensor in tensors:
        pin = _narrowest(tensor, pins)
        bounds = [(_strictest(tensor, floors, max), _below), (_strictest(tensor, ceilings, min), _above)]
        if pin:
            left[tensor.name] = (_pinned(tensor, pin, bounds, constraints),)
            excluded[tensor.name] = {kind.name: pin.words for kind in candidates[tensor.name] if kind != pin.kind}
            continue
        reasons = {kind.name: _reason(tensor, kind, bounds, constraints) for kind in candidates[tensor.name]}
        left[tensor.name] = tuple(kind for kind in candidates[tensor.name] if not reasons[kind.name])
        excluded[tensor.name] = {name: reason for name, reason in reasons.items() if reason}
        if candidates[tensor.name] and not left[tensor.name]:
            raise _nothing_left(tensor, candidates[tensor.name], excluded[tensor.name])
    return Allowed(left, excluded)


def permission(tensors: tuple[Tensor, ...], constraints: Constraints) -> Callable[[Tensor, QuantType], bool]:
    """Whether pins, floors, ceilings and the safe floor allow a type that is no candidate by itself (a stock quant's)."""
    pins = _by_tensor(tensors, constraints.pins, "--pin")
    floors = _by_tensor(tensors, constraints.floors, "--min-type")
    ceilings = _by_tensor(tensors, constraints.ceilings, "--max-type")

    def permits(tensor: Tensor, kind: QuantType) -> bool:
        pin = _narrowest(tensor, pins)
        bounds = [(_strictest(tensor, floors, max), _below), (_strictest(tensor, ceilings, min), _above)]
        return kind == pin.kind if pin else not _reason(tensor, kind, bounds, constraints)

    return permits


def unsafe(tensor: Tensor, kind: QuantType) -> bool:
    """Whether a type is below the safe floor: fewer than 2 bits for anything but experts.

    Published 1-bit files of anything but the experts of very large models babble.
    """
    return kind.one_bit and not tensor.routed


def _by_tensor(
    tensors: tuple[Tensor, ...], constraints: Iterable[tuple[Selector, QuantType]], option: str
) -> dict[str, list[_Bound]]:
    bounds: dict[str, list[_Bound]] = {}
    for selector, kind in constraints:
        selected = selector.select(tensors)
        names = frozenset(tensor.name for tensor in selected)
        for tensor in selected:
            words = f"{option} {selector.text}={kind}"
            bounds.setdefault(tensor.name, []).append(_Bound(words, fitted(kind, tensor.columns), names))
    return bounds


def _narrowest(tensor: Tensor, constraints: Mapping[str, list[_Bound]]) -> _Bound | None:
    """The one that counts; BadUsage where two ask for different types and neither is narrower."""
    bounds = constraints.get(tensor.name, [])
    if not bounds:
        return None
    best = min(bounds, key=lambda each: len(each.tensors))
    for other in bounds:
        if other.kind != best.kind and not best.tensors < other.tensors:
            raise BadUsage(
                f"{best.words} and {other.words} conflict: both name {tensor.name}, and neither names fewer tensors; "
                f"drop one, or add a pin for {tensor.name} alone"
            )
    return best


def _strictest(tensor: Tensor, constraints: Mapping[str, list[_Bound]], choose: Callable[..., _Bound]) -> _Bound | None:
    bounds = constraints.get(tensor.name, [])
    return choose(bounds, key=lambda each: each.kind.bits) if bounds else None


def _below(kind: QuantType, bound: QuantType) -> bool:
    return kind.bits < bound.bits


def _above(kind: QuantType, bound: QuantType) -> bool:
    return kind.bits > bound.bits


def _pinned(tensor: Tensor, pin: _Bound, bounds: list, constraints: Constraints) -> QuantType:
    for bound, breaks in bounds:
        if bound and breaks(pin.kind, bound.kind) and not pin.tensors < bound.tensors:
            raise BadUsage(
                f"{pin.words} and {bound.words} conflict for {tensor.name}: {pin.kind} has {pin.kind.bits:g} bits, "
                f"{bound.kind} {bound.kind.bits:g}; the nearest that both allow is --pin {tensor.name}={bound.kind}"
            )
    if unsafe(tensor, pin.kind) and not constraints.one_bit:
        raise BadUsage(
            f"{pin.words}: {pin.kind} has {pin.kind.bits:g} bits, which ruins anything but experts ({tensor.name}); "
            "the smallest safe type is IQ2_XXS; add --allow-1-bit if you mean it"
        )
    return pin.kind


def _reason(tensor: Tensor, kind: QuantType, bounds: list, constraints: Constraints) -> str:
    """The constraint that excludes the type, or nothing."""
    for bound, breaks in bounds:
        if bound and breaks(kind, bound.kind):
            return bound.words
    return "below the safe floor of 2 bits (--allow-1-bit)" if unsafe(tensor, kind) and not constraints.one_bit else ""


def _nothing_left(tensor: Tensor, candidates: tuple[QuantType, ...], excluded: Mapping[str, str]) -> NothingSelected:
    constraints = " and ".join(dict.fromkeys(excluded.values()))
    names = ", ".join(f"{kind} ({kind.bits:g} bits)" for kind in candidates)
    return NothingSelected(
        f"{constraints}: nothing is left for {tensor.name}, whose candidates are {names}; widen --types, or relax the constraint"
    )
