"""Whether the smallest file that the types allow runs on a machine, and what would fit where it does not."""

from collections.abc import Mapping

from quantplan.budget import human_bytes
from quantplan.cache_types import kv_name
from quantplan.devices.largest_context import Machine, largest_contexts
from quantplan.devices.limits import Devices, needs_of, where
from quantplan.devices.memory import MemoryUse, Placement
from quantplan.errors import BudgetImpossible
from quantplan.solver.grouping import Grouping
from quantplan.tensor import Model


def check_smallest_fits(model: Model, grouping: Grouping, devices: Devices) -> None:
    """BudgetImpossible, saying what would fit, where even the smallest types take more than the machine has."""
    sizes = _smallest_sizes(model, grouping)
    at = where(model, devices)
    use = at.use(needs_of(model, devices.ctx, devices.kv), sizes)
    over = devices.exceeded(use)
    if over:
        raise BudgetImpossible(
            f"the smallest file of these types {over}: {_parts(use)}. {_remedy(model, at, sizes, devices, use)}"
        )


def _smallest_sizes(model: Model, grouping: Grouping) -> dict[str, int]:
    """Bytes of each tensor where every group takes its smallest choice."""
    smallest = [min(range(len(group.choices)), key=lambda at: group.choices[at].bytes) for group in grouping.groups]
    types = grouping.types(smallest)
    return {tensor.name: tensor.bytes_as(types.get(tensor.name, tensor.type)) for tensor in model.tensors}


def _parts(use: MemoryUse) -> str:
    cache = f"a cache of {use.needs.ctx:,} tokens ({kv_name(use.needs.kv)}) {human_bytes(use.needs.kv_cache.bytes)}"
    return f"in VRAM its weights take {human_bytes(use.gpu_weights)}, {cache}, buffers {human_bytes(use.gpu_buffers)}"


def _remedy(model: Model, at: Placement, sizes: Mapping[str, int], devices: Devices, use: MemoryUse) -> str:
    more = [
        f"{option} {size / 2**30 + 0.005:.2f}GiB"
        for option, limit, size in (("--vram", devices.vram, use.vram), ("--ram", devices.ram, use.ram))
        if limit is not None and size > limit
    ]
    remedies = [f"give {' and '.join(more)}"]
    if devices.vram is not None and use.vram > devices.vram and not devices.gpus:
        try:
            (largest,) = largest_contexts(model, at, sizes, Machine(devices.vram), [devices.kv])
            remedies.append(f"--serve-ctx {largest.ctx} with the memory that there is")
        except BudgetImpossible:
            remedies.append("keep tensors in RAM with --on-cpu (no context fits with these types)")
    return f"What would fit: {', or '.join(remedies)}; or allow smaller types with --types"
