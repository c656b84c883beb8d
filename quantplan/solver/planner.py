"""The planner: groups, a budget, limits and constraints become a problem; its solution becomes one type for each tensor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quantplan.budget import Budget, human_bytes
from quantplan.errors import BadUsage, BudgetImpossible
from quantplan.plan import Limit
from quantplan.quant_type import QuantType
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver import layers
from quantplan.solver.cardinality import choosing
from quantplan.solver.constraints import Constraints
from quantplan.solver.grouping import Grouping, joined
from quantplan.solver.objective import OBJECTIVES, minimise, smallest_within
from quantplan.solver.problem import Distinct, Problem, Resource
from quantplan.solver.search import Solution
from quantplan.solver.ties import tied_groups
from quantplan.solver.worst_domain import WORST_DOMAIN
from quantplan.tensor import Model, Tensor, padded

COURSES = ("monotone", "valley")
WORST_DOMAIN_GAP = 1e-3  # minutes would prove another tenth; what each text costs is known within some percent


@dataclass(frozen=True)
class Goal:
    """What to minimise and within what.

    ``budget`` None: no limit on the file. ``most_kld``: minimise bytes at that predicted KLD instead of ``objective``.
    """

    budget: Budget | None
    objective: str = "sum"
    most_kld: float | None = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BadUsage(f"--objective {self.objective}: choose {', '.join(OBJECTIVES)}")
        if self.most_kld is not None and self.objective != "sum":
            raise BadUsage("--max-kld minimises the size of the file; leave --objective out")


@dataclass(frozen=True)
class Formulation:
    """A problem, and what its choices stand for. ``fixed_bytes``: of the file, outside all choices.

    ``tensor_split``: blocks on each of several GPUs that its limits are about.
    """

    problem: Problem
    grouping: Grouping
    fixed_bytes: int
    units: dict[str, str]  # of the resources, by name
    tensor_split: tuple[int, ...] = ()

    @property
    def everything_fits(self) -> bool:
        """Whether every group's largest choice keeps all limits."""
        limits = self.problem.limits
        return all(sum(map(max, each.use)) <= each.limit for each in limits) and not self.problem.distinct

    def within(self, budget_bytes: int) -> "Formulation":
        """The same for another size of the file."""
        return replace(self, problem=replace(self.problem, budget_bytes=max(budget_bytes - self.fixed_bytes, 0)))

    def limits(self, choices: Sequence[int]) -> tuple[Limit, ...]:
        return tuple(
            Limit(each.name, self.units[each.name], each.limit, each.used(choices)) for each in self.problem.resources
        )


def formulate(
    grouping: Grouping, fixed: int, budget: Budget | None, constraints: Constraints, order: Sequence[str] = ()
) -> Formulation:
    """Ties joined, and the conditions of the constraints stated. ``order``: FTYPEs from small to large, for a course.

    Raises BadUsage and NothingSelected for constraints that make no sense for these groups.
    """
    grouping = joined(grouping, tied_groups(grouping, constraints.ties))
    layered = any(grouping.blocks)
    if constraints.course and not layered:
        raise BadUsage(f"--{constraints.course} is about whole blocks: give --per layer too")
    chains = (layers.chain(grouping, constraints.course, order),) if constraints.course else ()
    distinct = None
    if constraints.most_types is not None:
        counted = (at for at, blocks in enumerate(grouping.blocks) if blocks or not layered)
        distinct = Distinct(constraints.most_types, tuple(counted))
    problem = Problem(grouping.groups, 0, distinct=distinct, chains=chains)
    room = problem.largest_bytes if budget is None else max(budget.bytes - fixed, 0)
    return Formulation(replace(problem, budget_bytes=room), grouping, fixed, {})


def limited(formulation: Formulation, resource: Resource, unit: str) -> Formulation:
    """With one limit more."""
    problem = replace(formulation.problem, resources=(*formulation.problem.resources, resource))
    return replace(formulation, problem=problem, units=formulation.units | {resource.name: unit})


def keeping(formulation: Formulation, permits: Callable[[Tensor, QuantType], bool]) -> Formulation | None:
    """With only the choices whose every tensor's type is permitted; None where a group has none left. Before ``limited``."""
    grouping, distinct = formulation.grouping, formulation.problem.distinct
    kept = [
        [at for at, each in enumerate(kinds) if all(map(permits, members, each))]
        for members, kinds in zip(grouping.members, grouping.kinds, strict=True)
    ]
    problem = choosing(formulation.problem, kept)
    if problem is None:
        return None
    kinds = tuple(tuple(every[at] for at in index) for every, index in zip(grouping.kinds, kept, strict=True))
    grouping = replace(grouping, groups=problem.groups, kinds=kinds)
    return replace(formulation, problem=replace(problem, distinct=distinct), grouping=grouping)


def best_answer(answers: Sequence[Solution]) -> int:
    """Index of the best of several problems' solutions for one goal; of equals the first."""
    return min(range(len(answers)), key=lambda at: answers[at].objective)


def solve_formulation(
    model: Model, formulation: Formulation, goal: Goal, table: SensitivityTable, gap: float = 1e-6
) -> Solution:
    """The choices that a goal asks for. Raises BudgetImpossible naming the limit in the way and what would do."""
    if goal.budget is not None:
        check_budget(model, goal.budget, formulation.fixed_bytes + formulation.problem.smallest_bytes)
    _check_limits(formulation)
    if goal.most_kld is not None:
        return smallest_within(formulation.problem, formulation.grouping, table, goal.most_kld, gap)
    return minimise(
        formulation.problem, goal.objective, max(gap, WORST_DOMAIN_GAP) if goal.objective == WORST_DOMAIN else gap
    )


def _check_limits(formulation: Formulation) -> None:
    """BudgetImpossible naming the first limit that not even the smallest choices keep, and what would do."""
    for each in formulation.problem.resources:
        least = sum(map(min, each.use))
        if least > each.limit:
            unit = formulation.units[each.name]
            show = human_bytes if unit == "bytes" else _microseconds
            raise BudgetImpossible(
                f"{each.name}: the smallest types take {show(least)}, {show(each.limit)} are left for them; allow "
                f"{show(least - each.limit)} more ({least - each.limit:,} {unit}), or smaller types with --types"
            )


def _microseconds(picoseconds: float) -> str:
    return f"{picoseconds / 1e6:,.1f} us"


def fixed_bytes(model: Model, tensors: tuple[Tensor, ...], metadata_bytes: int) -> int:
    """Bytes of the file that no plan decides: header, and padded data of all tensors that are copied."""
    chosen = {tensor.name for tensor in tensors}
    return metadata_bytes + sum(padded(tensor.bytes) for tensor in model.tensors if tensor.name not in chosen)


def check_budget(model: Model, budget: Budget, smallest: int) -> None:
    """BudgetImpossible naming the smallest file unless its bytes are within the budget."""
    if smallest > budget.bytes:
        raise BudgetImpossible(
            f"no file of {budget.asked} ({budget.bytes:,} bytes) exists for {model.name} with these types: the smallest has "
            f"{smallest:,} bytes ({human_bytes(smallest)}); raise the budget or allow smaller types with --types",
            smallest,
        )
