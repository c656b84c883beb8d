"""From options to a plan: prices the tensors, solves, and writes down what the plan was made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from quantplan import __version__
from quantplan.budget import Budget
from quantplan.damage import DamageTable
from quantplan.errors import BadUsage
from quantplan.experiments import pricing
from quantplan.experiments.build import stock_plan
from quantplan.formats.gguf import metadata_bytes, shard_paths
from quantplan.formats.planning import imatrix_note, imatrix_use, lacking_imatrix, make_plan
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import quantize
from quantplan.plan import Outcome, Plan
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.solve import layers
from quantplan.solve.planner import Wishes, allowed, check_budget, fixed_bytes, solve_within, tensor_groups
from quantplan.tensor import Model, Tensor, padded

# one mix of each size and kind; S and L variants give layer mode its fine steps
LAYER_FTYPES = (
    "IQ2_M", "Q2_K", "IQ3_XXS", "IQ3_XS", "Q3_K_S", "IQ3_S", "IQ3_M", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_K_S", "Q4_K_M",
    "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What is to be planned. ``per``: "tensor" or "layer"; ``command`` goes into the plan's provenance."""

    model: Model
    imatrix: Imatrix | None
    types: tuple[QuantType, ...]
    budget: str
    wishes: Wishes = Wishes()
    per: str = "tensor"
    command: str = ""


def quantizable(model: Model) -> tuple[Tensor, ...]:
    """The tensors that a plan decides; BadUsage where there are none."""
    tensors = quantize.quantizable(model)
    if not tensors:
        raise BadUsage(f"{model.path}: llama-quantize would quantize no tensor of this model; is it a language model?")
    return tensors


def types_to_price(request: Request) -> tuple[QuantType, ...]:
    """The candidate types, those that pins name, and in layer mode those that the mixes consist of; largest first."""
    names = {kind.name: kind for kind in request.types} | {kind.name: kind for _, kind in request.wishes.pins}
    if request.per == "layer":
        planned = {tensor.name for tensor in quantizable(request.model)}
        mixes = layer_mixes(request)
        names |= {kind.name: kind for types in mixes.values() for name, kind in types.items() if name in planned}
    return tuple(sorted(names.values(), key=lambda kind: (-kind.bits, kind.name)))


def layer_mixes(request: Request) -> dict[str, dict[str, QuantType]]:
    """What each FTYPE that the candidate types allow makes of the model; mixes that need a missing imatrix are left out."""
    names = {kind.name for kind in request.types}
    imatrix = request.imatrix.path if request.imatrix else None
    mixes = {
        ftype: quantize.mix(request.model, ftype, imatrix) for ftype in LAYER_FTYPES if _ftype_allowed(ftype, names)
    }
    possible = {
        ftype: types for ftype, types in mixes.items() if not lacking_imatrix(request.model, types, request.imatrix)
    }
    if not possible:
        raise BadUsage("layer mode: none of the FTYPE mixes can be made of the --types given; allow more types")
    return possible


def parse_budget(request: Request) -> Budget:
    """The budget in bytes; the name of a stock mix such as Q4_K_M means the size of that mix, made with the same imatrix."""
    if request.budget.strip().upper() in quantize.ftypes():
        return Budget(
            stock_plan(request.model, request.budget.strip(), request.imatrix).file_bytes, request.budget.strip()
        )
    if request.budget.startswith("="):
        shards = shard_paths(Path(request.budget[1:].strip()).expanduser())
        return Budget(sum(Budget.parse(f"={each}", request.model).bytes for each in shards), request.budget)
    note = imatrix_note(imatrix_use(request.imatrix)) if request.imatrix else None
    return Budget.parse(request.budget, request.model, metadata_bytes(request.model, note))


def check(request: Request) -> None:
    """What can be known before anything is measured: a typing mistake shall not cost a probe.

    Raises BadUsage, BadFile, NothingSelected, BudgetImpossible.
    """
    model, budget, tensors = request.model, parse_budget(request), quantizable(request.model)
    if request.per == "layer":
        _check_layer_mode(request)
        layer_mixes(request)
        return
    left = _left(request, tensors)
    smallest = sum(min(padded(tensor.bytes_as(kind)) for kind in left[tensor.name]) for tensor in tensors)
    check_budget(model, budget, _fixed(request, tensors) + smallest)


def _left(request: Request, tensors: tuple[Tensor, ...]) -> dict[str, tuple[QuantType, ...]]:
    """What types and wishes leave to each tensor; NothingSelected where that is nothing."""
    candidates = {tensor.name: pricing.candidates(tensor, request.types, request.imatrix) for tensor in tensors}
    left = allowed(tensors, candidates, request.wishes)
    for tensor in tensors:
        pricing.check_storable(tensor, left[tensor.name] or request.types, request.imatrix)
    return left


def _fixed(request: Request, tensors: tuple[Tensor, ...]) -> int:
    note = imatrix_note(imatrix_use(request.imatrix)) if request.imatrix else None
    return fixed_bytes(request.model, tensors, metadata_bytes(request.model, note))


def plan_for(request: Request, table: DamageTable) -> tuple[Plan, bool]:
    """The plan, and whether everything fits at the largest types.

    Raises ModelMismatch for a table without a row for some tensor, BudgetImpossible, NothingSelected.
    """
    model, budget = request.model, parse_budget(request)
    tensors = quantizable(model)
    table.check_belongs_to(model, (tensor.name for tensor in tensors))
    fixed = _fixed(request, tensors)
    if request.per == "layer":
        return _layer_plan(request, table, tensors, fixed, budget)
    groups = tensor_groups(tensors, _left(request, tensors), table)
    solution, everything_fits = solve_within(model, groups, fixed, budget)
    labels = (group.choices[index].label for group, index in zip(groups, solution.choices, strict=True))
    types = {group.name: BY_NAME[label] for group, label in zip(groups, labels, strict=True)}
    return _finished(request, table, types, solution.outcome, budget), everything_fits


def _layer_plan(
    request: Request, table: DamageTable, tensors: tuple[Tensor, ...], fixed: int, budget: Budget
) -> tuple[Plan, bool]:
    _check_layer_mode(request)
    grouped = layers.layer_groups(tensors, layer_mixes(request), table, request.types)
    solution, everything_fits = solve_within(request.model, grouped.groups, fixed, budget)
    plan = _finished(request, table, grouped.types(solution.choices), solution.outcome, budget)
    return replace(
        plan, layer_types=grouped.layer_types(solution.choices), flags=grouped.flags(solution.choices)
    ), everything_fits


def _check_layer_mode(request: Request) -> None:
    if request.wishes != Wishes():
        raise BadUsage(
            "--pin and --min speak of tensors, layer mode chooses a mix for each block; leave them out or plan per tensor"
        )


def _ftype_allowed(ftype: str, names: set[str]) -> bool:
    """Whether the main type of a mix is among the types to choose from: Q4_K_M needs Q4_K."""
    return ftype in names or ftype.rsplit("_", 1)[0] in names or (ftype == "IQ2_M" and "IQ2_S" in names)


def _finished(
    request: Request, table: DamageTable, types: dict[str, QuantType], outcome: Outcome, budget: Budget
) -> Plan:
    predicted, error = table.predict({name: kind.name for name, kind in types.items()})
    made_from = table.made_from | {
        "quantplan": __version__,
        "command": request.command,
        "types": [kind.name for kind in request.types],
        "backend": table.backend,
        "per": request.per,
    }
    return make_plan(
        request.model, types, request.imatrix,
        budget_bytes=budget.bytes, budget_asked=budget.asked, predicted_kld=predicted, predicted_kld_err=error,
        calibrated=table.calibrated, outcome=outcome, made_from=made_from,
    )  # fmt: skip
