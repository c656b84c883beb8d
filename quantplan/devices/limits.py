"""Limits of the machine that a file shall run on: VRAM, RAM and tokens per second, as resources of the problem."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from quantplan.budget import human_bytes
from quantplan.cache_types import F16_CACHE, CacheTypes
from quantplan.devices.fit_params import memory_needs
from quantplan.devices.memory import MemoryNeeds, MemoryUse, Placement, placement
from quantplan.devices.several_gpus import Split, gpu_name, splits
from quantplan.devices.speed.table import GENERATION, SpeedTable
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.plan import Plan
from quantplan.quant_type import QuantType
from quantplan.selector import Selector
from quantplan.solver.grouping import Grouping
from quantplan.solver.planner import Formulation, keeping, limited
from quantplan.tensor import Model, Tensor

VRAM, RAM, TIME = "VRAM", "RAM", "time per token"
_EXPERTS = Selector("ffn_*exps")
_PS = 1000  # picoseconds in a nanosecond: times are counted in whole ones


@dataclass(frozen=True)
class Devices:
    """``vram`` and ``ram``: bytes, None for no limit; ``on_cpu``: what stays in RAM, the rest is on the GPU.

    ``gpus``: VRAM of each of several GPUs; ``vram`` is their sum then.
    """

    vram: int | None
    ram: int | None
    ctx: int
    kv: CacheTypes = F16_CACHE
    on_cpu: tuple[Selector, ...] = ()
    gpus: tuple[int, ...] = ()

    def exceeded(self, use: MemoryUse) -> str:
        """Which limit a use of memory is above, in words; empty where it fits."""
        further = max(len(self.gpus) - 1, 0) * use.needs.compute_buffer.bytes  # each GPU has one of its own
        for name, limit, size in ((VRAM, self.vram, use.vram + further), (RAM, self.ram, use.ram)):
            if limit is not None and size > limit:
                return f"needs {human_bytes(size)} of {name}, the limit is {human_bytes(limit)}"
        return ""


def default_on_cpu(model: Model) -> tuple[Selector, ...]:
    """Experts stay in RAM where nothing else was said; BadUsage for a model without them."""
    if not any(tensor.routed for tensor in model.tensors):
        raise BadUsage(f"{model.path.name} has no experts; say with --on-cpu SELECTOR which tensors shall stay in RAM")
    return (_EXPERTS,)


@cache
def needs_of(model: Model, ctx: int, kv: CacheTypes) -> MemoryNeeds:
    """See ``memory_needs``; asked once."""
    return memory_needs(model, ctx, kv)


def where(model: Model, devices: Devices) -> Placement:
    return placement(model, devices.on_cpu)


def memory_use(types: Mapping[str, QuantType], model: Model, devices: Devices) -> MemoryUse:
    """What a file with these types takes on the two devices; tensors without one stay as they are stored."""
    sizes = {tensor.name: tensor.bytes_as(types.get(tensor.name, tensor.type)) for tensor in model.tensors}
    return where(model, devices).use(needs_of(model, devices.ctx, devices.kv), sizes)


@dataclass(frozen=True)
class _Free:
    """Bytes left for the weights that are up for choice."""

    vram: int | None
    ram: int | None


def within_memory(formulation: Formulation, model: Model, devices: Devices) -> Iterator[Formulation]:
    """The problem with its limits on VRAM and RAM, once for each size that the largest moved tensor may have.

    llama.cpp keeps room on the GPU for a copy of the largest tensor that lives in RAM: how large it may be is part of
    the choice, so each size is a problem of its own and the best of them is the answer. Raises BudgetImpossible where the
    context alone does not fit.
    """
    needs, at = needs_of(model, devices.ctx, devices.kv), where(model, devices)
    copied = {t.name: t.bytes for t in model.tensors if t.name not in formulation.grouping.of_tensor}
    levels = _levels(formulation.grouping, at, at.largest_moved({name: copied.get(name, 0) for name in at.moved}))
    possible = False
    for largest in levels:
        free = _Free(
            None if devices.vram is None else devices.vram - needs.total(_sum(copied, at.gpu), largest),
            None if devices.ram is None else devices.ram - needs.host_total(_sum(copied, at.cpu), largest),
        )
        if min(left for left in (free.vram, free.ram, 0) if left is not None) < 0:
            continue

        def permitted(tensor: Tensor, quant: QuantType, most: int = largest) -> bool:
            return tensor.name not in at.moved or tensor.bytes_as(quant) <= most

        narrowed = keeping(formulation, permitted)
        if narrowed is None:
            continue
        if not devices.gpus:
            possible = True
            yield _limited(narrowed, at, free)
        for split in splits(model, at, needs, devices.gpus) if devices.gpus else ():
            moved = needs.crossing.bytes + largest if largest else 0
            rooms = _rooms(devices, split, copied, moved)
            if all(_smallest(narrowed, names) <= room for names, room in rooms.values()):
                possible = True
                yield replace(_split(narrowed, at, free, rooms), tensor_split=split.counts)
    if not possible:
        raise _too_much(needs, devices)


_Rooms = dict[str, tuple[frozenset[str], int]]  # name of a limit -> tensors that it is about, bytes left for them


def _rooms(devices: Devices, split: Split, copied: dict[str, int], moved: int) -> _Rooms:
    return {
        gpu_name(number): (names, vram - needs - moved - _sum(copied, names))
        for number, (vram, names, needs) in enumerate(zip(devices.gpus, split.weights, split.needs, strict=True))
    }


def _smallest(formulation: Formulation, names: frozenset[str]) -> int:
    """Bytes that the smallest choices take of the tensors named."""
    return sum(map(min, formulation.grouping.resource("", 0, _bytes_of(names)).use))


def _bytes_of(names: frozenset[str]) -> Callable[[Tensor, QuantType], int]:
    return lambda tensor, quant: tensor.bytes_as(quant) if tensor.name in names else 0


def _split(formulation: Formulation, at: Placement, free: _Free, rooms: _Rooms) -> Formulation:
    """With a limit for each GPU, and that of RAM."""
    for name, (names, room) in rooms.items():
        formulation = limited(formulation, formulation.grouping.resource(name, room, _bytes_of(names)), "bytes")
    return _limited(formulation, at, replace(free, vram=None))


def _levels(grouping: Grouping, at: Placement, least: int) -> list[int]:
    """The sizes that the largest moved tensor can have, from large to small; [0] where none is moved."""
    sizes = {
        tensor.bytes_as(quant)
        for members, choices in zip(grouping.members, grouping.kinds, strict=True)
        for choice in choices
        for tensor, quant in zip(members, choice, strict=True)
        if tensor.name in at.moved
    }
    return sorted((size for size in sizes if size >= least), reverse=True) or [least]


def _sum(sizes: dict[str, int], names: frozenset[str]) -> int:
    return sum(size for name, size in sizes.items() if name in names)


def _limited(formulation: Formulation, at: Placement, free: _Free) -> Formulation:
    for name, room, there in ((VRAM, free.vram, at.gpu), (RAM, free.ram, at.cpu)):
        if room is not None:
            formulation = limited(formulation, formulation.grouping.resource(name, room, _bytes_of(there)), "bytes")
    return formulation


def _too_much(needs: MemoryNeeds, devices: Devices) -> BudgetImpossible:
    alone = needs.total(0)
    limits = " and ".join(
        f"{human_bytes(size)} of {name}" for size, name in ((devices.vram, VRAM), (devices.ram, RAM)) if size
    )
    return BudgetImpossible(
        f"a context of {devices.ctx:,} leaves no room for weights in {limits}: KV cache "
        f"{human_bytes(needs.kv_cache.bytes)}, {human_bytes(alone)} of VRAM in all without weights; "
        "choose a smaller --serve-ctx, --kv q8_0, or more with --on-cpu"
    )


# --- speed


def fast_enough(formulation: Formulation, speeds: SpeedTable, tokens_per_second: float) -> Formulation:
    """The problem with a limit on the time of a token at generation. BudgetImpossible where overhead alone takes longer."""
    beside = speeds.overhead[GENERATION].of(speeds.blocks)
    room = 1e9 / tokens_per_second - beside
    if room < 0:
        raise BudgetImpossible(
            f"{tokens_per_second:g} tokens/s leave {1e6 / tokens_per_second:,.0f} us for a token, but attention, norms and the "
            f"rest alone take {beside / 1e3:,.0f} us on this machine; ask for at most {1e9 / beside:,.0f}"
        )

    def use(tensor: Tensor, quant: QuantType) -> int:
        return round(speeds.tensor_ns(tensor.name, quant, GENERATION) * _PS)

    return limited(formulation, formulation.grouping.resource(TIME, int(room * _PS), use), "ps")


def with_speed(plan: Plan, speeds: SpeedTable) -> Plan:
    """The plan with the tokens per second that the table predicts of it."""
    predicted: dict[str, float] = {}
    for name, batch in (("generation", 1), ("prompt", 512)):
        rate = speeds.tokens_per_second(plan.types, batch)
        predicted |= {name: rate.value, f"{name}_err": rate.stderr or 0.0}
    return replace(plan, predicted_tps=predicted)


def with_devices(plan: Plan, model: Model, devices: Devices, tensor_split: tuple[int, ...]) -> Plan:
    """The plan with the arguments that put its tensors where it was planned for."""
    return replace(plan, on_cpu=where(model, devices).override_tensor(), tensor_split=tensor_split)
