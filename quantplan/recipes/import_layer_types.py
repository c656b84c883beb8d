"""Plans from LAYER_TYPES: llama-quantize says what a stock quant gives each block, flags and names say the rest."""

from collections.abc import Iterator, Mapping

from quantplan.errors import BadUsage
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import quantizable, stock_quant
from quantplan.plan import Plan
from quantplan.quant_type import QuantType, fitted
from quantplan.recipes.layer_types import EMBEDDINGS, OUTPUT, LayerTypes, write_flags
from quantplan.recipes.rules import matches, resolve
from quantplan.tensor import Model, Tensor

_OTHER_FLAGS = ("--allow-requantize", "--imatrix", "--keep-split", "--override-kv")


def plan_of_layer_types(
    layers: LayerTypes, model: Model, imatrix: Imatrix | None, base: str | None
) -> tuple[Plan, tuple[str, ...]]:
    """The plan and warnings. ``base``: the stock quant of what the text leaves open. BadUsage where something is left open."""
    warnings = [*_warnings(layers, model, base)]
    asked = _asked(layers, model, imatrix, base)
    tensors = quantizable(model)
    open_names = [tensor.name for tensor in tensors if tensor.name not in asked]
    if open_names:
        raise BadUsage(
            f"the text does not say how to store {open_names[0]}: give --stock-quant NAME, or add "
            'FLAGS="--token-embedding-type TYPE --output-tensor-type TYPE" to it'
        )
    assignment = {tensor.name: _fitting(tensor, asked[tensor.name], warnings) for tensor in tensors}
    flags = write_flags(layers.token_embedding, layers.output, layers.rules)
    extended = {name: str(each) for name, each in layers.extended.items()}
    made_from = {"layer_names": extended} if extended else {}
    plan = make_plan(model, assignment, imatrix, layer_types=layers.layers, flags=flags, made_from=made_from)
    return plan, tuple(warnings)


def _asked(layers: LayerTypes, model: Model, imatrix: Imatrix | None, base: str | None) -> dict[str, QuantType]:
    """The type that the text asks for, by tensor: flags and rules, then the layer's, then the base's. Blocks that predict further
    tokens and are not named stay as stored."""
    path = imatrix.path if imatrix else None
    stock_quants = {ftype: stock_quant(model, ftype, path) for ftype in layers.ftypes}
    asked: dict[str, QuantType] = dict(stock_quant(model, base, path)) if base else {}
    meaning = {block: layers.names[name] for block, name in layers.layers}
    for tensor in quantizable(model):
        if tensor.block in meaning:
            layer = meaning[tensor.block]
            asked[tensor.name] = layer.type_of(tensor.role) or stock_quants[layer.base][tensor.name]
        elif tensor.block is not None:
            asked.setdefault(tensor.name, tensor.type)
    return asked | _named(layers, model)


def _warnings(layers: LayerTypes, model: Model, base: str | None) -> Iterator[str]:
    yield from (_ignored(flag) for flag in layers.ignored)
    for rule, names in matches(layers.rules, model.by_name).items():
        if not names:
            yield f"--tensor-type {rule} matches no tensor of the model; llama-quantize passes over it"
    if layers.lists > 1:
        yield f"the text holds {layers.lists} LAYER_TYPES lists; the first was read, cut it away to read the next"
    named = {block for block, _ in layers.layers}
    unnamed = [tensor for tensor in quantizable(model) if tensor.block is not None and tensor.block not in named]
    if unnamed:
        as_stored = "stay as stored, --stock-quant NAME gives them the types of a stock quant"
        yield (
            f"LAYER_TYPES does not name layer {unnamed[0].block}, which predicts further tokens (MTP): {len(unnamed)} tensors "
            f"{f'as in {base.upper()}' if base else as_stored}"
        )


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
