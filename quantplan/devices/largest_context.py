"""The largest context that a model's weights leave room for, for each pair of types of the KV cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from quantplan.budget import human_bytes
from quantplan.cache_types import USUAL_PAIRS, CacheTypes, kv_name
from quantplan.devices.fit_params import memory_needs
from quantplan.devices.memory import MemoryUse, Placement
from quantplan.devices.memory_formulas import CELLS
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.execution import cores
from quantplan.tensor import Model

_UNKNOWN_TRAINING = 1 << 20  # tokens, for a model that does not say for how many it was trained


@dataclass(frozen=True)
class LargestContext:
    """``ctx``: tokens, 0 where not even 256 fit; ``use``: what the model takes there, or with 256 tokens where none fit.

    ``refused``: why llama.cpp cannot keep such a cache with this model, then there is no ``use``.
    """

    kv: CacheTypes
    ctx: int
    use: MemoryUse | None = None
    refused: str = ""


@dataclass(frozen=True)
class Machine:
    """What the contexts must fit into, and how the model is run. ``vram`` in bytes."""

    vram: int
    ubatch: int = 512
    flash_attention: bool | None = None


def trained_ctx(model: Model) -> int:
    """Tokens that the model was trained for: no context is looked for beyond."""
    return int(model.hyperparameter("context_length", 0)) or _UNKNOWN_TRAINING


def largest_contexts(
    model: Model,
    where: Placement,
    sizes: Mapping[str, int],
    machine: Machine,
    pairs: Iterable[CacheTypes] = USUAL_PAIRS,
) -> tuple[LargestContext, ...]:
    """For each pair the largest context, a multiple of 256 tokens as llama.cpp keeps them, at most what the model was
    trained for.

    ``sizes``: bytes of each tensor as it is stored. BudgetImpossible where no pair leaves room for 256 tokens, BadUsage where
    llama.cpp refuses all of them.
    """
    with ThreadPoolExecutor(cores()) as pool:
        contexts = tuple(pool.map(partial(_largest, model, where, sizes, machine), pairs))
    if all(each.refused for each in contexts):
        raise BadUsage(contexts[0].refused)
    if not any(each.ctx for each in contexts):
        raise _no_room(contexts, machine)
    return contexts


def _largest(
    model: Model, where: Placement, sizes: Mapping[str, int], machine: Machine, kv: CacheTypes
) -> LargestContext:
    uses: dict[int, MemoryUse] = {}

    def vram(ctx: int) -> int:
        if ctx not in uses:
            uses[ctx] = where.use(memory_needs(model, ctx, kv, machine.ubatch, machine.flash_attention), sizes)
        return uses[ctx].vram

    try:
        ctx = _last_within(vram, machine.vram, trained_ctx(model))
    except BadUsage as error:  # types that do not go together, or not with the model's heads
        return LargestContext(kv, 0, refused=str(error))
    return LargestContext(kv, ctx, uses[ctx or min(uses)])


def _last_within(size: Callable[[int], int], limit: int, most: int) -> int:
    """The largest multiple of CELLS up to ``most`` (or ``most`` itself) whose size is within the limit; 0 for none.

    Sizes rise with the context, nearly in proportion: interpolating between two ends finds it in a few questions.
    """
    if size(most) <= limit:
        return most
    low, high = 1, -(-most // CELLS)  # in cells; high does not fit
    if size(CELLS) > limit:
        return 0
    sizes = {low: size(CELLS), high: size(most)}
    while high - low > 1:
        share = (limit - sizes[low]) / max(sizes[high] - sizes[low], 1)
        middle = min(max(low + int(share * (high - low)), low + 1), high - 1)
        sizes[middle] = size(middle * CELLS)
        low, high = (middle, high) if sizes[middle] <= limit else (low, middle)
    return low * CELLS


def _no_room(contexts: Sequence[LargestContext], machine: Machine) -> BudgetImpossible:
    least = min((each for each in contexts if each.use), key=lambda each: each.use.vram if each.use else 0)
    use = least.use
    assert use is not None
    return BudgetImpossible(
        f"no context fits into {human_bytes(machine.vram)} of VRAM: the weights take {human_bytes(use.gpu_weights)}, with "
        f"a cache of {kv_name(least.kv)} and {use.needs.ctx:,} tokens {human_bytes(use.vram)} are needed ({use.vram:,} "
        "bytes); give more --vram, keep tensors in RAM with --on-cpu, or take a smaller file"
    )
