"""Option groups about the types of the KV cache: to serve with, as a condition of a measurement, chosen with the weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from quantplan.cache_types import CacheTypes, parse_kv
from quantplan.cli.framework import option
from quantplan.cli.option_groups import MEASURING, MEMORY
from quantplan.errors import BadUsage

AUTO_CACHE = "auto"


@dataclass(frozen=True)
class CacheOptions:
    """Types of the KV cache, as in llama.cpp."""

    panel: ClassVar[str] = MEMORY
    kv: str | None = option(
        "Type of the KV cache, or those of K and V: q8_0,q5_1 (default: f16); auto: chosen with the weights (solve, run)."
    )
    cache_type_k: str | None = option("Type of the cache of K alone.", "-ctk")
    cache_type_v: str | None = option("Type of the cache of V alone.", "-ctv")

    @property
    def automatic(self) -> bool:
        """Whether they are to be chosen together with the weights."""
        return (self.kv or "").strip().lower() == AUTO_CACHE

    @property
    def any(self) -> bool:
        """Whether the types were named."""
        return not self.automatic and bool(self.kv or self.cache_type_k or self.cache_type_v)

    @property
    def cache_types(self) -> CacheTypes:
        """Of K and of V."""
        if self.kv and (self.cache_type_k or self.cache_type_v):
            raise BadUsage("--kv sets both types of the KV cache: give it, or --cache-type-k and --cache-type-v")
        if self.automatic:
            raise BadUsage(
                "--kv auto is for `quantplan solve` and `quantplan run`, which choose the types for one plan; name them here: "
                "the pair that `quantplan solve --kv auto` prints, for example --kv q8_0,q5_1"
            )
        return parse_kv(self.kv or f"{self.cache_type_k or 'f16'},{self.cache_type_v or 'f16'}")


@dataclass(frozen=True)
class MeasuredCacheOptions(CacheOptions):
    """The same as a condition of a measurement: what the project serves with does not count."""

    panel: ClassVar[str] = MEASURING
    kv: str | None = option("KV cache to run the files with: q8_0, or K,V as q8_0,q5_1 (default: f16).")


@dataclass(frozen=True)
class AutoCacheOptions:
    """How ``--kv auto`` measures what cache types cost."""

    panel: ClassVar[str] = MEASURING
    kv_ctx: int | None = option(
        "For --kv auto: tokens of the chunks that cache types are measured on (default: --serve-ctx, at most 4096).",
        min=256,
    )
    kv_chunks: int = option("For --kv auto: number of these chunks.", default=2, min=1)
    kv_sensitivity: Path | None = option(
        "For --kv auto: a table of cache types that was measured before, instead of measuring.", metavar="FILE"
    )
