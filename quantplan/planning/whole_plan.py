"""What constraints on the plan as a whole cost: few types, a course over the blocks, ties. Each is left out and solved again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from quantplan.planning.explain import Explanation
from quantplan.planning.solving import solve_request
from quantplan.solver.constraints import Constraints

_LEAST = 1e-4  # of the expected KLD: less is the solver's gap


@dataclass(frozen=True)
class WholePlanCost:
    """``kld``: expected of the plan, ``without``: of the best plan of its budget without the constraint, nats per token."""

    constraint: str
    kld: float
    without: float

    @property
    def share(self) -> float:
        """How much more the plan loses, of what it would lose."""
        return self.kld / self.without - 1 if self.without else 0.0


def whole_plan_costs(found: Explanation) -> tuple[WholePlanCost, ...]:
    """Those that bind, the most expensive first. Known for plans that were solved for the sum of damages within a budget, without
    limits on memory or speed; of others nothing is returned.
    """
    plan, table = found.plan, found.table
    if plan.outcome.minimised != "sum" or plan.outcome.status == "given" or plan.budget_bytes is None or plan.limits:
        return ()
    kld = table.predict(found.formulation.grouping.priced(found.choices, table))[0]
    costs = []
    for name, constraints in _relaxed(found.request.constraints):
        request = replace(found.request, budget=f"{plan.budget_bytes}B", constraints=constraints)
        solved = solve_request(request, table)
        without = table.predict(solved.formulation.grouping.priced(solved.solution.choices, table))[0]
        costs.append(WholePlanCost(name, kld, without))
    return tuple(sorted((each for each in costs if each.share > _LEAST), key=lambda each: -each.share))


def _relaxed(constraints: Constraints) -> Iterator[tuple[str, Constraints]]:
    """Each such constraint as it is typed, and all constraints but that."""
    if constraints.most_types is not None:
        yield f"--max-types {constraints.most_types}", replace(constraints, most_types=None)
    if constraints.course is not None:
        yield f"--{constraints.course}", replace(constraints, course=None)
    if constraints.ties:
        yield " ".join(f"--tie {tie}" for tie in constraints.ties), replace(constraints, ties=())
