"""Plans from what others publish: LAYER_TYPES, rules of llama.cpp and ik_llama.cpp, recipes, or a quantized GGUF of the
same model.

llama-quantize itself says what a text means: stock quants, rules, types that do not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile, BadUsage, ModelMismatch, NothingSelected
from quantplan.gguf.imatrix_need import has_imatrix_data, needs_imatrix
from quantplan.gguf.reader import read_model
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import Rule, dry_run, known_ftype, quantizable, stock_quant
from quantplan.plan import Plan
from quantplan.quant_type import QuantType, fitted
from quantplan.recipes.ik_types import is_foreign, replace_foreign
from quantplan.recipes.layer_types import (
    EMBEDDINGS,
    OUTPUT,
    LayerTypes,
    looks_like_layer_types,
    parse_layer_types,
    write_flags,
)
from quantplan.recipes.rule_texts import RuleText, parse_rules
from quantplan.recipes.rules import check_all_match, matches, near_roles, resolve, write_rules
from quantplan.tensor import Model, Tensor

_CATEGORY = re.compile(r"^\s*\[ *(?:output|token_embd|attn_\w+|ffn_\w+) *\]\s*$", re.MULTILINE)
_DEFAULT = re.compile(r"^\s*default[ \t]+\w+", re.MULTILINE)
_FLOATS = ("F32", "F16", "BF16")
_OTHER_FLAGS = ("--allow-requantize", "--imatrix", "--keep-split", "--override-kv")
_ANY_QUANTIZED = "Q8_0"  # a base for rules that leave nothing to the base


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
    if _is_gguf(path):
        return _from_gguf(read_model(path), model, imatrix)
    text = _text(path)
    if looks_like_layer_types(text):
        return _from_layer_types(parse_layer_types(text, model.blocks, known_ftype), model, imatrix, base)
    if _CATEGORY.search(text) and _DEFAULT.search(text):
        raise BadFile(
            f"{path} is a recipe by tensor category (llama.cpp pull request 21070, not merged), which is not supported; "
            "import rules of llama-quantize instead"
        )
    return _from_rules(parse_rules(text), model, imatrix, base, nearest)


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}") from None


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadFile(f"{path} is neither a GGUF file nor text") from None
    if text.lstrip().startswith("{"):
        raise BadFile(f"{path} is {_record(text)}; a plan is made from a GGUF, LAYER_TYPES, rules or a recipe")
    return text


def _record(text: str) -> str:
    try:
        return f"a {json.loads(text)['format']} file"
    except (ValueError, KeyError, TypeError):
        return "some other JSON"


# --- LAYER_TYPES


def _from_layer_types(layers: LayerTypes, model: Model, imatrix: Imatrix | None, base: str | None) -> Imported:
    warnings = [_ignored(flag) for flag in layers.ignored]
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
    check_all_match(layers.rules, names)
    weak = {EMBEDDINGS: layers.output if model.tied else None, "per_layer_token_embd.weight": layers.token_embedding}
    strong = {EMBEDDINGS: layers.token_embedding, OUTPUT: layers.output}
    found: list[Mapping[str, QuantType | None]] = [weak, resolve(layers.rules, names), strong]
    return {name: quant for types in found for name, quant in types.items() if quant}


def _fitting(tensor: Tensor, asked: QuantType, warnings: list[str]) -> QuantType:
    stored = fitted(asked, tensor.columns)
    if stored != asked:
        warnings.append(f"{tensor.name} becomes {stored}: its rows of {tensor.columns} do not fit {asked}")
    return stored


# --- rules


def _from_rules(text: RuleText, model: Model, imatrix: Imatrix | None, said: str | None, nearest: bool) -> Imported:
    warnings = _unmatched(text, model)
    tensors = quantizable(model)
    asked = resolve(text.rules, (tensor.name for tensor in tensors), keep_case=text.keep_case) | _options(text, tensors)
    base = _base(text, said, [tensor.name for tensor in tensors if tensor.name not in asked])
    types, replaced = _of_llama_cpp(asked, model, imatrix, nearest)
    if text.keep_case or replaced:  # said otherwise than llama-quantize reads it: in rules of one's own
        text = RuleText(write_rules(types, model.by_name), pure=text.pure)
    stored = dry_run(
        model.path,
        base,
        rules=text.rules,
        imatrix=imatrix and imatrix.path.absolute(),
        pure=text.pure,
        token_embedding_type=text.token_embedding,
        output_tensor_type=text.output,
        allow_requantize=True,
    )
    made_from = {"replaced_types": replaced} if replaced else {}
    plan = make_plan(model, {tensor.name: stored[tensor.name] for tensor in tensors}, imatrix, made_from=made_from)
    return Imported(plan, (*warnings, *replaced, *_changed(types, stored, tensors)))


def _unmatched(text: RuleText, model: Model) -> list[str]:
    """Warnings for rules that do nothing. NothingSelected for a rule that matches no tensor; where recipes and scripts
    for ik_llama.cpp speak of tensors that this file leaves out, only if they match none at all."""
    found = matches(text.rules, model.by_name, text.keep_case)
    missed = [rule for rule in text.rules if not found[rule]]
    if missed and (not text.keep_case or len(missed) == len(text.rules)):
        raise NothingSelected(
            f"the rule {missed[0]} matches no tensor of the model; {near_roles(missed[0], model.by_name)}"
        )
    warnings = []
    if missed:
        warnings.append(
            f"{len(missed)} of {len(text.rules)} rules match no tensor of the model, the first is {missed[0]}"
        )
    return warnings + _idle(found, model)


def _idle(found: Mapping[Rule, Sequence[str]], model: Model) -> list[str]:
    """Warnings for rules that match tensors and decide none: only copied ones, or all taken by rules before them."""
    names = {tensor.name for tensor in quantizable(model)}
    taken: dict[str, Rule] = {}
    warnings = []
    for rule, matched in found.items():
        first = {taken.setdefault(name, rule) for name in matched}
        wanted = [name for name in matched if model.by_name[name].type != rule.type]
        if wanted and not names.intersection(matched):
            warnings.append(
                f"the rule {rule} names only tensors that llama-quantize never quantizes ({wanted[0]}); it does nothing"
            )
        elif rule not in first and any(each.type != rule.type for each in first):
            warnings.append(
                f"the rule {rule} decides nothing: {taken[matched[0]]} is found in {matched[0]} before it; should that one "
                "begin with ^?"
            )
    return warnings


def _options(text: RuleText, tensors: tuple[Tensor, ...]) -> dict[str, QuantType]:
    """What --token-embedding-type and --output-tensor-type ask for: they come before all rules."""
    pairs = ((EMBEDDINGS, text.token_embedding), (OUTPUT, text.output))
    names = {tensor.name for tensor in tensors}
    return {name: quant for name, quant in pairs if quant and name in names}


def _base(text: RuleText, said: str | None, open_names: Sequence[str]) -> str:
    """The FTYPE that decides what the rules leave open; any quantized one where they leave nothing."""
    if said is None and text.ftype is None:
        if open_names:
            more = f" and {len(open_names) - 1} more tensors" if len(open_names) > 1 else ""
            raise BadUsage(
                f"the rules say nothing about {open_names[0]}{more}; give --stock-quant NAME, which decides the rest"
            )
        return _ANY_QUANTIZED
    try:
        chosen = known_ftype(said or text.ftype or "")
    except NothingSelected as error:
        if said is None and not open_names:
            return _ANY_QUANTIZED
        raise NothingSelected(f"{error}; give --stock-quant NAME, which decides what the rules leave open") from None
    if chosen in _FLOATS:
        raise BadUsage(
            f"llama-quantize ignores all rules with {chosen} as its file type; give --stock-quant with a quantized one"
        )
    return chosen


def _of_llama_cpp(
    asked: Mapping[str, QuantType], model: Model, imatrix: Imatrix | None, nearest: bool
) -> tuple[dict[str, QuantType], list[str]]:
    """The assignment without types that llama.cpp does not have, and a sentence on each replacement.

    NothingSelected where replacements are not allowed."""

    def allowed(name: str, quant: QuantType) -> bool:
        tensor = model.by_name[name]
        return quant.fits(tensor.columns) and (has_imatrix_data(tensor, imatrix) or not needs_imatrix(name, quant))

    if not any(is_foreign(quant) for quant in asked.values()):
        return dict(asked), []
    types, replaced = replace_foreign(asked, allowed)
    if not nearest:
        raise NothingSelected(
            "the text has types of ik_llama.cpp that llama.cpp does not have: "
            + "; ".join(str(replacement) for replacement in replaced)
            + ". Give --nearest to take these instead, or change the text"
        )
    return types, [f"llama.cpp does not have {each}: taken" for each in replaced]


def _changed(asked: Mapping[str, QuantType], stored: Mapping[str, QuantType], tensors: tuple[Tensor, ...]) -> list[str]:
    return [
        f"{tensor.name} becomes {stored[tensor.name]}, not {asked[tensor.name]} as the rules say (rows of "
        f"{tensor.columns})"
        for tensor in tensors
        if asked.get(tensor.name, stored[tensor.name]) != stored[tensor.name]
    ]


# --- a quantized model


def _from_gguf(other: Model, model: Model, imatrix: Imatrix | None) -> Imported:
    _check_same_shapes(other, model)
    tensors = quantizable(model)
    plan = make_plan(model, {tensor.name: other.by_name[tensor.name].type for tensor in tensors}, imatrix)
    warnings = []
    differing = [name for name, quant in plan.types.items() if other.by_name[name].type != quant]
    if differing:
        name = differing[0]
        warnings.append(
            f"{len(differing)} tensors that llama-quantize only copies have another type in "
            f"{other.path.name}: "
            f"{name} is {other.by_name[name].type} there and stays {plan.types[name]}"
        )
    used = other.metadata.get("quantize.imatrix.file")
    if used and imatrix is None:
        warnings.append(f"{other.path.name} was made with the imatrix {used}; the plan is made without one")
    return Imported(plan, tuple(warnings))


def _check_same_shapes(other: Model, model: Model) -> None:
    if other.architecture != model.architecture:
        raise ModelMismatch(
            f"{other.path.name} is a {other.architecture} model, {model.path.name} is {model.architecture}"
        )
    odd = sorted(other.by_name.keys() ^ model.by_name.keys())
    if odd:
        here, there = (model, other) if odd[0] in model.by_name else (other, model)
        raise ModelMismatch(
            f"{here.path.name} has a tensor {odd[0]}, {there.path.name} has not: they are different models"
        )
    for tensor in model.tensors:
        if other.by_name[tensor.name].shape != tensor.shape:
            raise ModelMismatch(
                f"{tensor.name} has shape {other.by_name[tensor.name].shape} in {other.path.name} and "
                f"{tensor.shape} in "
                f"{model.path.name}: they are different models"
            )
