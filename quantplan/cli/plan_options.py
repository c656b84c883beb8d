"""Option groups of the commands that make plans, and the request that they make together."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from quantplan.budget import parse_size
from quantplan.cli import config, options
from quantplan.cli.cache_options import CacheOptions
from quantplan.cli.framework import option, whole
from quantplan.cli.option_groups import (
    MEASURING,
    MEMORY,
    TARGET,
    TYPES,
    ChunkOptions,
    ExecutionOptions,
    TypesOptions,
)
from quantplan.devices.limits import Devices, default_on_cpu
from quantplan.devices.memory_formulas import smallest_cache
from quantplan.errors import BadUsage
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.project import SOURCES
from quantplan.quant_type import QuantType, weight_type
from quantplan.selector import Selector, parse_assignment
from quantplan.sensitivity.estimate import SIBLING_PROBES, SensitivityOptions
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.solver.constraints import Constraints
from quantplan.tensor import Model
from quantplan.whole_number import whole_number

DEFAULT_SERVE_CTX = 4096  # llama.cpp's own default
LONGEST_CONTEXT = 1 << 24  # beyond all models so far; llama-fit-params takes minutes for a billion tokens, and aborts
_OUTSIDE_SLASHES = re.compile(r",(?=(?:[^/]*/[^/]*/)*[^/]*$)")  # commas of a /regular expression/ do not separate


def split_selectors(text: str) -> Iterator[str]:
    """``attn_v,/blk\\.[0-9]{1,2}/`` -> its selectors."""
    return filter(None, (part.strip() for part in _OUTSIDE_SLASHES.split(text)))


def split_assignments(text: str) -> list[str]:
    """``attn_v=Q4_K,Q5_K,output=Q6_K`` -> ``attn_v=Q4_K,Q5_K`` and ``output=Q6_K``."""
    parts: list[str] = []
    for part in split_selectors(text):
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += f",{part}"
    return parts


def split_budgets(text: str) -> list[str]:
    """``5bpw,Q4_K_M`` -> its budgets; what names a file stays whole."""
    return [text] if text.startswith("=") else [word.strip() for word in text.split(",") if word.strip()]


class Objective(str, Enum):
    """What is minimized over the tensors."""

    sum = "sum"
    tail = "tail"
    max = "max"
    worst_domain = "worst-domain"


class Rounding(str, Enum):
    """How weights are rounded within a type."""

    auto = "auto"
    stock = "stock"


class Per(str, Enum):
    """What gets a type of its own."""

    tensor = "tensor"
    layer = "layer"


def budget_option() -> Any:
    """-b is llama.cpp's batch size, which no command of quantplan has; a budget is typed in every session."""
    return option(
        "File size: 17.9GB, 16.7GiB, 4.25bpw, 40%, =other.gguf, or Q4_K_M (the size of that stock quant).",
        "-b",
        panel=TARGET,
    )


def budgets_option() -> Any:
    return option(
        "File size: 17.9GB, 4.25bpw, 40%, =other.gguf, Q4_K_M (the size of that stock quant); repeatable.",
        "--budget",
        "-b",
        default=(),
        panel=TARGET,
        split=split_budgets,
    )


@dataclass(frozen=True)
class TargetOptions:
    panel: ClassVar[str] = TARGET
    max_kld: float | None = option("Limit on the expected KLD: the smallest file that keeps it.")
    objective: Objective = option(
        "Minimize the sum of the tensors' KLD, its tail (root of squares), its maximum, or the sum on the worst of several "
        "calibration texts.",
        default=Objective.sum,
    )


@dataclass(frozen=True)
class ConstraintOptions(TypesOptions):
    panel: ClassVar[str] = TYPES
    pin: tuple[str, ...] = option(
        "These tensors get this type.", default=(), split=split_assignments, metavar="SELECTOR=TYPE"
    )
    min_type: tuple[str, ...] = option(
        "At least the bits of this type.", default=(), split=split_assignments, metavar="SELECTOR=TYPE"
    )
    max_type: tuple[str, ...] = option(
        "At most the bits of this type.", default=(), split=split_assignments, metavar="SELECTOR=TYPE"
    )
    only: tuple[str, ...] = option(
        "Choose among these types there instead of --types.",
        default=(),
        split=split_assignments,
        metavar="SELECTOR=TYPES",
    )
    tie: tuple[str, ...] = option(
        "One type for: qkv, gate-up, experts, SELECTOR,SELECTOR (in each block), blocks=4, blocks=0-7; repeatable.",
        default=(),
        split=whole,
    )
    max_types: int | None = option("At most N different types in the file.", min=1)
    allow_1_bit: bool = option("Types below 2 bits for more than experts: they ruin most models.", default=False)
    per: Per = option("A type for each tensor, or a stock quant for each layer (LAYER_TYPES).", default=Per.tensor)
    monotone: bool = option("With --per layer: sizes only grow, or only shrink, over the layers.", default=False)
    valley: bool = option("With --per layer: sizes shrink from the first layer on, then grow.", default=False)

    def constraints(self) -> Constraints:
        """Raises BadUsage, NothingSelected for words that are not constraints."""

        def typed(texts: Sequence[str]) -> tuple[tuple[Selector, QuantType], ...]:
            return tuple((selector, weight_type(name)) for selector, name in map(parse_assignment, texts))

        if self.monotone and self.valley:
            raise BadUsage("--monotone and --valley: choose one course over the layers")
        return Constraints(
            typed(self.pin),
            typed(self.min_type),
            typed(self.max_type),
            tuple((selector, parse_writable(names)) for selector, names in map(parse_assignment, self.only)),
            tuple(self.tie),
            self.max_types,
            "monotone" if self.monotone else "valley" if self.valley else None,
            self.allow_1_bit,
        )


def on_cpu_option() -> Any:
    return option(
        "Keep these tensors in RAM, for example ffn_*_exps; repeatable.",
        default=(),
        panel=MEMORY,
        split=split_selectors,
        metavar="SELECTOR",
    )


@dataclass(frozen=True)
class MemoryLimitOptions:
    panel: ClassVar[str] = MEMORY
    vram: str | None = option("VRAM limit for weights, KV cache and buffers: 24GiB; of several GPUs 12GiB,12GiB.")
    ram: str | None = option("RAM limit for the tensors kept on the CPU (see --on-cpu; default: MoE experts).")
    serve_ctx: int | None = option("Context to serve with, for --vram (default: 4096).", min=1, max=LONGEST_CONTEXT)
    on_cpu: tuple[str, ...] = on_cpu_option()


@dataclass(frozen=True)
class LimitOptions(CacheOptions, MemoryLimitOptions):
    panel: ClassVar[str] = MEMORY
    min_tps: float | None = option("At least N tokens/s at generation, by the measured speeds of this machine.")

    @property
    def limits_memory(self) -> bool:
        return self.vram is not None or self.ram is not None

    @property
    def vram_of_gpus(self) -> tuple[int, ...]:
        """Bytes of each GPU; nothing without a limit."""
        return (
            tuple(parse_size(text.strip(), "--vram") for text in self.vram.split(",")) if self.vram is not None else ()
        )

    def devices(self, model: Model) -> Devices | None:
        """The machine that will run the file; None without a limit on its memory."""
        if not self.limits_memory:
            return None
        vram = self.vram_of_gpus
        ram = parse_size(self.ram, "--ram") if self.ram else None
        moved = tuple(Selector(text) for text in self.on_cpu)
        if not moved and self.ram is not None:
            moved = default_on_cpu(model)
        ctx = self.serve_ctx or DEFAULT_SERVE_CTX
        types = smallest_cache(model) if self.automatic else self.cache_types
        return Devices(sum(vram) if vram else None, ram, ctx, types, moved, vram if len(vram) > 1 else ())

    def check(self) -> None:
        """What can be said without the model, before it is read."""
        if self.min_tps is not None and not 0 < self.min_tps < float("inf"):
            raise BadUsage(f"--min-tps {self.min_tps:g}: must be greater than zero")
        _ = self.vram_of_gpus
        if self.ram is not None:
            parse_size(self.ram, "--ram")
        if self.limits_memory:
            if not self.automatic or self.cache_type_k or self.cache_type_v:
                _ = self.cache_types
            return
        described = config.settings()  # for the commands that look at memory
        for name in ("serve_ctx", "kv", "cache_type_k", "cache_type_v", "on_cpu"):
            if getattr(self, name) and name not in described:
                option = f"--{name.replace('_', '-')}"
                raise BadUsage(f"{option} belongs to a limit on memory: give --vram (or --ram) too")


@dataclass(frozen=True)
class SensitivityOption:
    panel: ClassVar[str] = MEASURING
    sensitivity: str = option(
        "Where each tensor's sensitivity comes from: probe (measured KLD), weights (rounding error and imatrix only), "
        "prior (no weights read), or the file of a table, hf://owner/repo/table.json too; a sibling's will do.",
        default="probe",
        metavar="probe|weights|prior|FILE",
        autocompletion=lambda incomplete: [word for word in SOURCES if word.startswith(incomplete)],
    )


@dataclass(frozen=True)
class ProbingOptions(ChunkOptions):
    panel: ClassVar[str] = MEASURING
    chunks: int = option(
        "Chunks per tensor, 2 at least. Default: about 2048 tokens, more for tensors whose estimate is uncertain.",
        default=0,
        min=0,
        show_default=False,
    )
    sample: str = option("Weights per tensor that are rounded to measure the error: 512k, 2M, or full.", default="512k")
    rounding: Rounding = option(
        "auto: error-compensated where it loses less (same types and bytes); stock: llama-quantize's own rounding.",
        default=Rounding.auto,
    )

    sibling_probes: int = option(
        "Tensors to probe where the table of --sensitivity or --against is of a sibling; 0: none.",
        default=SIBLING_PROBES,
        min=0,
    )

    def estimation(self, model: Model, types: tuple[QuantType, ...], execution: ExecutionOptions) -> SensitivityOptions:
        """How the sensitivities of these types are measured."""
        probe = ProbeOptions(options.ctx(self.ctx, model), self.chunks, self.chunks == 0, execution.parsed())
        sample, compensate = parse_sample(self.sample), self.rounding is Rounding.auto
        return SensitivityOptions(types, probe, sample, compensate, self.sibling_probes)


@dataclass(frozen=True)
class MeasuringOptions(ProbingOptions, SensitivityOption):
    """Where sensitivities come from, and how they are measured where they are not known."""


def parse_sample(text: str) -> int | None:
    """512k, 2M or 100000 weights; None for "full"."""
    if text.lower() == "full":
        return None
    factor = {"k": 1 << 10, "m": 1 << 20}.get(text[-1:].lower(), 1)
    digits = text[:-1] if factor > 1 else text
    number = whole_number(digits)
    if not number:
        raise BadUsage(f"--sample {text}: write a number of weights such as 512k or 2M, or full")
    return number * factor
