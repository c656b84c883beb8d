"""Several GPUs: each holds a run of consecutive blocks with their cache, the last one the output too.

So ``--split-mode layer`` of llama.cpp divides a model (``llama_model::load_tensors``). With whole numbers that add up to
blocks + 1 ``--tensor-split`` says exactly which GPU gets which block; the output counts as one more block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from quantplan.devices import memory_formulas as formulas
from quantplan.devices.memory import MemoryNeeds, Placement
from quantplan.devices.memory_formulas import ServeSettings
from quantplan.errors import BadUsage
from quantplan.tensor import Model

_MOST_SPLITS = 64  # of three GPUs and more, those nearest to the GPUs' shares


@dataclass(frozen=True)
class Split:
    """``counts``: blocks on each GPU, the last with the output; ``weights``: names of the tensors on each.

    ``needs``: bytes that each takes besides weights: cache of its blocks, compute buffer, copies of inputs.
    """

    counts: tuple[int, ...]
    weights: tuple[frozenset[str], ...]
    needs: tuple[int, ...]


def gpu_name(number: int) -> str:
    """Of the limit of a GPU, counted from 0 as llama.cpp does."""
    return f"VRAM of GPU {number}"


def splits(model: Model, at: Placement, needs: MemoryNeeds, vram: Sequence[int]) -> Iterator[Split]:
    """All ways to divide the blocks over GPUs of ``vram`` bytes; of three and more the nearest to the share that each has.

    BadUsage for a model whose cache is not known block by block, and for more GPUs than blocks.
    """
    settings = ServeSettings(needs.ctx, needs.kv, needs.ubatch, needs.flash_attention is not False)
    cache = formulas.kv_cache_by_block(model, settings)
    if cache is None:
        raise BadUsage(f"{model.path.name}: which block keeps what of the cache is not known here; plan for one GPU")
    if len(vram) > model.blocks:
        raise BadUsage(f"{model.path.name} has {model.blocks} blocks: too few for {len(vram)} GPUs")
    other = needs.compute_buffer.bytes + formulas.split_copies(model, settings)
    gpu_of = {name: model.by_name[name].block for name in at.gpu}
    for counts in _counts(model.blocks, vram):
        first = [sum(counts[:number]) for number in range(len(counts) + 1)]
        yield Split(
            counts,
            tuple(_between(gpu_of, low, high, model.blocks) for low, high in zip(first, first[1:], strict=False)),
            tuple(
                other + sum(size for block, size in cache.items() if low <= block < high)
                for low, high in zip(first, first[1:], strict=False)
            ),
        )


def _between(block_of: Mapping[str, int | None], low: int, high: int, blocks: int) -> frozenset[str]:
    """Tensors of the blocks from ``low`` to below ``high``; what is in no block counts as the block after the last."""
    return frozenset(name for name, block in block_of.items() if low <= (blocks if block is None else block) < high)


def _counts(blocks: int, vram: Sequence[int]) -> list[tuple[int, ...]]:
    """Whole numbers that add up to blocks + 1, those nearest to the GPUs' shares first."""
    whole = blocks + 1
    cuts = combinations(range(1, whole), len(vram) - 1)
    share = [whole * size / sum(vram) for size in vram]

    def counts(at: tuple[int, ...]) -> tuple[int, ...]:
        ends = (0, *at, whole)
        return tuple(high - low for low, high in zip(ends, ends[1:], strict=False))

    def distance(each: tuple[int, ...]) -> float:
        return sum(abs(count - part) for count, part in zip(each, share, strict=True))

    ordered = sorted(map(counts, cuts), key=distance)
    return ordered if len(vram) == 2 else ordered[:_MOST_SPLITS]
