"""The planner: a damage table, a budget and wishes become a problem; its solution becomes one type for each tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantplan.budget import Budget, human_bytes
from quantplan.damage import DamageTable
from quantplan.errors import BudgetImpossible, NothingSelected
from quantplan.quant_type import QuantType, fitted
from quantplan.selector import Selector
from quantplan.solve.problem import Choice, Group, Problem
from quantplan.solve.program import Solution, solve
from quantplan.tensor import Model, Tensor, padded

Candidates = Mapping[str, tuple[QuantType, ...]]


@dataclass(frozen=True)
class Wishes:
    """``pins``: these tensors take exactly this type; ``floors``: at least as many bits as this type has."""

    pins: tuple[tuple[Selector, QuantType], ...] = ()
    floors: tuple[tuple[Selector, QuantType], ...] = ()


def fixed_bytes(model: Model, tensors: tuple[Tensor, ...], metadata_bytes: int) -> int:
    """Bytes of the file that are not up for choice: header, and padded data of all tensors that are copied."""
    chosen = {tensor.name for tensor in tensors}
    return metadata_bytes + sum(padded(tensor.bytes) for tensor in model.tensors if tensor.name not in chosen)


def allowed(tensors: tuple[Tensor, ...], candidates: Candidates, wishes: Wishes) -> dict[str, tuple[QuantType, ...]]:
    """The candidates that pins and floors leave; later pins override earlier ones.

    NothingSelected where a selector matches nothing or nothing is left for a tensor.
    """
    left = {tensor.name: tuple(candidates[tensor.name]) for tensor in tensors}
    for selector, kind in wishes.floors:
        for tensor in selector.select(tensors):
            least = fitted(kind, tensor.columns).bits
            left[tensor.name] = tuple(each for each in left[tensor.name] if each.bits >= least)
            if not left[tensor.name]:
                raise NothingSelected(
                    f"--min {selector.text}={kind}: no allowed type has so many bits for {tensor.name}; add one to --types"
                )
    for selector, kind in wishes.pins:
        for tensor in selector.select(tensors):
            left[tensor.name] = (fitted(kind, tensor.columns),)
    return left


def tensor_groups(tensors: tuple[Tensor, ...], left: Candidates, table: DamageTable) -> tuple[Group, ...]:
    """A group per tensor, sizes padded as they lie in the file.

    Types without a damage value are no choice; a tensor with no choice left raises NothingSelected.
    """
    groups = []
    for tensor in tensors:
        row = table.rows[tensor.name]
        choices = tuple(
            Choice(kind.name, padded(tensor.bytes_as(kind)), row.damage(kind.name))
            for kind in left[tensor.name]
            if kind.name in row.weights
        )
        if not choices:
            names = ", ".join(kind.name for kind in left[tensor.name]) or "nothing"
            raise NothingSelected(
                f"{tensor.name}: the damage table has no value for {names} (it has {', '.join(row.weights)}); "
                "choose others with --types"
            )
        groups.append(Group(tensor.name, choices))
    return tuple(groups)


def solve_within(
    model: Model, groups: tuple[Group, ...], fixed: int, budget: Budget, gap: float = 1e-6
) -> tuple[Solution, bool]:
    """The choices of least damage within the budget, and whether the largest choices fit as well.

    ``fixed``: bytes of the file that no choice changes. Raises BudgetImpossible naming the smallest file.
    """
    problem = Problem(groups, max(budget.bytes - fixed, 0))
    check_budget(model, budget, fixed + problem.smallest_bytes)
    return solve(problem, gap), problem.largest_bytes <= problem.budget_bytes


def check_budget(model: Model, budget: Budget, smallest: int) -> None:
    """BudgetImpossible naming the smallest file unless its bytes are within the budget."""
    if smallest > budget.bytes:
        raise BudgetImpossible(
            f"no file of {budget.asked} ({budget.bytes:,} bytes) exists for {model.name} with these types: the smallest has "
            f"{smallest:,} bytes ({human_bytes(smallest)}); raise the budget or allow smaller types with --types",
            smallest,
        )
