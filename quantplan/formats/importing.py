"""Plans from what others publish: LAYER_TYPES, --tensor-type rules, or a quantized GGUF of the same model.

What a text means is asked of llama-quantize itself wherever it has a say: mixes, rules, types that do not
fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import BadFile, BadUsage, ModelMismatch
from quantplan.formats.gguf import read_model
from quantplan.formats.layer_types import (
    EMBEDDINGS,
    OUTPUT,
    LayerTypes,
    looks_like_layer_types,
    parse_layer_types,
    write_flags,
)
from quantplan.formats.planning import make_plan
from quantplan.formats.rules import RuleText, check_all_match, matches, parse_rules, resolve
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import dry_run, known_ftype, mix, quantizable
from quantplan.plan import Plan
from quantplan.quant_type import QuantType, fitted
from quantplan.tensor import Model, Tensor

_FLOATS = ("F32", "F16", "BF16")
_ANY_QUANTIZED = "Q8_0"  # a base for rules that leave nothing to the base


@dataclass(frozen=True)
class Imported:
    """A plan, and what a person should know about how the source was understood."""

    plan: Plan
    warnings: tuple[str, ...]


def import_file(path: Path, model: Model, imatrix: Imatrix | None = None, base: str | None = None) -> Imported:
    """The plan that a file stands for: a GGUF, a LAYER_TYPES text, a rules file or a command line with rules.

    ``base``: the FTYPE whose mix decides what the text leaves open. Raises BadFile for anything else,
    BadUsage where something is left open, NothingSelected for names and types that do not exist,
    ModelMismatch for another model's.
    """
    if _is_gguf(path):
        return _from_gguf(read_model(path), model, imatrix)
    text = _text(path)
    if looks_like_layer_types(text):
        return _from_layer_types(parse_layer_types(text, model.blocks, known_ftype), model, imatrix, base)
    return _from_rules(parse_rules(text), model, imatrix, base)


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
        raise BadFile(f"{path} is {_record(text)}; import takes a GGUF, LAYER_TYPES or --tensor-type rules")
    return text


def _record(text: str) -> str:
    try:
        return f"a {json.loads(text)['format']} file"
    except (ValueError, KeyError, TypeError):
        return "some other JSON"


# --- LAYER_TYPES


def _from_layer_types(layers: LayerTypes, model: Model, imatrix: Imatrix | None, base: str | None) -> Imported:
    warnings = [f"{flag} is in no public source of llama.cpp; it is ignored" for flag in layers.ignored]
    path = imatrix.path if imatrix else None
    mixes = {ftype: mix(model, ftype, path) for ftype in layers.ftypes}
    outside = mix(model, base, path) if base else {}
    ftype_of, named = dict(layers.layers), _named(layers, model)
    assignment: dict[str, QuantType] = {}
    for tensor in quantizable(model):
        left_open = outside if tensor.block is None else mixes[ftype_of[tensor.block]]
        asked = named.get(tensor.name) or left_open.get(tensor.name)
        if asked is None:
            raise BadUsage(
                f"the text does not say how to store {tensor.name}: give --base FTYPE, or add "
                'FLAGS="--token-embedding-type TYPE --output-tensor-type TYPE" to it'
            )
        assignment[tensor.name] = _fitting(tensor, asked, warnings)
    flags = write_flags(layers.token_embedding, layers.output, layers.rules)
    plan = make_plan(model, assignment, imatrix, layer_types=layers.layers, flags=flags)
    return Imported(plan, tuple(warnings))


def _named(layers: LayerTypes, model: Model) -> dict[str, QuantType]:
    """What the flags say of single tensors, in llama-quantize's order: options before rules, but a rule that names
    per_layer_token_embd before the option; where the embeddings are the output, either option can mean them.
    """
    names = [tensor.name for tensor in quantizable(model)]
    check_all_match(layers.rules, names)
    weak = {EMBEDDINGS: layers.output if model.tied else None, "per_layer_token_embd.weight": layers.token_embedding}
    strong = {EMBEDDINGS: layers.token_embedding, OUTPUT: layers.output}
    found = [weak, resolve(layers.rules, names), strong]
    return {name: kind for types in found for name, kind in types.items() if kind}


def _fitting(tensor: Tensor, asked: QuantType, warnings: list[str]) -> QuantType:
    stored = fitted(asked, tensor.columns)
    if stored != asked:
        warnings.append(f"{tensor.name} becomes {stored}: its rows of {tensor.columns} do not fit {asked}")
    return stored


# --- rules


def _from_rules(text: RuleText, model: Model, imatrix: Imatrix | None, base: str | None) -> Imported:
    check_all_match(text.rules, model.by_name)
    tensors = quantizable(model)
    asked = resolve(text.rules, (tensor.name for tensor in tensors)) | _options(text, tensors)
    chosen = known_ftype(base or text.ftype) if base or text.ftype else None
    if chosen in _FLOATS:
        raise BadUsage(
            f"llama-quantize ignores all rules with {chosen} as its file type; give --base with a quantized one"
        )
    open_names = [tensor.name for tensor in tensors if tensor.name not in asked]
    if open_names and chosen is None:
        raise BadUsage(
            f"the rules say nothing about {open_names[0]}"
            + (f" and {len(open_names) - 1} more tensors" if len(open_names) > 1 else "")
            + "; give --base FTYPE, the mix that decides the rest"
        )
    stored = dry_run(
        model.path, chosen or _ANY_QUANTIZED,
        rules=text.rules, imatrix=imatrix and imatrix.path.absolute(), pure=text.pure,
        token_embedding_type=text.token_embedding, output_tensor_type=text.output, allow_requantize=True,
    )  # fmt: skip
    plan = make_plan(model, {tensor.name: stored[tensor.name] for tensor in tensors}, imatrix)
    return Imported(plan, (*_idle(text, model, tensors), *_changed(asked, stored, tensors)))


def _options(text: RuleText, tensors: tuple[Tensor, ...]) -> dict[str, QuantType]:
    """What --token-embedding-type and --output-tensor-type ask for: they come before all rules."""
    pairs = (("token_embd.weight", text.token_embedding), ("output.weight", text.output))
    names = {tensor.name for tensor in tensors}
    return {name: kind for name, kind in pairs if kind and name in names}


def _idle(text: RuleText, model: Model, tensors: tuple[Tensor, ...]) -> list[str]:
    names = {tensor.name for tensor in tensors}
    found = matches(text.rules, model.by_name)
    return [
        f"the rule {rule} names only tensors that llama-quantize never quantizes ({found[rule][0]}); it does nothing"
        for rule in text.rules
        if not names.intersection(found[rule])
    ]


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
    differing = [name for name, kind in plan.types.items() if other.by_name[name].type != kind]
    if differing:
        name = differing[0]
        warnings.append(
            f"{len(differing)} tensors that llama-quantize only copies are stored otherwise in "
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
