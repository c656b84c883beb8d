"""What a model takes when it runs: which tensors live on the GPU and which in RAM, and what comes on top of weights.

Two devices, one GPU and the processor, under full offload (``-ngl 999``), as llama.cpp places tensors
(``llama_model_loader::create_tensor``, ``LLM_TENSOR_INFOS``): the input layer stays in RAM, everything else goes to the
GPU unless ``--override-tensor`` says otherwise.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantplan.cache_types import CacheTypes
from quantplan.errors import BadUsage
from quantplan.recipes.pattern_cover import IN_BLOCK, cover
from quantplan.selector import Selector
from quantplan.tensor import INPUT_LAYER, Model

ASKED, COMPUTED = "llama.cpp", "computed"

_EMBEDDINGS = "token_embd.weight"
_CPU = "CPU"  # the processor's buffer type
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # LLM_FFN_EXPS_REGEX, common.h
_DENSE = r"\.ffn_(up|down|gate)\."  # LLM_FFN_DENSE_REGEX


# --- what comes on top of weights


@dataclass(frozen=True)
class Figure:
    """A number of bytes and where it comes from: ``source`` is ASKED or COMPUTED, ``how`` says from what."""

    bytes: int
    source: str
    how: str

    @property
    def asked(self) -> bool:
        return self.source == ASKED


@dataclass(frozen=True)
class MemoryNeeds:
    """What one sequence of ``ctx`` tokens takes besides the weights. All figures are bytes and none is too small on purpose.

    ``compute_buffer`` is the GPU's under full offload, ``host_buffer`` what is left in RAM then: the inputs, the
    attention mask, the rows of the embeddings. Where tensors are moved to the processor, the GPU's buffer grows by
    ``crossing``, copies of what goes from one device to the other, and RAM holds a compute buffer too.
    """

    ctx: int
    kv: CacheTypes
    ubatch: int
    flash_attention: bool | None  # None: llama.cpp decides
    kv_cache: Figure  # recurrent states included
    compute_buffer: Figure
    host_buffer: Figure
    crossing: Figure

    def total(self, weights_on_gpu: int, largest_moved: int = 0) -> int:
        """Bytes of VRAM. ``largest_moved``: bytes of the largest tensor that was moved to the processor.

        llama.cpp copies the weights of a matrix that lives in RAM to the GPU for batches of 32 tokens and more
        (``ggml_backend_sched``: op_offload), one at a time, and reserves room for the largest.
        """
        moved = self.crossing.bytes + largest_moved if largest_moved else 0
        return weights_on_gpu + self.kv_cache.bytes + self.compute_buffer.bytes + moved

    def host_total(self, weights_on_cpu: int, largest_moved: int = 0) -> int:
        """Bytes of RAM, the operating system and the program itself not counted."""
        buffer = self.host_buffer.bytes
        if largest_moved:  # what the processor computes needs no more than the whole graph would
            buffer = max(buffer, self.compute_buffer.bytes) + self.crossing.bytes
        return weights_on_cpu + buffer


@dataclass(frozen=True)
class MemoryUse:
    """Weights and needs on the two devices, in bytes."""

    needs: MemoryNeeds
    gpu_weights: int
    cpu_weights: int
    largest_moved: int = 0

    @property
    def vram(self) -> int:
        return self.needs.total(self.gpu_weights, self.largest_moved)

    @property
    def ram(self) -> int:
        return self.needs.host_total(self.cpu_weights, self.largest_moved)

    @property
    def gpu_buffers(self) -> int:
        """VRAM in addition to weights and cache."""
        return self.vram - self.gpu_weights - self.needs.kv_cache.bytes

    @property
    def cpu_buffers(self) -> int:
        """RAM in addition to weights."""
        return self.ram - self.cpu_weights


# --- what lives where


@dataclass(frozen=True)
class Placement:
    """Names of the tensors on the GPU and in RAM. Tied embeddings are on both: llama.cpp loads them twice.

    ``moved``: those of ``cpu`` that are there because they were told to. ``unused``: tensors that llama.cpp does not
    load, of the blocks that predict further tokens.
    """

    gpu: frozenset[str]
    cpu: frozenset[str]
    moved: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()

    def gpu_bytes(self, sizes: Mapping[str, int]) -> int:
        return sum(sizes[name] for name in self.gpu)

    def cpu_bytes(self, sizes: Mapping[str, int]) -> int:
        return sum(sizes[name] for name in self.cpu)

    def use(self, needs: MemoryNeeds, sizes: Mapping[str, int]) -> MemoryUse:
        """``sizes``: bytes of each tensor as it is stored."""
        return MemoryUse(needs, self.gpu_bytes(sizes), self.cpu_bytes(sizes), self.largest_moved(sizes))

    def largest_moved(self, sizes: Mapping[str, int]) -> int:
        """Bytes of the largest tensor that was moved, 0 where none was."""
        return max((sizes[name] for name in self.moved), default=0)

    def override_tensor(self) -> tuple[str, ...]:
        """Anchored patterns ``PATTERN=CPU`` for ``--override-tensor``, one for each product of blocks and roles.

        Joined with commas they are one argument. Checked with llama.cpp's own way of matching; BadUsage where names
        are so alike that no pattern tells them apart.
        """
        return _override_tensor(self.moved, self.gpu | self.cpu)

    def equivalent_option(self) -> str | None:
        """``--cpu-moe``, ``--n-cpu-moe N`` or ``--n-cpu-ffn N`` where one of them moves exactly the same tensors."""
        loaded = self.gpu | self.cpu
        if self.moved and self.moved == _searched(_EXPERTS, loaded):
            return "--cpu-moe"
        blocks = {int(match.group(2)) for match in map(IN_BLOCK.match, self.moved) if match}
        count = max(blocks, default=-1) + 1
        for option, pattern in (("--n-cpu-moe", _EXPERTS), ("--n-cpu-ffn", _DENSE)):
            first = frozenset().union(*(_searched(rf"blk\.{block}{pattern}", loaded) for block in range(count)))
            if count and self.moved == first:
                return f"{option} {count}"
        return None


def placement(model: Model, on_cpu: Sequence[Selector] = ()) -> Placement:
    """Where llama.cpp keeps the tensors of a model that is offloaded wholly, but for those that are selected.

    NothingSelected for a selector that means no tensor.
    """
    unused = frozenset(tensor.name for tensor in model.tensors if not model.runs(tensor))
    loaded = frozenset(model.by_name) - unused
    inputs = loaded.intersection(INPUT_LAYER)
    both = inputs & {_EMBEDDINGS} if model.tied else frozenset()
    selected = {tensor.name for selector in on_cpu for tensor in selector.select(model.tensors)}
    moved = (loaded & selected) - (inputs - both)
    return Placement(loaded - (inputs - both) - moved, inputs | moved, moved, unused)


# --- patterns for --override-tensor


def overridden(argument: str, names: Iterable[str]) -> frozenset[str]:
    """The tensors that ``--override-tensor ARGUMENT`` moves to the processor, by llama.cpp's rules.

    ``parse_tensor_buffer_overrides`` splits at commas, then at the first ``=``; the loader searches (not matches) the
    patterns in order. BadUsage for what it would refuse.
    """
    pairs = [rule.partition("=") for rule in argument.split(",")]
    for pattern, _, buffer in pairs:
        if buffer != _CPU:
            raise BadUsage(f"{argument!r}: {pattern!r} has no buffer type {_CPU} after it")
    names = list(names)
    return frozenset(name for name in names if any(re.search(pattern, name) for pattern, _, _ in pairs))


def _override_tensor(moved: frozenset[str], loaded: frozenset[str]) -> tuple[str, ...]:
    arguments = tuple(f"{pattern}={_CPU}" for pattern, _ in cover(dict.fromkeys(sorted(moved), _CPU), sorted(loaded)))
    wrong = sorted(overridden(",".join(arguments), loaded) ^ moved) if arguments else []
    if wrong:
        raise BadUsage(f"no pattern of --override-tensor matches {wrong[0]} without its neighbours")
    return arguments


def _searched(pattern: str, names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if re.search(pattern, name))
