"""Names that LAYER_TYPES texts use beyond llama.cpp's FTYPEs: a stock quant, and some roles of the layer in other types.

Model cards define them in lines next to the list, in one of these forms:

    Q4_K_L : Q4_K_M + attn_o = q6_k
    Q5_K_L : attn_v = q8_0 attn_o = q6_k ffn_d = q6_k
    Q6_K_S : Q6_K

Where the second form leaves the stock quant open it is taken to be the ``_M`` one of the name's main type, or the type itself
where there is none (Q6_K). No public source says so; for the names in use it makes no difference, because Q5_K_M and Q5_K_S
differ only in attn_v and ffn_down, which the definition gives, and Q6_K is one type throughout.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from quantplan.errors import BadFile, NothingSelected
from quantplan.quant_type import BY_NAME, QuantType, quant_type

_ROLES = {"attn_o": "attn_output", "ffn_d": "ffn_down", "ffn_u": "ffn_up", "ffn_g": "ffn_gate"}
_PAIR = r"[a-z]+_\w+\s*=\s*\w+"
_DEFINITION = re.compile(
    rf"^[\s>*|`-]*(?P<name>I?Q\d\w*)\s*:\s*(?P<base>(?i:i?q\d\w*))?\s*\+?\s*(?P<pairs>(?:{_PAIR}[\s,+]*)*)[\s|`]*$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class LayerName:
    """``base``: an FTYPE; ``roles``: (role, type) of what a layer stores otherwise."""

    base: str
    roles: tuple[tuple[str, QuantType], ...] = ()

    def type_of(self, role: str) -> QuantType | None:
        """The type that the definition gives to a role, None where the base decides. ffn_down speaks for the experts'
        ffn_down_exps too."""
        for named, quant in self.roles:
            if role == named or (named.startswith("ffn_") and role.startswith(f"{named}_")):
                return quant
        return None

    def __str__(self) -> str:
        pairs = " ".join(f"{role} = {quant.name.lower()}" for role, quant in self.roles)
        return f"{self.base} + {pairs}" if pairs else self.base


def _well_known() -> dict[str, LayerName]:
    q6, q8 = BY_NAME["Q6_K"], BY_NAME["Q8_0"]
    v, o, down = "attn_v", "attn_output", "ffn_down"
    return {
        "Q4_K_L": LayerName("Q4_K_M", ((o, q6),)),
        "Q5_K_L": LayerName("Q5_K_M", ((v, q8), (o, q6), (down, q6))),
        "Q6_K_S": LayerName("Q6_K"),
        "Q6_K_M": LayerName("Q6_K", ((v, q8), (down, q8))),
        "Q6_K_L": LayerName("Q6_K", ((v, q8), (o, q8), (down, q8))),
    }


WELL_KNOWN: Mapping[str, LayerName] = _well_known()  # as published on the cards; a text's own definitions win


def definitions(text: str, known_ftype: Callable[[str], str]) -> dict[str, LayerName]:
    """The names that a text defines. BadFile for a name defined in two ways, NothingSelected for unknown types."""
    found: dict[str, LayerName] = {}
    for match in _DEFINITION.finditer(text):
        if not match["base"] and not match["pairs"]:
            continue
        name = match["name"].upper()
        defined = LayerName(_base(name, match["base"], known_ftype), tuple(_pairs(match["pairs"])))
        if found.setdefault(name, defined) != defined:
            raise BadFile(f"the text defines {name} twice: as {found[name]}, and as {defined}; keep one of them")
    return found


def _base(name: str, said: str | None, known_ftype: Callable[[str], str]) -> str:
    if said:
        return known_ftype(said)
    main = name.rpartition("_")[0]
    for ftype in (f"{main}_M", main):
        try:
            return known_ftype(ftype)
        except NothingSelected:
            continue
    raise NothingSelected(
        f"{name} is defined by some roles only, and there is no stock quant {main}; write {name} : FTYPE + ..."
    )


def _pairs(text: str) -> Iterable[tuple[str, QuantType]]:
    for pair in re.findall(_PAIR, text):
        role, _, quant = pair.partition("=")
        yield _ROLES.get(role.strip(), role.strip()), quant_type(quant)


def layer_name(name: str, defined: Mapping[str, LayerName], known_ftype: Callable[[str], str]) -> LayerName:
    """What a name in a list means: the text's own definition, llama.cpp's FTYPE, or one of ``WELL_KNOWN``.

    NothingSelected with near names, and how to define it, for any other.
    """
    upper = name.strip().upper()
    if upper in defined:
        return defined[upper]
    try:
        return LayerName(known_ftype(name))
    except NothingSelected as error:
        if upper in WELL_KNOWN:
            return WELL_KNOWN[upper]
        known = ", ".join(WELL_KNOWN)
        raise NothingSelected(
            f"{error}. Extended names that are known: {known}. To define another, add a line such as "
            f"`{upper} : Q4_K_M + attn_o = q6_k` to the text"
        ) from None
