"""What a plan or a GGUF stores each tensor as: all that two of them can be compared by."""

from dataclasses import dataclass
from pathlib import Path

from quantplan.errors import ModelMismatch
from quantplan.gguf.reader import read_model
from quantplan.plan import Plan
from quantplan.quant_type import QuantType
from quantplan.records.formats import PLANS
from quantplan.tensor import Model, Tensor
from quantplan.text_files import is_gguf


@dataclass(frozen=True)
class TensorTypes:
    """Types and bytes (without padding) by tensor, in the file's order. Of a GGUF the ``model``, of a plan the ``plan``."""

    path: Path
    types: dict[str, QuantType]
    bytes: dict[str, int]
    file_bytes: int
    model: Model | None = None
    plan: Plan | None = None


def read_tensor_types(path: Path) -> TensorTypes:
    """Of a plan file or a GGUF (any shard); BadFile for anything else."""
    return _of_model(path, read_model(path)) if is_gguf(path) else _of_plan(path, PLANS.read(path))


def _of_model(path: Path, model: Model) -> TensorTypes:
    types = {each.name: each.type for each in model.tensors}
    return TensorTypes(path, types, {each.name: each.bytes for each in model.tensors}, model.file_bytes, model=model)


def _of_plan(path: Path, plan: Plan) -> TensorTypes:
    return TensorTypes(path, plan.types, {each.name: each.bytes for each in plan.tensors}, plan.file_bytes, plan=plan)


def check_same_model(one: TensorTypes, other: TensorTypes) -> None:
    """ModelMismatch, saying by what, unless both are of the same model.

    Two plans name their model by its digest. A GGUF that was quantized has lost it: shapes must agree, and half of the names.
    """
    if one.plan and other.plan and one.plan.model_digest != other.plan.model_digest:
        raise ModelMismatch(
            f"{one.path} was made for {one.plan.model_name} (digest {one.plan.model_digest[:12]}), {other.path} for "
            f"{other.plan.model_name} (digest {other.plan.model_digest[:12]}); plans of different models do not compare"
        )
    shared = [name for name in one.types if name in other.types]
    if 2 * len(shared) < max(len(one.types), len(other.types)):
        odd = min(one.types.keys() ^ other.types.keys())
        here, there = (one, other) if odd in one.types else (other, one)
        raise ModelMismatch(
            f"{one.path} and {other.path} have {len(shared)} tensors in common ({here.path} has {odd}, {there.path} has not): "
            "they are of different models"
        )
    for name in shared:
        if not _alike(name, one, other):
            raise ModelMismatch(
                f"{name} has another shape in {one.path} than in {other.path}: they are of different models"
            )


def _alike(name: str, one: TensorTypes, other: TensorTypes) -> bool:
    """Whether the tensor can have one shape in both; a plan knows its type and bytes alone."""
    shapes = [each.model.by_name[name] for each in (one, other) if each.model]
    if len(shapes) == 2:
        return shapes[0].shape == shapes[1].shape
    if not shapes:
        return one.types[name] != other.types[name] or one.bytes[name] == other.bytes[name]
    planned = other if one.model else one
    return _fits(shapes[0], planned.types[name]) and shapes[0].bytes_as(planned.types[name]) == planned.bytes[name]


def _fits(tensor: Tensor, kind: QuantType) -> bool:
    return kind.fits(tensor.columns)
