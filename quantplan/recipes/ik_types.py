"""The types of ik_llama.cpp: which of them llama.cpp does not have, which of llama.cpp's it does not have, and how it
writes them.

Recipes and ``--custom-q`` texts name them. They are known here by their bits, so that the nearest type can be
named; nothing is ever stored in them. Source: the types that ik_llama.cpp's src/llama-quantize.cpp handles and the sizes
that Thireus' GGUF-Tool-Suite lists for them (2026), without the scale per row that some types add (0.02 bits or less).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from quantplan.errors import BadUsage, NothingSelected
from quantplan.quant_type import BY_NAME, SETS, QuantType, weight_type

FAMILY = "ik_llama.cpp"
_REPACKED = re.compile(r"^(\w+?)_(?:R4|R8|R16|4_4|4_8|8_8)$")  # the same weights in rows laid out for one kernel

_OWN = {
    name: QuantType(name, -1, block, block_bytes, FAMILY)
    for name, block, block_bytes in (
        ("IQ1_BN", 64, 13),
        ("IQ1_KT", 256, 56),
        ("IQ2_BN", 64, 16),
        ("IQ2_KT", 256, 68),
        ("IQ2_KS", 256, 70),
        ("IQ2_K", 256, 76),
        ("IQ2_KL", 256, 86),
        ("IQ3_KT", 256, 100),
        ("IQ3_KS", 256, 102),
        ("IQ3_K", 256, 110),
        ("IQ4_KSS", 256, 128),
        ("IQ4_KT", 256, 128),
        ("IQ4_KS", 256, 136),
        ("IQ4_K", 256, 144),
        ("IQ5_KS", 256, 168),
        ("IQ5_K", 256, 176),
        ("Q6_0", 32, 26),
        ("IQ6_K", 256, 212),
        ("Q8_KV", 32, 32),
        ("Q8_K", 256, 258),
    )
}
_LACKING = ("NVFP4", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0")  # llama.cpp's, not in the ik_llama.cpp that was read


@dataclass(frozen=True)
class Replaced:
    """A type that llama.cpp does not have, and the tensors that name it by the type they take instead."""

    asked: QuantType
    tensors: dict[QuantType, list[str]]

    def __str__(self) -> str:
        names = [name for tensor in self.tensors.values() for name in tensor]
        new = ", ".join(
            f"{quant.name} ({quant.bits:.4g} bits" + (f", {len(each)} of them)" if len(self.tensors) > 1 else ")")
            for quant, each in self.tensors.items()
        )
        count = f"{len(names)} tensors, first {names[0]}" if len(names) > 1 else names[0]
        return f"{self.asked.name} ({self.asked.bits:.4g} bits; {count}), nearest: {new}"


def any_type(name: str) -> QuantType:
    """A type of llama.cpp or of ik_llama.cpp by its name in any case; NothingSelected with near names."""
    upper = name.strip().upper()
    if upper in BY_NAME:
        return weight_type(name)
    if upper in _OWN:
        return _OWN[upper]
    repacked = _REPACKED.match(upper)
    base = repacked and (BY_NAME.get(repacked[1]) or _OWN.get(repacked[1]))
    if base:
        return QuantType(upper, -1, base.block, base.block_bytes, FAMILY)
    return weight_type(name)


def is_foreign(quant: QuantType) -> bool:
    """Whether llama.cpp does not have the type."""
    return quant.family == FAMILY


def ik_name(quant: QuantType) -> str:
    """The type as ik_llama.cpp spells it (``q4_K``): some of its tools compare letter by letter.

    BadUsage for a type of llama.cpp that it does not have.
    """
    if quant.name in _LACKING:
        raise BadUsage(
            f"ik_llama.cpp has no type {quant.name}; solve again without it (--types all,-{quant.name}), or emit "
            "--as tensor-types for llama.cpp"
        )
    return re.sub(r"_k$", "_K", quant.name.lower())


def nearest(quant: QuantType, allowed: Callable[[QuantType], bool]) -> QuantType | None:
    """The type of llama.cpp nearest in bits that is allowed, the larger of two, K-types before others; None if none is.

    A repacked type is its own base.
    """
    repacked = _REPACKED.match(quant.name)
    if repacked and repacked[1] in BY_NAME and allowed(BY_NAME[repacked[1]]):
        return BY_NAME[repacked[1]]
    candidates = [BY_NAME[name] for name in SETS["all"] if allowed(BY_NAME[name])]
    return min(candidates, key=lambda each: (abs(each.bits - quant.bits), -each.bits), default=None)


def replace_foreign(
    asked: Mapping[str, QuantType], allowed: Callable[[str, QuantType], bool]
) -> tuple[dict[str, QuantType], list[Replaced]]:
    """The assignment with the nearest types in place of foreign ones, and what was replaced.

    ``allowed(tensor, type)``: whether the tensor can be stored so. NothingSelected where no type is left.
    """
    types, replaced = dict(asked), dict[str, Replaced]()
    for name, quant in asked.items():
        if not is_foreign(quant):
            continue
        new = nearest(quant, partial(allowed, name))
        if new is None:
            raise NothingSelected(
                f"the file gives {name} the type {quant.name}, and no type of llama.cpp fits it instead"
            )
        types[name] = new
        tensors = replaced.setdefault(quant.name, Replaced(quant, {})).tensors
        tensors.setdefault(new, []).append(name)
    return types, list(replaced.values())
