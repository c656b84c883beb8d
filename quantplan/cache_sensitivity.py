"""What each pair of types of the KV cache costs: the KLD of the unquantized model run with it, against itself with F16."""

from dataclasses import dataclass
from functools import cached_property

from quantplan.cache_types import F16_CACHE, CacheTypes, kv_name, parse_kv
from quantplan.errors import ModelMismatch
from quantplan.measurement import Conditions, Estimate
from quantplan.tensor import Model


@dataclass(frozen=True)
class CachePair:
    """``types`` as ``kv_name`` writes them; ``kld`` in nats per token, its error over chunks."""

    types: str
    kld: Estimate


@dataclass(frozen=True)
class CacheSensitivity:
    """The pairs that were measured, on chunks of ``n_ctx`` tokens of one text; F16 for both costs nothing.

    ``conditions``: of the measurements, None for values that were given.
    """

    model_digest: str
    n_ctx: int
    pairs: tuple[CachePair, ...]
    conditions: Conditions | None = None

    @cached_property
    def klds(self) -> dict[CacheTypes, Estimate]:
        measured = {parse_kv(pair.types): pair.kld for pair in self.pairs}
        return {F16_CACHE: Estimate(0.0, 0.0)} | measured

    def check_belongs_to(self, model: Model) -> None:
        """ModelMismatch unless it was measured on this model; values that were given name no model."""
        if self.model_digest and self.model_digest != model.digest:
            raise ModelMismatch(
                f"these KLDs of cache types were measured on another model than {model.path}; leave --kv-sensitivity out "
                "to measure them"
            )


@dataclass(frozen=True)
class ChosenCache:
    """The types of the KV cache that a plan was made with, of all pairs that were measured.

    ``kld``: of this pair alone, in addition to that of the weights; ``ctx``: tokens to serve; ``n_ctx``: of the chunks measured.
    """

    types: str
    kld: Estimate
    ctx: int
    n_ctx: int


def chosen(caches: CacheSensitivity, types: CacheTypes, ctx: int) -> ChosenCache:
    return ChosenCache(kv_name(types), caches.klds[types], ctx, caches.n_ctx)
