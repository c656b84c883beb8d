"""Option groups of the commands that make plans, and the request that they make together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, ClassVar

import typer

from quantplan.budget import parse_size
from quantplan.cli import config, options
from quantplan.cli.framework import Commas
from quantplan.cli.options import (
    MEASURING,
    MEMORY,
    TARGET,
    TYPES,
    ChunkOptions,
    ExecutionOptions,
    TypesOptions,
)
from quantplan.devices.limits import Devices, default_on_cpu
from quantplan.devices.memory import parse_kv
from quantplan.errors import BadUsage
from quantplan.llamacpp.encodable_types import parse_writable
from quantplan.quant_type import QuantType, weight_type
from quantplan.selector import Selector, parse_assignment
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.solver.constraints import Constraints
from quantplan.tensor import Model

DEFAULT_SERVE_CTX = 4096  # llama.cpp's own default
_OUTSIDE_SLASHES = re.compile(r",(?=(?:[^/]*/[^/]*/)*[^/]*$)")  # commas of a /regular expression/ do not separate
_SOURCES = ("probe", "weights", "prior")


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


class Rounding(str, Enum):
    """How weights are rounded within a type."""

    auto = "auto"
    stock = "stock"


class Per(str, Enum):
    """What gets a type of its own."""

    tensor = "tensor"
    layer = "layer"


# -b: llama.cpp's batch size, which no command of quantplan has; a budget is typed in every session
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        "-b",
        rich_help_panel=TARGET,
        help="File size: 17.9GB, 16.7GiB, 4.25bpw, 40%, =other.gguf, or Q4_K_M (the size of that stock quant).",
    ),
]
BudgetsOption = Annotated[
    list[str],
    typer.Option(
        "--budget",
        "-b",
        rich_help_panel=TARGET,
        help="File size: 17.9GB, 4.25bpw, 40%, =other.gguf, Q4_K_M (the size of that stock quant); repeatable.",
    ),
    Commas(split_budgets),
]


@dataclass(frozen=True)
class TargetOptions:
    panel: ClassVar[str] = TARGET
    max_kld: Annotated[
        float | None, typer.Option("--max-kld", help="Limit on the expected KLD: the smallest file that keeps it.")
    ] = None
    objective: Annotated[
        Objective,
        typer.Option(
            "--objective", help="Minimize the sum of the tensors' KLD, its tail (root of squares), or its maximum."
        ),
    ] = Objective.sum


@dataclass(frozen=True)
class ConstraintOptions(TypesOptions):
    panel: ClassVar[str] = TYPES
    pin: Annotated[
        list[str],
        typer.Option("--pin", metavar="SELECTOR=TYPE", help="These tensors get this type."),
        Commas(split_assignments),
    ] = ()  # type: ignore[assignment]
    min_type: Annotated[
        list[str],
        typer.Option("--min-type", metavar="SELECTOR=TYPE", help="At least the bits of this type."),
        Commas(split_assignments),
    ] = ()  # type: ignore[assignment]
    max_type: Annotated[
        list[str],
        typer.Option("--max-type", metavar="SELECTOR=TYPE", help="At most the bits of this type."),
        Commas(split_assignments),
    ] = ()  # type: ignore[assignment]
    only: Annotated[
        list[str],
        typer.Option("--only", metavar="SELECTOR=TYPES", help="Choose among these types there instead of --types."),
        Commas(split_assignments),
    ] = ()  # type: ignore[assignment]
    tie: Annotated[
        list[str],
        typer.Option(
            "--tie",
            help="One type for: qkv, gate-up, experts, SELECTOR,SELECTOR (in each block), blocks=4, blocks=0-7; repeatable.",
        ),
        Commas(lambda text: [text]),
    ] = ()  # type: ignore[assignment]
    max_types: Annotated[
        int | None, typer.Option("--max-types", min=1, help="At most N different types in the file.")
    ] = None
    allow_1_bit: Annotated[
        bool, typer.Option("--allow-1-bit", help="Types below 2 bits for more than experts: they ruin most models.")
    ] = False
    per: Annotated[
        Per, typer.Option("--per", help="A type for each tensor, or a stock quant for each layer (LAYER_TYPES).")
    ] = Per.tensor
    monotone: Annotated[
        bool, typer.Option("--monotone", help="With --per layer: sizes only grow, or only shrink, over the layers.")
    ] = False
    valley: Annotated[
        bool, typer.Option("--valley", help="With --per layer: sizes shrink from the first layer on, then grow.")
    ] = False

    def constraints(self) -> Constraints:
        """Raises BadUsage, NothingSelected for words that are not constraints."""

        def typed(texts: list[str]) -> tuple[tuple[Selector, QuantType], ...]:
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


@dataclass(frozen=True)
class CacheOptions:
    """Types of the KV cache, as in llama.cpp."""

    panel: ClassVar[str] = MEMORY
    kv: Annotated[
        str | None, typer.Option("--kv", help="Type of the KV cache, or those of K and V: q8_0,q5_1 (default: f16).")
    ] = None
    cache_type_k: Annotated[
        str | None, typer.Option("--cache-type-k", "-ctk", help="Type of the cache of K alone.")
    ] = None
    cache_type_v: Annotated[
        str | None, typer.Option("--cache-type-v", "-ctv", help="Type of the cache of V alone.")
    ] = None

    @property
    def cache_types(self) -> tuple[QuantType, QuantType]:
        """Of K and of V."""
        if self.kv and (self.cache_type_k or self.cache_type_v):
            raise BadUsage("--kv sets both types of the KV cache: give it, or --cache-type-k and --cache-type-v")
        return parse_kv(self.kv or f"{self.cache_type_k or 'f16'},{self.cache_type_v or 'f16'}")


OnCpuOption = Annotated[
    list[str],
    typer.Option(
        "--on-cpu",
        rich_help_panel=MEMORY,
        metavar="SELECTOR",
        help="Keep these tensors in RAM, for example ffn_*_exps; repeatable.",
    ),
    Commas(split_selectors),
]


@dataclass(frozen=True)
class MemoryLimitOptions:
    panel: ClassVar[str] = MEMORY
    vram: Annotated[str | None, typer.Option("--vram", help="VRAM limit for weights, KV cache and buffers: 24GiB.")] = (
        None
    )
    ram: Annotated[
        str | None,
        typer.Option("--ram", help="RAM limit for the tensors kept on the CPU (see --on-cpu; default: MoE experts)."),
    ] = None
    serve_ctx: Annotated[
        int | None, typer.Option("--serve-ctx", min=1, help="Context to serve with, for --vram (default: 4096).")
    ] = None
    on_cpu: OnCpuOption = ()  # type: ignore[assignment]


@dataclass(frozen=True)
class LimitOptions(CacheOptions, MemoryLimitOptions):
    panel: ClassVar[str] = MEMORY
    min_tps: Annotated[
        float | None,
        typer.Option("--min-tps", help="At least N tokens/s at generation, by the measured speeds of this machine."),
    ] = None

    @property
    def limits_memory(self) -> bool:
        return self.vram is not None or self.ram is not None

    def devices(self, model: Model) -> Devices | None:
        """The machine that will run the file; None without a limit on its memory."""
        if not self.limits_memory:
            return None
        vram = parse_size(self.vram, "--vram") if self.vram else None
        ram = parse_size(self.ram, "--ram") if self.ram else None
        moved = tuple(Selector(text) for text in self.on_cpu)
        if not moved and self.ram is not None:
            moved = default_on_cpu(model)
        return Devices(vram, ram, self.serve_ctx or DEFAULT_SERVE_CTX, self.cache_types, moved)

    def check(self) -> None:
        """What can be said without the model, before it is read."""
        if self.min_tps is not None and not 0 < self.min_tps < float("inf"):
            raise BadUsage(f"--min-tps {self.min_tps:g}: must be greater than zero")
        for text, name in ((self.vram, "--vram"), (self.ram, "--ram")):
            if text is not None:
                parse_size(text, name)
        if self.limits_memory:
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
    sensitivity: Annotated[
        str,
        typer.Option(
            "--sensitivity",
            metavar="probe|weights|prior|FILE",
            autocompletion=lambda incomplete: [word for word in _SOURCES if word.startswith(incomplete)],
            help="Where each tensor's sensitivity comes from: probe (measured KLD), weights (rounding error and imatrix only), "
            "prior (no weights read), or the file of a table.",
        ),
    ] = "probe"


@dataclass(frozen=True)
class ProbingOptions(ChunkOptions):
    panel: ClassVar[str] = MEASURING
    chunks: Annotated[
        int,
        typer.Option(
            "--chunks",
            min=0,
            show_default=False,
            help="Chunks per tensor. Default: about 2048 tokens, more for tensors whose estimate is uncertain.",
        ),
    ] = 0
    sample: Annotated[
        str,
        typer.Option("--sample", help="Weights per tensor that are rounded to measure the error: 512k, 2M, or full."),
    ] = "512k"
    rounding: Annotated[
        Rounding,
        typer.Option(
            "--rounding",
            help="stock: llama-quantize's; auto: error-compensated where it loses less (same types and bytes; takes longer).",
        ),
    ] = Rounding.stock

    def estimation(self, model: Model, types: tuple[QuantType, ...], execution: ExecutionOptions) -> SensitivityOptions:
        """How the sensitivities of these types are measured."""
        probe = ProbeOptions(options.ctx(self.ctx, model), self.chunks, self.chunks == 0, execution.parsed())
        return SensitivityOptions(types, probe, parse_sample(self.sample), self.rounding is Rounding.auto)


@dataclass(frozen=True)
class MeasuringOptions(ProbingOptions, SensitivityOption):
    """Where sensitivities come from, and how they are measured where they are not known."""


def parse_sample(text: str) -> int | None:
    """512k, 2M or 100000 weights; None for "full"."""
    if text.lower() == "full":
        return None
    factor = {"k": 1 << 10, "m": 1 << 20}.get(text[-1:].lower(), 1)
    digits = text[:-1] if factor > 1 else text
    if not digits.isdigit() or int(digits) == 0:
        raise BadUsage(f"--sample {text}: write a number of weights such as 512k or 2M, or full")
    return int(digits) * factor
