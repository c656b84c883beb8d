"""Plans from quantized files of the same model, whoever made them."""

from collections.abc import Iterator, Sequence

from quantplan.errors import ModelMismatch
from quantplan.gguf.sized_plan import make_plan
from quantplan.imatrix import Imatrix
from quantplan.llamacpp.quantize import quantizable, stock_quant
from quantplan.plan import Plan
from quantplan.tensor import Model


def plan_of_gguf(other: Model, model: Model, imatrix: Imatrix | None, base: str | None) -> tuple[Plan, tuple[str, ...]]:
    """The plan with the types of all tensors that both files have, and warnings about what only one of them has: published
    files may lack blocks that predict further tokens, or hold tables that converters add. ``base``: the stock quant that
    gives types to the tensors that ``other`` lacks; else they stay as stored. ModelMismatch, see ``check_same_model``.
    """
    check_same_model(other, model)
    tensors = quantizable(model)
    missing = [tensor.name for tensor in tensors if tensor.name not in other.by_name]
    instead = stock_quant(model, base, imatrix.path if imatrix else None) if base and missing else {}
    types = {
        tensor.name: other.by_name[tensor.name].type
        if tensor.name in other.by_name
        else instead.get(tensor.name, tensor.type)
        for tensor in tensors
    }
    plan = make_plan(model, types, imatrix)
    return plan, (*_one_sided(other, model, missing, base), *_as_stored(other, plan), *_without_imatrix(other, imatrix))


def check_same_model(other: Model, model: Model) -> None:
    """ModelMismatch where a tensor has another shape in the two, or not even half of the names agree. Fewer differences prove
    nothing: llama-quantize passes over tensors that it is not asked about."""
    shared = [tensor for tensor in model.tensors if tensor.name in other.by_name]
    for tensor in shared:
        if other.by_name[tensor.name].shape != tensor.shape:
            raise ModelMismatch(
                f"{tensor.name} has shape {other.by_name[tensor.name].shape} in {other.path.name} and {tensor.shape} in "
                f"{model.path.name}: they are different models"
            )
    if 2 * len(shared) < len(model.tensors):
        kinds = "" if other.architecture == model.architecture else f" ({other.architecture} and {model.architecture})"
        raise ModelMismatch(
            f"{other.path.name} has {len(shared)} of the {len(model.tensors)} tensors of {model.path.name}{kinds}: they are "
            "different models"
        )


def _one_sided(other: Model, model: Model, missing: Sequence[str], base: str | None) -> Iterator[str]:
    if other.architecture != model.architecture:
        yield f"{other.path.name} is a {other.architecture} model, {model.path.name} is {model.architecture}"
    lacking = [tensor.name for tensor in model.tensors if tensor.name not in other.by_name]
    if lacking:
        blocks = {tensor.block for tensor in model.tensors if tensor.name not in other.by_name}
        further = [block for block in range(model.main_blocks, model.blocks) if block in blocks]
        why = f"; block {further[0]} predicts further tokens (MTP)" if further else ""
        how = (
            f"as in {base.upper()}"
            if base
            else "stay as stored, --stock-quant NAME gives them the types of a stock quant"
        )
        yield (
            f"{other.path.name} does not have {len(lacking)} tensors of {model.path.name} ({_some(lacking)}){why}: "
            f"{len(missing)} that llama-quantize would quantize {how}"
        )
    extra = [tensor.name for tensor in other.tensors if tensor.name not in model.by_name]
    if extra:
        yield f"{other.path.name} has {len(extra)} tensors that are not in {model.path.name}, which are ignored: {_some(extra)}"


def _as_stored(other: Model, plan: Plan) -> Iterator[str]:
    pairs = ((name, quant, other.by_name[name].type) for name, quant in plan.types.items() if name in other.by_name)
    differing = [(name, quant, there) for name, quant, there in pairs if quant != there]
    if differing:
        name, quant, there = differing[0]
        yield (
            f"{len(differing)} tensors that llama-quantize only copies have another type in {other.path.name}: {name} is "
            f"{there} there and stays {quant}"
        )


def _without_imatrix(other: Model, imatrix: Imatrix | None) -> Iterator[str]:
    used = other.metadata.get("quantize.imatrix.file")
    if used and imatrix is None:
        yield f"{other.path.name} was made with the imatrix {used}; the plan is made without one"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
