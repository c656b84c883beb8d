"""The quantization types of ggml in one table: blocks, bytes, what they need and what replaces them.

Source: ``ggml.h`` (enum ggml_type), ``ggml-common.h`` (block structs) and ``llama-quant.cpp``
(``tensor_type_fallback``, ``tensor_requires_imatrix``) of llama.cpp 0.5; a test holds the table against the
installed library.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from quantplan.errors import NothingSelected


@dataclass(frozen=True, slots=True)
class QuantType:
    """One ggml type: ``block`` weights are stored in ``block_bytes`` bytes."""

    name: str
    ggml_id: int
    block: int
    block_bytes: int
    family: str  # "k", "iq", "legacy", "ternary", "fp4", "float" or "other"
    fallback: str = ""  # replaces the type where rows are no multiple of its block
    needs_imatrix: bool = False  # in matrices other than token_embd and output
    ftype: str = ""  # a llama-quantize file type whose default type this is

    @property
    def bits(self) -> float:
        """Stored bits per weight."""
        return 8 * self.block_bytes / self.block

    @property
    def one_bit(self) -> bool:
        """Fewer than two bits: published files with such types anywhere but in experts are of little use."""
        return self.bits < 2

    @property
    def for_weights(self) -> bool:
        """Whether matrices can be stored in it: ggml encodes nothing as F64 or as integers, it ends the process."""
        return self.block > 1 or self.name in SETS["float"]

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of ``columns`` weights; ValueError where the row is no multiple of the block."""
        if columns % self.block:
            raise ValueError(f"rows of {columns} weights do not divide into blocks of {self.block} ({self.name})")
        return columns // self.block * self.block_bytes

    def fits(self, columns: int) -> bool:
        return columns % self.block == 0

    def __str__(self) -> str:
        return self.name


_TABLE = (
    QuantType("F32", 0, 1, 4, "float", ftype="F32"),
    QuantType("F16", 1, 1, 2, "float", ftype="F16"),
    QuantType("BF16", 30, 1, 2, "float", ftype="BF16"),
    QuantType("Q8_0", 8, 32, 34, "legacy", ftype="Q8_0"),
    QuantType("Q6_K", 14, 256, 210, "k", "Q8_0", ftype="Q6_K"),
    QuantType("Q5_1", 7, 32, 24, "legacy", ftype="Q5_1"),
    QuantType("Q5_K", 13, 256, 176, "k", "Q5_1", ftype="Q5_K_S"),
    QuantType("Q5_0", 6, 32, 22, "legacy", ftype="Q5_0"),
    QuantType("Q4_1", 3, 32, 20, "legacy", ftype="Q4_1"),
    QuantType("Q4_K", 12, 256, 144, "k", "Q5_0", ftype="Q4_K_S"),
    QuantType("Q4_0", 2, 32, 18, "legacy", ftype="Q4_0"),
    QuantType("IQ4_NL", 20, 32, 18, "iq", ftype="IQ4_NL"),
    QuantType("NVFP4", 40, 64, 36, "fp4"),
    QuantType("IQ4_XS", 23, 256, 136, "iq", "IQ4_NL", ftype="IQ4_XS"),
    QuantType("MXFP4", 39, 32, 17, "fp4", ftype="MXFP4_MOE"),
    QuantType("Q3_K", 11, 256, 110, "k", "Q4_0", ftype="Q3_K_S"),
    QuantType("IQ3_S", 21, 256, 110, "iq", "IQ4_NL", ftype="IQ3_S"),
    QuantType("IQ3_XXS", 18, 256, 98, "iq", "IQ4_NL", True, ftype="IQ3_XXS"),
    QuantType("Q2_K", 10, 256, 84, "k", "Q4_0", ftype="Q2_K"),
    QuantType("IQ2_S", 22, 256, 82, "iq", "IQ4_NL", True, ftype="IQ2_M"),
    QuantType("IQ2_XS", 17, 256, 74, "iq", "IQ4_NL", True, ftype="IQ2_XS"),
    QuantType("IQ2_XXS", 16, 256, 66, "iq", "IQ4_NL", True, ftype="IQ2_XXS"),
    QuantType("Q2_0", 42, 64, 18, "other", "Q4_0", ftype="Q2_0"),
    QuantType("TQ2_0", 35, 256, 66, "ternary", "Q4_0", ftype="TQ2_0"),
    QuantType("IQ1_M", 29, 256, 56, "iq", "IQ4_NL", True, ftype="IQ1_M"),
    QuantType("TQ1_0", 34, 256, 54, "ternary", "Q4_0", ftype="TQ1_0"),
    QuantType("IQ1_S", 19, 256, 50, "iq", "IQ4_NL", True, ftype="IQ1_S"),
    QuantType("Q1_0", 41, 128, 18, "other", ftype="Q1_0"),
    QuantType("F64", 28, 1, 8, "float"),
    QuantType("I8", 24, 1, 1, "other"),
    QuantType("I16", 25, 1, 2, "other"),
    QuantType("I32", 26, 1, 4, "other"),
    QuantType("I64", 27, 1, 8, "other"),
)
BY_NAME = {quant.name: quant for quant in _TABLE}
BY_ID = {quant.ggml_id: quant for quant in _TABLE}

# Names that a plan may choose from. 16-bit types are kept: a small tensor may be worth them.
SETS = {
    "k": ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    "iq": ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL"),
    "legacy": ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    "float": ("F16", "BF16", "F32"),
    "ternary": ("TQ1_0", "TQ2_0"),
}
# Ternary types and the 1- and 2-bit "_0" types are made for models that were trained for them, MXFP4 and NVFP4
# for models published in them; a plan takes them only when they are named.
SETS["all"] = SETS["k"] + SETS["iq"] + SETS["legacy"] + ("F16",)
ANY = "any"  # the set of every type that can be written


def register(quant: QuantType) -> None:
    """Makes a type known that the table does not have: plans, rules and files can name it from then on.

    ValueError where its name or number stands for another type already.
    """
    for known in (BY_NAME.get(quant.name), BY_ID.get(quant.ggml_id)):
        if known not in (None, quant):
            raise ValueError(f"type {quant.ggml_id} {quant} cannot join the table, which has {known.ggml_id} {known}")
    BY_NAME[quant.name] = BY_ID[quant.ggml_id] = quant


def quant_type(name: str) -> QuantType:
    """The type called ``name`` in any case; NothingSelected with the nearest names otherwise."""
    quant = BY_NAME.get(name.strip().upper())
    if quant is None:
        near = difflib.get_close_matches(name.upper(), BY_NAME, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known types: {', '.join(_weight_types())}"
        raise NothingSelected(f"there is no quantization type {name!r}; {hint}")
    return quant


def _weight_types() -> tuple[str, ...]:
    return tuple(quant.name for quant in BY_NAME.values() if quant.for_weights)


def weight_type(name: str) -> QuantType:
    """``quant_type`` for what a tensor shall become; NothingSelected for types that are not for weights, too."""
    quant = quant_type(name)
    if not quant.for_weights:
        raise NothingSelected(f"{quant} is no type for weights; choose one of {', '.join(_weight_types())}")
    return quant


def parse_types(text: str, writable: Collection[QuantType] | None = None) -> tuple[QuantType, ...]:
    """Types from a list of names and sets such as ``k,iq`` or ``Q4_K,Q6_K,legacy``, largest first.

    A leading ``-`` removes: ``all,-iq``. ``writable``: what can be encoded; sets are restricted to it, and the set
    ``any`` is all of it (without it: every type for weights in the table). NothingSelected for an unknown name, for a
    type that is named and not writable, or an empty result.
    """
    possible = [quant.name for quant in writable] if writable is not None else list(_weight_types())
    chosen: dict[str, None] = {}
    for word in filter(None, (part.strip() for part in text.replace(" ", ",").split(","))):
        remove, name = word.startswith("-"), word.lstrip("-")
        for each in _names(name, possible):
            if remove:
                chosen.pop(each, None)
            else:
                chosen[each] = None
    if not chosen:
        raise NothingSelected(f"no quantization type is left of {text!r}; try --types k,iq,legacy")
    return tuple(sorted((BY_NAME[name] for name in chosen), key=lambda quant: (-quant.bits, quant.name)))


def _names(word: str, possible: Collection[str]) -> list[str]:
    """What a set holds that is possible, or the one type that is named."""
    if word.lower() == ANY:
        return list(possible)
    if word.lower() in SETS:
        return [name for name in SETS[word.lower()] if name in possible]
    try:
        name = weight_type(word).name
    except NothingSelected as error:
        raise NothingSelected(f"{error} (sets: {', '.join((*SETS, ANY))})") from None
    if name not in possible:
        raise NothingSelected(f"the installed llama.cpp cannot write {name}; it writes {', '.join(possible)}")
    return [name]


def ggml_type(ggml_id: int) -> QuantType | None:
    """The type with that number in ggml's enum, or None for one that this version does not know."""
    return BY_ID.get(ggml_id)


_REMOVED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8"}
_REMOVED |= {37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}
# enum ggml_type of ik_llama.cpp (ggml/include/ggml.h and gguf-py/gguf/constants.py, 2026): a repacked type has the number of
# its base and 200 more, and is Q..._R4 but for these
_OF_IK = {
    number: name
    for first, names in (
        (133, ("Q6_0", "IQ1_BN", "IQ2_BN", "Q8_K64", "IQ2_K", "IQ3_K", "IQ4_K", "IQ5_K", "IQ6_K", "IQ2_TN", "IQ1_TN")),
        (144, ("IQ4_KS", "IQ2_KS", "IQ4_KSS", "Q8_K16", "Q8_K32", "Q8_KR8", "Q8_K128", "Q8_KV", "IQ5_KS")),
        (153, ("IQ2_KT", "IQ3_KT", "IQ4_KT", "IQ3_KS", "IQ2_KL", "IQ1_KT")),
        (397, ("Q8_K_R16", "Q8_KV_R8", "Q8_K_R8")),
    )
    for number, name in enumerate(names, first)
}
_OF_IK |= {202: "Q4_0_R8", 208: "Q8_0_R8", 223: "IQ4_XS_R8", 230: "BF16_R16"}


def _ik_name(ggml_id: int) -> str | None:
    repacked = BY_ID.get(ggml_id - 200) or _OF_IK.get(ggml_id - 200)
    return _OF_IK.get(ggml_id) or (f"{repacked}_R4" if repacked and ggml_id >= 200 else None)


def foreign_type(ggml_id: int) -> str:
    """A type that llama.cpp does not have, by its number: what it is and what to do, as the end of a sentence."""
    if ggml_id in _REMOVED:
        return (
            f"{_REMOVED[ggml_id]}, which llama.cpp has removed; get the file in another type "
            f"({'Q4_0 is repacked when it is loaded' if ggml_id > 30 else 'Q4_0, Q4_1'})"
        )
    if ggml_id == 36:
        return (
            "type 36, I2_S of bitnet.cpp (or IQ4_NL_4_4, which llama.cpp has removed), which llama.cpp does not have; get the "
            "unquantized model, or a quant for llama.cpp"
        )
    if name := _ik_name(ggml_id):
        return (
            f"type {ggml_id}, {name} of ik_llama.cpp, which llama.cpp does not have; get the unquantized model, or a quant "
            "for llama.cpp"
        )
    return f"type {ggml_id}, which this quantplan does not know; update quantplan"


def fitted(quant: QuantType, columns: int) -> QuantType:
    """The type that llama-quantize stores where ``quant`` was asked for and rows have ``columns`` weights.

    Source: ``tensor_type_fallback`` in llama-quant.cpp.
    """
    if quant.fits(columns):
        return quant
    replacement = BY_NAME[quant.fallback] if quant.fallback else quant
    return replacement if replacement.fits(columns) else BY_NAME["F16"]
