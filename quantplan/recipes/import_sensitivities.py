"""Sensitivity tables from published measurements: damage(tensor, type) = sensitivity(tensor) * curve(type).

That one curve over types speaks for all tensors is the publishers' assumption, and so is that single damages add up: the level
of a prediction is known to a factor of two at best, and the table says so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantplan.errors import BadUsage, ModelMismatch, NothingSelected
from quantplan.quant_type import QuantType
from quantplan.recipes.ik_types import any_type, is_foreign
from quantplan.recipes.kld_checks import check_curve, check_sensitivities
from quantplan.recipes.published_sensitivities import Published
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor, block_of, role_of

# Sums of single KLDs over the KLD of the whole model are 0.1 to 2.1 in the published tables of Qwen3 and GLM models.
_LEVEL_ERROR = 1.0
_BORROWED_ERROR = 1.0


@dataclass(frozen=True)
class ImportTarget:
    """The model that a table is for, and the tensors that a plan of it decides."""

    model: Model
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class ImportedSensitivities:
    """A table, and what a person should know about how the source was understood."""

    table: SensitivityTable
    warnings: tuple[str, ...]


def sensitivity_table(
    published: Published, target: ImportTarget | None = None, fill: str | None = None, split: bool = True
) -> ImportedSensitivities:
    """The table in types of llama.cpp that tensors can be stored as.

    ``target``: the table is checked against the model, and bound to it where all tensors agree; without one it fits any model
    with these tensors. ``fill``: what to do about tensors without a measurement: None refuses, "role" borrows from the
    nearest blocks of their role, "max" takes the largest measurement where there is no such block. ``split``: tensors that
    were measured together share the measurement evenly, so that its value is counted once; else each counts it whole.
    Tensors that a forward pass does not run (blocks that predict further tokens) cost nothing.

    Raises BadUsage for holes, BadFile for figures that are no KLDs, ModelMismatch for another model's measurements,
    NothingSelected where no type is left.
    """
    _check_klds(published)
    unknown = _check_model(published, target) if target else ()
    kinds, dropped, zero = _kinds(published)
    shares = {name: value for name, value in _shares(published, split).items() if name not in unknown}
    names = [tensor.name for tensor in target.tensors] if target else [*shares, *published.unmeasured]
    idle = {name for name in names if not target.model.runs(target.model.by_name[name])} if target else _drafts(names)
    shares |= dict.fromkeys(idle, 0.0)
    lent = _lent([name for name in names if name not in shares], shares, fill)
    columns = {tensor.name: tensor.columns for tensor in target.tensors} if target else _columns(published)
    rows = {}
    for name in names:
        weights = _weights(name, lent[name] if name in lent else shares[name], published, kinds, columns.get(name))
        error, source = (_BORROWED_ERROR, "borrowed") if name in lent else (0.0, "imported")
        rows[name] = SensitivityRow(name, weights, relative_error=error, source=source)
    digest = target.model.digest if target and not unknown else ""
    made_from = _made_from(published, split, tuple(lent), dropped)
    table = SensitivityTable(digest, rows, Interaction(relative_error=_LEVEL_ERROR), made_from=made_from)
    table = table.described(target.model) if digest and target else table
    return ImportedSensitivities(table, tuple(_warnings(published, split, (unknown, dropped, zero, tuple(lent)))))


def _drafts(names: Sequence[str]) -> set[str]:
    """Without a model: the tensors of blocks that have a ``nextn`` part, which only predict further tokens."""
    blocks = {block_of(name) for name in names if ".nextn." in name}
    return {name for name in names if block_of(name) is not None and block_of(name) in blocks}


def _check_klds(published: Published) -> None:
    names = [str(name) for name in published.source.values()] or ["the table"]
    check_sensitivities(names[0], published.sensitivity.values())
    check_curve(names[1] if len(names) == 2 else names[0], published.curve)


def _warnings(published: Published, split: bool, odd: Sequence[Sequence[str]]) -> Iterator[str]:
    unknown, dropped, zero, lent = odd
    if unknown:
        yield f"{len(unknown)} tensors of the table are not in the model: {_some(unknown)}"
    if dropped:
        yield f"{len(dropped)} types that llama.cpp does not have were left out: {_some(dropped)}"
    if zero:
        yield (
            f"the curve is 0 at {_some(zero)}: the measurements were against a model stored so, which says nothing about that "
            "type nor those near it; it was left out"
        )
    if published.together and split:
        yield f"{len(published.together)} groups were measured together; their tensors share the value evenly"
    if lent:
        yield f"{len(lent)} tensors without a measurement borrow one: {_some(lent)}"


def _check_model(published: Published, target: ImportTarget) -> tuple[str, ...]:
    """The tensors of the table that the model does not have; ModelMismatch where it is another model's."""
    model = target.model
    named = [*published.sensitivity, *published.unmeasured]
    unknown = tuple(name for name in named if name not in model.by_name)
    if len(unknown) > len(named) / 2:
        raise ModelMismatch(
            f"{model.path.name} does not have {len(unknown)} of the {len(named)} tensors that were measured "
            f"({_some(unknown)}): the table belongs to another model"
        )
    for name, shape in published.shapes.items():
        here = model.by_name.get(name)
        if here and here.elements != math.prod(shape):
            raise ModelMismatch(
                f"{name} has shape {here.shape} in {model.path.name} and {shape} where it was measured: it is another model"
            )
    return unknown


def _kinds(published: Published) -> tuple[dict[str, QuantType], tuple[str, ...], tuple[str, ...]]:
    """Label -> type for what llama.cpp and the curve have; the labels that llama.cpp does not have; those at 0.

    A quantized type at 0 was not measured: it is what the measurements were compared with."""
    kinds: dict[str, QuantType] = {}
    dropped, zero = [], []
    for label in published.labels:
        quant = _known(label)
        if quant is None:
            dropped.append(label)
        elif published.curve.get(label) == 0 and quant.block > 1:
            zero.append(label)
        elif label in published.curve:
            kinds[label] = quant
    if not kinds:
        raise NothingSelected(
            f"none of the {len(published.labels)} types that were measured is one of llama.cpp: {_some(published.labels)}"
        )
    return kinds, tuple(dropped), tuple(zero)


def _known(label: str) -> QuantType | None:
    try:
        quant = any_type(label)
    except NothingSelected:
        return None
    return None if is_foreign(quant) else quant


def _shares(published: Published, split: bool) -> dict[str, float]:
    """Sensitivities, those of a group divided by its size: each member carries the KLD of the whole group, and the sum
    over tensors would count it as often. What each contributes was not measured; equal shares favour none."""
    sizes = {name: len(group) for group in published.together for name in group} if split else {}
    return {name: value / sizes.get(name, 1) for name, value in published.sensitivity.items()}


def _columns(published: Published) -> dict[str, int]:
    return {name: shape[0] for name, shape in published.shapes.items()}


def _weights(
    name: str, share: float, published: Published, kinds: Mapping[str, QuantType], columns: int | None
) -> dict[str, float]:
    """Damage by type; a label under which the tensor is stored as something else is no choice for it."""
    otherwise = published.otherwise.get(name, frozenset())
    weights = {
        quant.name: share * published.curve[label]
        for label, quant in kinds.items()
        if label not in otherwise and (columns is None or quant.fits(columns))
    }
    if not weights:
        raise NothingSelected(f"{name} can be stored as none of the types that were measured: {', '.join(kinds)}")
    return weights


def _lent(holes: Sequence[str], shares: Mapping[str, float], fill: str | None) -> dict[str, float]:
    """For each hole the geometric mean of the two nearest blocks' measurements of the same role."""
    if holes and fill is None:
        raise BadUsage(
            f"the table has no measurement of {_some(holes)} ({len(holes)} tensors). Nearest choices: --fill role borrows "
            "from the nearest blocks of their role, --fill max takes the largest measurement where no block has one"
        )
    roles: dict[str, list[tuple[int, float]]] = {}
    for name, value in shares.items():
        block, role = _place(name)
        if value > 0:
            roles.setdefault(role, []).append((block, value))
    return {name: _mean_of_nearest(name, roles, fill) for name in holes}


def _mean_of_nearest(name: str, roles: Mapping[str, list[tuple[int, float]]], fill: str | None) -> float:
    block, role = _place(name)
    near = sorted((abs(other - block), value) for other, value in roles.get(role, []))[:2]
    if near:
        return math.exp(sum(math.log(value) for _, value in near) / len(near))
    largest = max((value for values in roles.values() for _, value in values), default=None)
    if largest is None:
        raise BadUsage(f"nothing can fill {name}: no measurement in the table is above 0")
    if fill == "max":
        return largest
    raise BadUsage(
        f"--fill role cannot fill {name}: no tensor of its role was measured; --fill max takes the largest measurement for it"
    )


def _place(name: str) -> tuple[int, str]:
    return block_of(name) or 0, role_of(name)


def _made_from(published: Published, split: bool, filled: Sequence[str], dropped: Sequence[str]) -> dict[str, object]:
    counted = "each value shared evenly" if split else "each value counted by every tensor"
    return {
        "imported_from": dict(published.source),
        "model": "sensitivity of the tensor times one curve over types; a plain sum over tensors",
        "degraded_to": published.degraded_to,
        "measured_together": f"{len(published.together)} groups, {counted}" if published.together else "none",
        "filled": list(filled),
        "types_left_out": list(dropped),
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
