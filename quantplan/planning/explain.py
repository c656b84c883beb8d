"""Why a plan is as it is: its problem formulated again, its prices, and what its constraints cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from quantplan.errors import BadUsage
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest, allowed_types, formulate_request
from quantplan.quant_type import QuantType, fitted
from quantplan.sensitivity.candidates import candidates as storable_types
from quantplan.sensitivity.drafts import stands_for, with_draft_costs
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.bound import prices
from quantplan.solver.constraints import Allowed
from quantplan.solver.explain import CurvePoint, GroupGain, curve, standings, verdict
from quantplan.solver.planner import Formulation
from quantplan.tensor import Tensor, padded


@dataclass(frozen=True)
class ConstraintCost:
    """A constraint that binds: for how many tensors a type that it excludes would be better at the going price, and by how much
    damage net of bytes, in nats per token.
    """

    constraint: str
    tensors: int
    nats: float


@dataclass(frozen=True)
class Explanation:
    """``price``: nats per byte of the file, None where the plan minimised something that has no such price."""

    plan: Plan
    request: PlanRequest
    table: SensitivityTable
    formulation: Formulation
    choices: tuple[int, ...]
    price: float | None
    allowed: Allowed

    @cached_property
    def solver_table(self) -> SensitivityTable:
        """With the costs that blocks which only predict further tokens are decided by."""
        return with_draft_costs(self.table, self.request.model)

    @property
    def drafts(self) -> dict[str, str]:
        """Tensors that only predict further tokens, and those whose costs decide about them."""
        return stands_for(self.request.model, self.table)

    @property
    def free_bytes(self) -> int | None:
        """What the plan leaves of its budget."""
        return None if self.plan.budget_bytes is None else self.plan.budget_bytes - self.plan.file_bytes

    @property
    def standings(self) -> tuple[GroupGain, ...]:
        return standings(self.formulation.problem, self.choices, self.price or 0.0)


@dataclass(frozen=True)
class TensorExplanation:
    """One tensor (or the group that it is tied into): its curve, and why other types are not on it.

    ``stock_damage``: by label of the curve, with ggml's own rounding; only labels that the plan would compensate.
    ``without_importance``: types that are encoded without the imatrix's data; ``encodings``: what was
    measured of both.
    """

    group: str
    tensors: tuple[str, ...]
    rungs: tuple[CurvePoint, ...]
    excluded: dict[str, str]
    verdict: str
    source: str  # of its damages: probed, borrowed, prior, imported
    relative_error: float
    stock_damage: dict[str, float] = field(default_factory=dict)
    without_importance: tuple[str, ...] = ()
    encodings: str = ""


def explain_plan(request: PlanRequest, plan: Plan, table: SensitivityTable) -> Explanation:
    """The plan as the choices of the problem that ``request`` and ``table`` make.

    Raises what ``formulate_request`` raises, and BadUsage for a plan with a type which neither table nor constraints offer.
    """
    table = table if plan.rounding else table.with_stock_rounding()
    formulation = formulate_request(request, table)
    choices = _choices(formulation, plan)
    allowed = allowed_types(request)
    return Explanation(plan, request, table, formulation, choices, _price(plan, formulation, choices), allowed)


def _choices(formulation: Formulation, plan: Plan) -> tuple[int, ...]:
    found = []
    for members, kinds in zip(formulation.grouping.members, formulation.grouping.kinds, strict=True):
        stored = tuple(plan.types[tensor.name] for tensor in members)
        if stored not in kinds:
            raise BadUsage(
                f"the plan stores {members[0].name} as {stored[0]}, which its sensitivity table and constraints do not "
                "allow; give the table that it was made from with --sensitivity FILE, and its imatrix with --imatrix"
            )
        found.append(kinds.index(stored))
    return tuple(found)


def _price(plan: Plan, formulation: Formulation, choices: Sequence[int]) -> float | None:
    """The solver's; for a plan that it did not make, that of a budget of the plan's own size."""
    if plan.outcome.minimised not in ("sum", "bytes"):
        return None
    if "bytes" in plan.outcome.prices:
        return plan.outcome.prices["bytes"]
    return prices(replace(formulation.problem, budget_bytes=formulation.problem.bytes(choices)))["bytes"]


def explain_tensor(found: Explanation, tensor: Tensor) -> TensorExplanation:
    """The curve of the group that the tensor belongs to."""
    at = found.formulation.grouping.of_tensor[tensor.name]
    group, members = found.formulation.problem.groups[at], found.formulation.grouping.members[at]
    rungs = curve(group, found.choices[at])
    row = found.solver_table.rows[tensor.name]
    return TensorExplanation(
        group.name,
        tuple(each.name for each in members),
        rungs,
        _excluded(found, tensor, {rung.label for rung in rungs}) if not found.formulation.grouping.blocks[at] else {},
        verdict(rungs, found.price, found.free_bytes),
        row.source,
        row.relative_error,
        _stock_damage(found, at),
        row.without_importance,
        _encodings(found.table, tensor.name),
    )


def _encodings(table: SensitivityTable, name: str) -> str:
    """What the table says of the swaps of both encodings; empty for a tensor whose importance nothing is wrong with."""
    measured = table.made_from.get("encodings")
    swaps = measured.get(name) if isinstance(measured, dict) else None
    return str(swaps.get("in_words", "")) if isinstance(swaps, dict) else ""


def _stock_damage(found: Explanation, at: int) -> dict[str, float]:
    """By label of the choices of a group that have compensated rounding of some tensor."""
    group, members = found.formulation.problem.groups[at], found.formulation.grouping.members[at]
    damages = {}
    for choice, kinds in zip(group.choices, found.formulation.grouping.kinds[at], strict=True):
        rows = [(found.table.rows[tensor.name], kind.name) for tensor, kind in zip(members, kinds, strict=True)]
        gains = [row.stock[kind] - row.weights[kind] for row, kind in rows if row.is_compensated(kind)]
        if gains:
            damages[choice.label] = choice.damage + sum(gains)
    return damages


def _excluded(found: Explanation, tensor: Tensor, offered: set[str]) -> dict[str, str]:
    """Why each type that the plan was asked to choose from, or the table has, is not offered."""
    row, reasons = found.table.rows[tensor.name], {}
    constrained = found.allowed.excluded[tensor.name]
    for kind in sorted({*found.request.types, *map(_by_name, row.weights)}, key=lambda each: -each.bits):
        if kind.name not in offered:
            reasons[kind.name] = constrained.get(kind.name) or _reason(found, tensor, kind)
    return reasons


def _by_name(name: str) -> QuantType:
    from quantplan.quant_type import quant_type

    return quant_type(name)


def _reason(found: Explanation, tensor: Tensor, kind: QuantType) -> str:
    stored = fitted(kind, tensor.columns)
    if stored != kind:
        return f"rows of {tensor.columns} do not fit: it would be stored as {stored}"
    if kind not in storable_types(tensor, (kind,), found.request.imatrix):
        larger = tensor.bytes_as(kind) > tensor.bytes
        return f"larger than {tensor.type}, as which it is stored now" if larger else "needs imatrix data"
    if kind.name not in found.table.rows[tensor.name].weights:
        return "the sensitivity table has no value for it"
    if kind not in found.allowed.left[tensor.name]:
        return "not among the types to choose from"
    return "not possible for all that are tied to it"


def constraint_costs(found: Explanation) -> tuple[ConstraintCost, ...]:
    """The constraints that bind, the most expensive first: excluded types that the table has a value for, at the going price."""
    if found.price is None:
        return ()
    costs: dict[str, list[float]] = {}
    for tensor in (each for members in found.formulation.grouping.members for each in members):
        row, excluded = found.table.rows[tensor.name], found.allowed.excluded[tensor.name]
        own = _cost(found, tensor, found.plan.types[tensor.name])
        better = {name: own - _cost(found, tensor, _by_name(name)) for name in excluded if name in row.weights}
        if better and max(better.values()) > 0:
            best = max(better, key=lambda name: better[name])
            costs.setdefault(excluded[best], []).append(better[best])
    bound = (ConstraintCost(constraint, len(nats), sum(nats)) for constraint, nats in costs.items())
    return tuple(sorted(bound, key=lambda each: -each.nats))


def _cost(found: Explanation, tensor: Tensor, kind: QuantType) -> float:
    """Damage and the price of the bytes."""
    row = found.solver_table.rows[tensor.name]
    damage = row.damage(kind.name) if kind.name in row.weights else 0.0
    return damage + (found.price or 0.0) * padded(tensor.bytes_as(kind))
