"""Plans from what others publish: LAYER_TYPES, rules of llama.cpp and ik_llama.cpp, recipes, or a quantized GGUF of the
same model.

llama-quantize itself says what a text means: stock quants, rules, types that do not fit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile, BadUsage
from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import known_ftype, quantizable, stock_quant
from quantplan.plan import Plan
from quantplan.quant_type import QuantType, fitted
from quantplan.recipes.import_gguf import plan_of_gguf
from quantplan.recipes.import_rules import plan_of_rules
from quantplan.recipes.layer_types import (
    EMBEDDINGS,
    OUTPUT,
    LayerTypes,
    looks_like_layer_types,
    parse_layer_types,
    write_flags,
)
from quantplan.recipes.rule_texts import parse_rules
from quantplan.recipes.rules import matches, resolve
from quantplan.records.json_text import parse_json
from quantplan.tensor import Model, Tensor
from quantplan.text_files import is_gguf, read_text_file

_CATEGORY = re.compile(r"^\s*\[ *(?:output|token_embd|attn_\w+|ffn_\w+) *\]\s*$", re.MULTILINE)
_DEFAULT = re.compile(r"^\s*default[ \t]+\w+", re.MULTILINE)
_SOURCES = "a GGUF, LAYER_TYPES, rules or a recipe"
_OTHER_FLAGS = ("--allow-requantize", "--imatrix", "--keep-split", "--override-kv")


@dataclass(frozen=True)
class Imported:
    """A plan, and what a person should know about how the source was understood."""

    plan: Plan
    warnings: tuple[str, ...]


def import_file(
    path: Path, model: Model, imatrix: Imatrix | None = None, base: str | None = None, nearest: bool = False
) -> Imported:
    """The plan that a file stands for: a GGUF, a LAYER_TYPES text, rules in any form that ``parse_rules`` reads.

    ``base``: the stock quant that decides what a text leaves open; ``nearest``: replace types that llama.cpp does not have by
    the nearest. Raises BadFile for anything else, BadUsage where something is left open, NothingSelected for names
    and types that do not exist, ModelMismatch for another model's.
    """
    if is_gguf(path):
        return Imported(*plan_of_gguf(read_model(path), model, imatrix, base))
    text = read_text_file(path, _SOURCES)
    if text.lstrip().startswith("{"):
        raise BadFile(f"{path} is {_record(text)}; a plan is made from {_SOURCES}")
    if looks_like_layer_types(text):
        return _from_layer_types(parse_layer_types(text, model.blocks, known_ftype), model, imatrix, base)
    if _CATEGORY.search(text) and _DEFAULT.search(text):
        raise BadFile(
            f"{path} is a recipe by tensor category (llama.cpp pull request 21070, not merged), which is not supported; "
            "import rules of llama-quantize instead"
        )
    return Imported(*plan_of_rules(parse_rules(text), model, imatrix, base, nearest))


def _record(text: str) -> str:
    try:
        return f"a {parse_json(text)['format']} file"
    except (ValueError, KeyError, TypeError):
        return "some other JSON"


# --- LAYER_TYPES


def _from_layer_types(layers: LayerTypes, model: Model, imatrix: Imatrix | None, base: str | None) -> Imported:
    warnings = [_ignored(flag) for flag in layers.ignored]
    idle = [rule for rule, names in matches(layers.rules, model.by_name).items() if not names]
    warnings += [f"--tensor-type {rule} matches no tensor of the model; llama-quantize passes over it" for rule in idle]
    if layers.lists > 1:
        warnings.append(
            f"the text holds {layers.lists} LAYER_TYPES lists; the first was read, cut it away to read the next"
        )
    path = imatrix.path if imatrix else None
    stock_quants = {ftype: stock_quant(model, ftype, path) for ftype in layers.ftypes}
    outside = stock_quant(model, base, path) if base else {}
    meaning, named = {block: layers.names[name] for block, name in layers.layers}, _named(layers, model)
    assignment: dict[str, QuantType] = {}
    for tensor in quantizable(model):
        asked = named.get(tensor.name)
        if asked is None and tensor.block is not None:
            layer = meaning[tensor.block]
            asked = layer.type_of(tensor.role) or stock_quants[layer.base][tensor.name]
        asked = asked or outside.get(tensor.name)
        if asked is None:
            raise BadUsage(
                f"the text does not say how to store {tensor.name}: give --stock-quant NAME, or add "
                'FLAGS="--token-embedding-type TYPE --output-tensor-type TYPE" to it'
            )
        assignment[tensor.name] = _fitting(tensor, asked, warnings)
    flags = write_flags(layers.token_embedding, layers.output, layers.rules)
    extended = {name: str(each) for name, each in layers.extended.items()}
    made_from = {"layer_names": extended} if extended else {}
    plan = make_plan(model, assignment, imatrix, layer_types=layers.layers, flags=flags, made_from=made_from)
    return Imported(plan, tuple(warnings))


def _ignored(flag: str) -> str:
    if flag.split()[0] in _OTHER_FLAGS:
        return f"{flag} changes no type; it is ignored"
    return f"{flag} is in no public source of llama-quantize; it is ignored"


def _named(layers: LayerTypes, model: Model) -> dict[str, QuantType]:
    """What the flags say of single tensors, in llama-quantize's order: options before rules, but a rule that names
    per_layer_token_embd before the option; where the embeddings are the output, either option can mean them.
    """
    names = [tensor.name for tensor in quantizable(model)]
    weak = {EMBEDDINGS: layers.output if model.tied else None, "per_layer_token_embd.weight": layers.token_embedding}
    strong = {EMBEDDINGS: layers.token_embedding, OUTPUT: layers.output}
    levels: list[Mapping[str, QuantType | None]] = [weak, resolve(layers.rules, names), strong]
    return {name: quant for types in levels for name, quant in types.items() if quant}


def _fitting(tensor: Tensor, asked: QuantType, warnings: list[str]) -> QuantType:
    stored = fitted(asked, tensor.columns)
    if stored != asked:
        warnings.append(f"{tensor.name} becomes {stored}: its rows of {tensor.columns} do not fit {asked}")
    return stored
