"""LAYER_TYPES texts of hybrid layer quants: ``[[layer, "FTYPE"], ...]`` and FLAGS for embeddings and output.

Each block takes the types that llama.cpp's stock quant FTYPE would give that block; a text may define further names
(``layer_names``). The texts are found in model cards and shell scripts, so anything may stand around them; what they say
themselves is taken strictly.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from quantplan.errors import BadFile
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import QuantType, quant_type
from quantplan.recipes.code_parts import plain_text
from quantplan.recipes.layer_names import LayerName, definitions, layer_name, legend
from quantplan.recipes.rule_lists import parse_rule

_MARK = re.compile(r"\bLAYER_TYPES\s*=\s*")
_LIST = re.compile(r"\[\s*\[(?!:)")  # [[: opens a class in a pattern
_NAMED = re.compile(r"\[\s*\[\s*[^][,]*,\s*\\?[\"']")  # with a name in its first row: [[704,768]] is none
_FLAGS = re.compile(r"\bFLAGS\s*=\s*[\"']((?:[^\"'\n\\]|\\.|\\\n)*)")  # cards forget the closing quote
_LINE = r"^[ \t]*{what}[ \t]*:[ \t]*(\w+)[ \t]*$"
_RANGE = re.compile(
    _LINE.format(what=r"(\d{1,4})(?:\.\.(\d{1,4}))?"), re.MULTILINE
)  # 0..5 : Q4_K_M, as earlier cards have it
_SINGLE_QUOTED = re.compile(r"'(\w+)'")
_TRAILING_COMMA = re.compile(r",(?=\s*\])\s*\]")
_EMBEDDING, _OUTPUT, _RULE = "--token-embedding-type", "--output-tensor-type", "--tensor-type"
EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"
_PER_LINE = 8


@dataclass(frozen=True)
class LayerTypes:
    """``layers``: (block, name) in order of blocks, each block once; ``rules``: those among the flags, they come
    before the layers' types; ``ignored``: flags that mean nothing here; ``names``: what each name means; ``lists``: how
    many lists the text holds, of which the first was read.
    """

    layers: tuple[tuple[int, str], ...]
    token_embedding: QuantType | None = None
    output: QuantType | None = None
    rules: tuple[Rule, ...] = ()
    ignored: tuple[str, ...] = ()
    names: Mapping[str, LayerName] = field(default_factory=dict)
    lists: int = 1

    @property
    def ftypes(self) -> tuple[str, ...]:
        """The distinct FTYPEs that the names build on, in order of first use."""
        used = (self.names[name] for _, name in self.layers)
        return tuple(dict.fromkeys(each.base for each in used if each.type is None))

    @property
    def extended(self) -> dict[str, LayerName]:
        """The names in use that are neither FTYPEs nor types of llama.cpp."""
        return {name: each for name, each in self.names.items() if each.roles or each.base != name}


def looks_like_layer_types(text: str) -> bool:
    return bool(_MARK.search(text) or _NAMED.search(text) or any(match[2] for match in _RANGE.finditer(text)))


def parse_layer_types(
    text: str, blocks: int, known_ftype: Callable[[str], str] = str.upper, optional: int = 0
) -> LayerTypes:
    """The layer types in a text for a model of ``blocks`` blocks, the last ``optional`` of which it may leave out.

    ``known_ftype`` gives the proper name of an FTYPE or raises NothingSelected. Raises BadFile for what is not such a list,
    and for blocks that are missing, named twice or not in the model; NothingSelected for unknown types and names.
    """
    text = plain_text(text)
    defined = definitions(text, known_ftype)
    items = _items(text)
    rows = [item for item in items if _is_legend(item)]
    key = legend(rows)
    entries = [_entry(item) for item in items if item not in rows]
    names = {name: layer_name(name, defined, known_ftype, key) for name in dict.fromkeys(name for _, name in entries)}
    _check_blocks([block for block, _ in entries], blocks, optional)
    return LayerTypes(tuple(sorted(entries)), *_flags(text), names, max(1, len(_MARK.findall(text))))


def _items(text: str) -> list[object]:
    mark = _MARK.search(text)
    start = _LIST.search(text, mark.end()) if mark else _NAMED.search(text)
    if not start and (ranges := list(_RANGE.finditer(text))):
        return [[block, each[3]] for each in ranges for block in range(int(each[1]), int(each[2] or each[1]) + 1)]
    if not start:
        raise BadFile(
            'there is no LAYER_TYPES list in the text; it looks like LAYER_TYPES=\'[[0,"Q4_K_M"],[1,"Q4_K_S"]]\''
        )
    listed = text[start.start() :].replace('\\"', '"')
    try:
        return json.JSONDecoder().raw_decode(_TRAILING_COMMA.sub("]", _SINGLE_QUOTED.sub(r'"\1"', listed)))[0]
    except (ValueError, RecursionError) as error:
        if not isinstance(error, json.JSONDecodeError):
            raise BadFile(f"the LAYER_TYPES list cannot be read: {error}") from None
        line = text.count("\n", 0, start.start()) + error.lineno
        raise BadFile(f"the LAYER_TYPES list is broken at line {line} of the text: {error.msg}") from None


def _is_legend(item: object) -> TypeGuard[list[str]]:
    """Whether a row names letters: ["A", "attn", ...]."""
    return (
        isinstance(item, list) and all(isinstance(word, str) for word in item) and not item[0].isdigit()
        if item
        else False
    )


def _entry(item: object) -> tuple[int, str]:
    match item:
        case [bool(), _]:
            pass
        case [int(block), str(name)]:
            return block, name.strip().upper()
    raise BadFile(f'LAYER_TYPES holds {json.dumps(item)}, which is not [layer, "FTYPE"]')


def _check_blocks(named: Sequence[int], blocks: int, optional: int) -> None:
    times = Counter(named)
    for block in named:
        if not 0 <= block < blocks:
            raise BadFile(
                f"LAYER_TYPES names layer {block}, the model has layers 0 to {blocks - 1}: is it another model's list?"
            )
        if times[block] > 1:
            raise BadFile(f"LAYER_TYPES names layer {block} {times[block]} times")
    missing = sorted(set(range(blocks - optional)) - set(named))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadFile(f"LAYER_TYPES does not name layer {missing[0]}{more} of the model's {blocks} layers")


def _flags(text: str) -> tuple[QuantType | None, QuantType | None, tuple[Rule, ...], tuple[str, ...]]:
    """(embeddings, output, rules, flags that are passed over) from FLAGS="...", or from the options where they
    stand.
    """
    match = _FLAGS.search(text)
    if not match:
        return _option(text, _EMBEDDING), _option(text, _OUTPUT), (), ()
    types: dict[str, QuantType] = {}
    rules: list[Rule] = []
    ignored: list[str] = []
    for option, *values in _option_words(match.group(1).replace("\\\n", " ")):
        if option in (_EMBEDDING, _OUTPUT):
            types[option] = quant_type(_value(option, values))
        elif option == _RULE:
            rules.append(parse_rule(_value(option, values)))
        else:
            ignored.append(" ".join([option, *values]))
    return types.get(_EMBEDDING), types.get(_OUTPUT), tuple(rules), tuple(ignored)


def _option_words(text: str) -> list[list[str]]:
    """Each option with the words that follow it."""
    options: list[list[str]] = []
    for word in text.split():
        if word.startswith("--") or not options:
            options.append([word])
        else:
            options[-1].append(word)
    return options


def _option(text: str, option: str) -> QuantType | None:
    where = {_EMBEDDING: "embed", _OUTPUT: "output"}[option]
    match = re.search(rf"{option}(?:\s+|=)(\w+)", text) or re.search(_LINE.format(what=where), text, re.MULTILINE)
    return quant_type(match.group(1)) if match else None


def _value(option: str, words: Sequence[str]) -> str:
    if len(words) != 1:
        raise BadFile(f"FLAGS ends after {option}: the type is missing" if not words else f"{option} takes one word")
    return words[0]


def write_layer_types(
    layers: Sequence[tuple[int, str]], flags: str = "", definitions: Mapping[str, object] | None = None
) -> str:
    """The text in the manner of the model cards: definitions of extended names, eight layers a line, aligned, then FLAGS."""
    wide = max((len(str(block)) for block, _ in layers), default=1)
    longest = max((len(ftype) for _, ftype in layers), default=1) + 2
    cells = [f"[{block:<{wide}},{json.dumps(ftype):<{longest}}]" for block, ftype in layers]
    lines = [",".join(cells[start : start + _PER_LINE]) for start in range(0, len(cells), _PER_LINE)]
    text = "".join(f"{name} : {meaning}\n" for name, meaning in (definitions or {}).items())
    text += "LAYER_TYPES='[\n" + ",\n".join(lines) + "\n]'\n"
    return text + (f'FLAGS="{flags}"\n' if flags else "")


def write_flags(token_embedding: QuantType | None, output: QuantType | None, rules: Iterable[Rule] = ()) -> str:
    """Embeddings and output as llama-quantize's options, then rules."""
    pairs = ((_EMBEDDING, token_embedding), (_OUTPUT, output))
    words = [f"{option} {quant.name}" for option, quant in pairs if quant]
    return " ".join(words + [f"{_RULE} {rule}" for rule in rules])


def flags_for(outside: Mapping[str, QuantType]) -> str:
    """The flags that give the tensors outside the blocks their types: options for embeddings and output, a rule for
    each other one (per_layer_token_embd follows --token-embedding-type unless a rule names it).
    """
    rest = {name: quant for name, quant in outside.items() if name not in (EMBEDDINGS, OUTPUT)}
    rules = (Rule(f"^{name}$", quant) for name, quant in rest.items())
    return write_flags(outside.get(EMBEDDINGS), outside.get(OUTPUT), rules)
