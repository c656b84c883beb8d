"""LAYER_TYPES texts of hybrid layer quants: ``[[layer, "FTYPE"], ...]`` and FLAGS for embeddings and output.

Each block takes the types that llama.cpp's mix FTYPE would give that block. The texts are found in model
cards and shell scripts, so anything may stand around them; what they say themselves is taken strictly.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantplan.errors import BadFile
from quantplan.formats.rules import parse_rule
from quantplan.llamacpp.quantize import Rule
from quantplan.quant_type import QuantType, quant_type

_MARK = re.compile(r"\bLAYER_TYPES\s*=\s*")
_LIST = re.compile(r"\[\s*\[")
_FLAGS = re.compile(r"\bFLAGS\s*=\s*([\"'])(.*?)\1", re.DOTALL)
_QUOTES = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})  # word processors' quotes
_EMBEDDING, _OUTPUT, _RULE = "--token-embedding-type", "--output-tensor-type", "--tensor-type"
EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"
_PER_LINE = 8


@dataclass(frozen=True)
class LayerTypes:
    """``layers``: (block, FTYPE) in order of blocks, each block once; ``rules``: those among the flags, they come
    before the layers' types; ``ignored``: flags that mean nothing here.
    """

    layers: tuple[tuple[int, str], ...]
    token_embedding: QuantType | None = None
    output: QuantType | None = None
    rules: tuple[Rule, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def ftypes(self) -> tuple[str, ...]:
        """The distinct FTYPEs, in order of first use."""
        return tuple(dict.fromkeys(ftype for _, ftype in self.layers))


def looks_like_layer_types(text: str) -> bool:
    return bool(_MARK.search(text) or _LIST.search(text))


def parse_layer_types(text: str, blocks: int, known_ftype: Callable[[str], str] = str.upper) -> LayerTypes:
    """The layer types in a text for a model of ``blocks`` blocks.

    ``known_ftype`` gives the proper name of an FTYPE or raises. Raises BadFile for what is no such list, and
    for blocks that are missing, named twice or not in the model; NothingSelected for unknown types.
    """
    text = text.translate(_QUOTES)
    entries = [_entry(item, known_ftype) for item in _items(text)]
    _check_blocks([block for block, _ in entries], blocks)
    return LayerTypes(tuple(sorted(entries)), *_flags(text))


def _items(text: str) -> list[object]:
    mark = _MARK.search(text)
    start = _LIST.search(text, mark.end() if mark else 0)
    if not start:
        raise BadFile(
            'there is no LAYER_TYPES list in the text; it looks like LAYER_TYPES=\'[[0,"Q4_K_M"],[1,"Q4_K_S"]]\''
        )
    try:
        return json.JSONDecoder().raw_decode(text[start.start() :].replace('\\"', '"'))[0]
    except json.JSONDecodeError as error:
        line = text.count("\n", 0, start.start()) + error.lineno
        raise BadFile(f"the LAYER_TYPES list is broken at line {line} of the text: {error.msg}") from None


def _entry(item: object, known_ftype: Callable[[str], str]) -> tuple[int, str]:
    match item:
        case [bool(), _]:
            pass
        case [int(block), str(ftype)]:
            return block, known_ftype(ftype)
    raise BadFile(f'LAYER_TYPES holds {json.dumps(item)}, which is not [layer, "FTYPE"]')


def _check_blocks(named: Sequence[int], blocks: int) -> None:
    for block in named:
        if not 0 <= block < blocks:
            raise BadFile(
                f"LAYER_TYPES names layer {block}, the model has layers 0 to {blocks - 1}: is it another model's list?"
            )
        if named.count(block) > 1:
            raise BadFile(f"LAYER_TYPES names layer {block} {named.count(block)} times")
    missing = sorted(set(range(blocks)) - set(named))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadFile(f"LAYER_TYPES does not name layer {missing[0]}{more} of the model's {blocks} layers")


def _flags(text: str) -> tuple[QuantType | None, QuantType | None, tuple[Rule, ...], tuple[str, ...]]:
    """(embeddings, output, rules, flags that are passed over) from FLAGS="...", or from the options where they
    stand.
    """
    found = _FLAGS.search(text)
    if not found:
        return *(_option(text, option) for option in (_EMBEDDING, _OUTPUT)), (), ()
    words = iter(shlex.split(found.group(2)))
    types: dict[str, QuantType] = {}
    rules: list[Rule] = []
    ignored: list[str] = []
    for word in words:
        if word in (_EMBEDDING, _OUTPUT):
            types[word] = quant_type(_value(word, next(words, None)))
        elif word == _RULE:
            rules.append(parse_rule(_value(word, next(words, None))))
        else:
            ignored.append(word)
    return types.get(_EMBEDDING), types.get(_OUTPUT), tuple(rules), tuple(ignored)


def _option(text: str, option: str) -> QuantType | None:
    match = re.search(rf"{option}(?:\s+|=)(\w+)", text)
    return quant_type(match.group(1)) if match else None


def _value(option: str, word: str | None) -> str:
    if word is None:
        raise BadFile(f"FLAGS ends after {option}: the type is missing")
    return word


def write_layer_types(layers: Sequence[tuple[int, str]], flags: str = "") -> str:
    """The text in the manner of the model cards: eight layers a line, aligned, then FLAGS."""
    wide = max((len(str(block)) for block, _ in layers), default=1)
    longest = max((len(ftype) for _, ftype in layers), default=1) + 2
    cells = [f"[{block:<{wide}},{json.dumps(ftype):<{longest}}]" for block, ftype in layers]
    lines = [",".join(cells[start : start + _PER_LINE]) for start in range(0, len(cells), _PER_LINE)]
    text = "LAYER_TYPES='[\n" + ",\n".join(lines) + "\n]'\n"
    return text + (f'FLAGS="{flags}"\n' if flags else "")


def write_flags(token_embedding: QuantType | None, output: QuantType | None, rules: Iterable[Rule] = ()) -> str:
    """Embeddings and output as llama-quantize's options, then rules."""
    pairs = ((_EMBEDDING, token_embedding), (_OUTPUT, output))
    words = [f"{option} {kind.name}" for option, kind in pairs if kind]
    return " ".join(words + [f"{_RULE} {rule}" for rule in rules])


def flags_for(outside: Mapping[str, QuantType]) -> str:
    """The flags that give the tensors outside the blocks their types: options for embeddings and output, a rule for
    each other one (per_layer_token_embd follows --token-embedding-type unless a rule names it).
    """
    rest = {name: kind for name, kind in outside.items() if name not in (EMBEDDINGS, OUTPUT)}
    rules = (Rule(f"^{name}$", kind) for name, kind in rest.items())
    return write_flags(outside.get(EMBEDDINGS), outside.get(OUTPUT), rules)
