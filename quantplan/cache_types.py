"""The types of a KV cache: one of K and one of V, as ``--cache-type-k`` and ``--cache-type-v`` of llama.cpp take them."""

from itertools import product

from quantplan.errors import BadUsage
from quantplan.quant_type import BY_NAME, QuantType, quant_type

CacheTypes = tuple[QuantType, QuantType]  # of K and of V
KV_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "IQ4_NL", "Q4_0")  # kv_cache_types in arg.cpp
F16_CACHE: CacheTypes = (BY_NAME["F16"], BY_NAME["F16"])  # llama.cpp's default
# those to choose from; GPUs have no kernel for IQ4_NL, F32 and BF16 give nothing for their bytes
USUAL_TYPES = tuple(BY_NAME[name] for name in ("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"))
USUAL_PAIRS: tuple[CacheTypes, ...] = tuple(product(USUAL_TYPES, USUAL_TYPES))


def parse_kv(text: str) -> CacheTypes:
    """``q8_0``, or ``K,V`` as in ``q8_0,q5_1``: the types of the KV cache. BadUsage, NothingSelected."""
    names = [name.strip() for name in text.split(",")]
    if not 1 <= len(names) <= 2 or not all(names):
        raise BadUsage(f"cannot read the KV types {text!r}; write one type (q8_0) or those of K and V (q8_0,q5_1)")
    quants = [quant_type(name) for name in names]
    for quant in quants:
        if quant.name not in KV_TYPES:
            raise BadUsage(f"llama.cpp keeps no KV cache as {quant}; choose one of {', '.join(KV_TYPES).lower()}")
    return quants[0], quants[-1]


def kv_name(types: CacheTypes) -> str:
    """What ``parse_kv`` reads: ``q8_0`` where K and V have one type, else ``q8_0,q5_1``."""
    return ",".join(dict.fromkeys(quant.name.lower() for quant in types))
