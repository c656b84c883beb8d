"""Names that LAYER_TYPES texts use beyond llama.cpp's FTYPEs: a stock quant or a type, and some roles of the layer otherwise.

Model cards define them in lines next to the list, in one of these forms:

    Q4_K_L : Q4_K_M + attn_o = q6_k
    Q5_K_L : attn_v = q8_0 attn_o = q6_k ffn_d = q6_k
    Q6_K_S : Q6_K

Where the second form leaves the stock quant open it is taken to be the ``_M`` one of the name's main type, or the type itself
where there is none (Q6_K). No public source says so; for the names in use it makes no difference, because Q5_K_M and Q5_K_S
differ only in attn_v and ffn_down, which the definition gives, and Q6_K is one type throughout. ``all = q5_k`` gives the
whole layer one type.

The names of a type (MXFP4, BF16) mean it for the layer. Those of the form N_K_VOD (Q5_K_655) mean N_K for the layer, and a digit
each for attn_v (or attn_qkv), attn_output and ffn_down: 0 as N_K, 2 to 6 the K-types, 8 Q8_0, h F16, f F32. A text may have
a legend of its own (``legend``), which goes before.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantplan.errors import BadFile, NothingSelected
from quantplan.quant_type import BY_NAME, QuantType, quant_type

_ALL = "all"
_ROLES = {"attn_o": "attn_output", "ffn_d": "ffn_down", "ffn_u": "ffn_up", "ffn_g": "ffn_gate"}
_PAIR = rf"(?:{_ALL}|[a-z]+_\w+)\s*=\s*\w+"
_DEFINITION = re.compile(
    rf"^[\s>*|`-]*(?P<name>(?:I?Q|TQ|MXFP|NVFP|B?F)\d\w*)\s*:\s*(?P<base>(?i:i?q\d\w*))?\s*\+?\s*(?P<pairs>(?:{_PAIR}[\s,+]*)*)[\s|`]*$",
    re.MULTILINE,
)
_CODED = re.compile(r"(Q[2-6]_K)_(\w{2,})")
_GROUPS = ("attn", "ffn", "ssm")  # they speak for all roles whose names begin so
_MAP = "MAP"
_LETTERS = {"V": "attn_v", "O": "attn_o", "D": "ffn_d"}
_DIGITS = {
    "0": "QN_K",
    "2": "Q2_K",
    "3": "Q3_K",
    "4": "Q4_K",
    "5": "Q5_K",
    "6": "Q6_K",
    "8": "Q8_0",
    "H": "F16",
    "F": "F32",
}


@dataclass(frozen=True)
class LayerName:
    """``base``: an FTYPE, or the name of the ``type`` that the whole layer has; ``roles``: (role, type) of what it stores
    otherwise."""

    base: str
    roles: tuple[tuple[str, QuantType], ...] = ()
    type: QuantType | None = None

    @classmethod
    def of_type(cls, quant: QuantType, roles: tuple[tuple[str, QuantType], ...] = ()) -> "LayerName":
        return cls(quant.name, roles, quant)

    def type_of(self, role: str) -> QuantType | None:
        """The type that the definition gives to a role, None where the base decides. ffn_down speaks for the experts'
        ffn_down_exps too, attn for all of the attention."""
        for named, quant in self.roles:
            group = named.startswith("ffn_") or named in _GROUPS
            if role == named or (group and role.startswith(f"{named}_")):
                return quant
        return self.type

    def __str__(self) -> str:
        pairs = " ".join(f"{role} = {quant.name.lower()}" for role, quant in self.roles)
        base = f"{_ALL} = {self.base.lower()}" if self.type else self.base
        if not pairs:
            return base
        return f"{base} {pairs}" if self.type else f"{base} + {pairs}"


@dataclass(frozen=True)
class Legend:
    """What the letters after N_K stand for. ``places``: roles of each place; ``types``: type of each letter, None for N_K's."""

    places: tuple[tuple[str, ...], ...]
    types: Mapping[str, QuantType | None]

    def read(self, name: str) -> LayerName | None:
        """What a name such as Q5_K_655 means; None for names of another form."""
        match = _CODED.fullmatch(name)
        if not match or len(match[2]) != len(self.places) or not set(match[2]) <= self.types.keys():
            return None
        own = BY_NAME[match[1]]
        coded = ((roles, self.types[letter]) for roles, letter in zip(self.places, match[2], strict=True))
        pairs = ((role, quant or own) for roles, quant in coded for role in roles)
        different = sorted((pair for pair in pairs if pair[1] != own), key=lambda pair: pair[0] in _GROUPS)
        return LayerName.of_type(own, tuple(different))


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


def legend(rows: Iterable[Sequence[object]] = ()) -> Legend:
    """The legend that rows of a list give: ``["V", "attn_v", ...]`` names letters, ``["MAP", "VOD", "6", "Q6_K", ...]`` the
    places and what each digit means (QN_K: the name's own). What they leave out is as in the published cards.
    BadFile for rows of another form.
    """
    letters, order, digits = dict(_LETTERS), "VOD", dict(_DIGITS)
    for row in rows:
        words = [str(word) for word in row]
        coded, target = (words[2:], digits) if words[0] == _MAP else (words, letters)
        if len(words) % 2 or len(words) < 2:
            raise BadFile(
                f"the LAYER_TYPES list has a row {words} that is neither a layer nor pairs of a letter and its meaning"
            )
        order = words[1].upper() if words[0] == _MAP else order
        target.update({key.upper(): meaning for key, meaning in zip(coded[::2], coded[1::2], strict=True)})
    unnamed = next((letter for letter in order if letter not in letters), None)
    if unnamed:
        raise BadFile(f"the LAYER_TYPES list maps {order}, and no row says what {unnamed} stands for")
    places = tuple(_place(letters[letter]) for letter in order)
    return Legend(
        places, {digit: None if word.upper() == "QN_K" else quant_type(word) for digit, word in digits.items()}
    )


def _place(role: str) -> tuple[str, ...]:
    role = _ROLES.get(role.lower(), role.lower())
    return (role, "attn_qkv") if role == "attn_v" else (role,)


def definitions(text: str, known_ftype: Callable[[str], str]) -> dict[str, LayerName]:
    """The names that a text defines. BadFile for a name defined in two ways, NothingSelected for unknown types."""
    names: dict[str, LayerName] = {}
    for match in _DEFINITION.finditer(text):
        if not match["base"] and not match["pairs"]:
            continue
        name = match["name"].upper()
        defined = _defined(name, match["base"], tuple(_pairs(match["pairs"])), known_ftype)
        if names.setdefault(name, defined) != defined:
            raise BadFile(f"the text defines {name} twice: as {names[name]}, and as {defined}; keep one of them")
    return names


def _defined(
    name: str, base: str | None, pairs: tuple[tuple[str, QuantType], ...], known_ftype: Callable[[str], str]
) -> LayerName:
    whole = [quant for role, quant in pairs if role == _ALL]
    roles = tuple(pair for pair in pairs if pair[0] != _ALL)
    return LayerName.of_type(whole[-1], roles) if whole else LayerName(_base(name, base, known_ftype), roles)


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


def layer_name(
    name: str, defined: Mapping[str, LayerName], known_ftype: Callable[[str], str], key: Legend | None = None
) -> LayerName:
    """What a name in a list means: the text's own definition, an FTYPE of llama.cpp, a type, what the ``key`` makes of it,
    or one of ``WELL_KNOWN``.

    NothingSelected with near names, and how to define it, for any other.
    """
    upper = name.strip().upper()
    if upper in defined:
        return defined[upper]
    coded = (key or legend()).read(upper)
    if coded:
        return coded
    plain = BY_NAME.get(upper)
    if plain and plain.family == "float":
        return LayerName.of_type(plain)
    try:
        return LayerName(known_ftype(name))
    except NothingSelected as error:
        if plain and plain.for_weights:
            return LayerName.of_type(plain)
        if upper in WELL_KNOWN:
            return WELL_KNOWN[upper]
        known = ", ".join(WELL_KNOWN)
        raise NothingSelected(
            f"{error}. Extended names that are known: {known}, and those like Q5_K_655. To define another, add a line such as "
            f"`{upper} : Q4_K_M + attn_o = q6_k` to the text"
        ) from None
