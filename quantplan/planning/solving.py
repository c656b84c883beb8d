"""A request solved: the plan, exact and with a bound, within all limits of size, damage, memory and speed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quantplan.abilities import check_loadable
from quantplan.build.compensated_rounding import rounding_use
from quantplan.devices import limits
from quantplan.devices.smallest_fit import check_smallest_fits
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadFile, BadUsage, BudgetImpossible
from quantplan.gguf.sized_plan import make_plan
from quantplan.plan import Outcome, Plan
from quantplan.planning.provenance import made_from
from quantplan.planning.request import (
    PlanRequest,
    formulate_request,
    goal_of,
    parse_budget,
    quantizable,
    types_to_estimate,
)
from quantplan.quant_type import QuantType
from quantplan.recipes.layer_types import flags_for
from quantplan.sensitivity.candidates import candidates as storable_types
from quantplan.sensitivity.drafts import with_draft_costs
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable
from quantplan.solver.planner import Formulation, best_answer, check_budget, solve_formulation
from quantplan.solver.search import Solution
from quantplan.tensor import Tensor


def _unchanged(formulation: Formulation) -> Formulation:
    return formulation


def check(request: PlanRequest) -> None:
    """What can be known before anything is measured: a typing mistake must not cost a probe.

    Raises BadUsage, BadFile, NothingSelected, BudgetImpossible.
    """
    check_loadable(request.model)
    tensors = quantizable(request.model)
    no_damage = {
        tensor.name: SensitivityRow(tensor.name, {kind.name: 0.0 for kind in _every_type(request, tensor)})
        for tensor in tensors
    }
    formulation = formulate_request(request, SensitivityTable(request.model.digest, no_damage))
    if request.devices is not None:
        check_smallest_fits(request.model, formulation.grouping, request.devices)
    formulations(replace(request, least_tps=None), formulation, None)
    budget = goal_of(request).budget
    if budget is not None:
        check_budget(request.model, budget, formulation.fixed_bytes + formulation.problem.smallest_bytes)


def _every_type(request: PlanRequest, tensor: Tensor) -> tuple[QuantType, ...]:
    constraints = request.constraints
    named = (*types_to_estimate(request), *(kind for _, kind in constraints.pins))
    return storable_types(tensor, named, request.imatrix)


def plan_for(
    request: PlanRequest,
    table: SensitivityTable,
    speeds: SpeedTable | None = None,
    narrow: Callable[[Formulation], Formulation] = _unchanged,
) -> tuple[Plan, bool]:
    """The plan, and whether everything fits at the largest types. ``least_tps`` needs ``speeds``.

    ``narrow`` adds a condition of the caller's. Raises BudgetImpossible and what ``formulate_request`` raises.
    """
    return plan_of_solved(request, table, solve_request(request, table, speeds, narrow), speeds)


def plan_of_solved(
    request: PlanRequest, table: SensitivityTable, solved: "Solved", speeds: SpeedTable | None
) -> tuple[Plan, bool]:
    """The plan of an answer, and whether everything fits at the largest types."""
    plan = plan_of(request, table, solved.formulation, solved.solution.choices, solved.solution.outcome)
    if request.devices is not None:
        plan = limits.with_devices(plan, request.model, request.devices, solved.formulation.tensor_split)
    if speeds is not None:
        plan = limits.with_speed(plan, speeds)
    return plan, solved.everything_fits


@dataclass(frozen=True)
class Solved:
    """The best of a request's formulations, and whether one of them holds everything at the largest types."""

    formulation: Formulation
    solution: Solution
    everything_fits: bool


def solve_request(
    request: PlanRequest,
    table: SensitivityTable,
    speeds: SpeedTable | None = None,
    narrow: Callable[[Formulation], Formulation] = _unchanged,
) -> Solved:
    """The best answer of all formulations; raises as ``plan_for``."""
    problems = [narrow(each) for each in formulations(request, formulate_request(request, table), speeds)]
    return solve_formulations(request, table, problems)


def solve_formulations(request: PlanRequest, table: SensitivityTable, problems: Sequence[Formulation]) -> Solved:
    """The best answer of a request's formulations, with the bound that holds for all of them."""
    answers, refused = [], []
    priced = with_draft_costs(
        table, request.model
    )  # a limit on the KLD has drafts in it: else they would get the smallest types
    for formulation in problems:
        try:
            answers.append((formulation, solve_formulation(request.model, formulation, goal_of(request), priced)))
        except BudgetImpossible as error:
            refused.append(error)
    if not answers:
        raise refused[-1]  # the smallest copy on the GPU: no other leaves more room
    formulation, best = answers[best_answer([solution for _, solution in answers])]
    bound = min(solution.bound for _, solution in answers)
    gap = (best.objective - bound) / best.objective if best.objective else 0.0
    best = replace(best, outcome=replace(best.outcome, bound=bound, gap=gap))
    return Solved(formulation, best, any(each.everything_fits for each in problems))


def formulations(
    request: PlanRequest, formulation: Formulation, speeds: SpeedTable | None = None
) -> tuple[Formulation, ...]:
    """With the limits on memory and speed: one, or with memory limits one for each size of the largest moved tensor.

    The best answer of all counts. Raises BudgetImpossible where a limit leaves nothing for the weights.
    """
    several: tuple[Formulation, ...] = (formulation,)
    if request.devices is not None:
        several = tuple(limits.within_memory(formulation, request.model, request.devices))
    if request.least_tps is None:
        return several
    if speeds is None:
        raise BadUsage("a limit on tokens per second needs this machine's speeds; run `quantplan speed`")
    return tuple(limits.fast_enough(each, speeds, request.least_tps) for each in several)


def plan_of(
    request: PlanRequest, table: SensitivityTable, formulation: Formulation, choices: Sequence[int], outcome: Outcome
) -> Plan:
    """The plan that these choices make."""
    types = formulation.grouping.types(choices)
    predicted, error = table.predict(formulation.grouping.priced(choices, table))
    budget = parse_budget(request)
    plan = make_plan(
        request.model,
        types,
        request.imatrix and request.imatrix.without(table.without_importance(types)),
        budget_bytes=budget.bytes if budget else None,
        budget_asked=budget.asked if budget else "",
        predicted_kld=predicted,
        predicted_kld_err=error,
        calibrated=table.calibrated,
        outcome=outcome,
        made_from=made_from(request, table),
        limits=formulation.limits(choices),
    )
    stock_rounding, _ = table.with_stock_rounding().predict(formulation.grouping.priced(choices, table))
    plan = _with_rounding(plan, table, stock_rounding)
    if table.domains:
        on_each = table.predict_domains(formulation.grouping.priced(choices, table))
        plan = replace(plan, predicted_domains=on_each)
    if request.per != "layer":
        return plan
    flags = flags_for({name: kind for name, kind in types.items() if request.model.by_name[name].block is None})
    return replace(plan, layer_types=formulation.grouping.layer_types(choices), flags=flags)


def _with_rounding(plan: Plan, table: SensitivityTable, stock_rounding_kld: float) -> Plan:
    """The plan with error-compensated rounding wherever the table has it; ``stock_rounding_kld``: expected without it.

    BadFile where the table does not say which second moments it was measured with: the plan could not be built.
    """
    names = [
        tensor.name
        for tensor in plan.tensors
        if tensor.rule and table.rows[tensor.name].is_compensated(tensor.type.name)
    ]
    if not names:
        return plan
    moments = table.made_from.get("second_moments")
    if not isinstance(moments, dict):
        raise BadFile(
            "the sensitivity table has compensated rounding but not the second moments it was measured with; probe again "
            "with --rounding auto"
        )
    plan = plan.with_compensation(names, rounding_use(moments))
    return replace(plan, stock_rounding_kld=stock_rounding_kld)
