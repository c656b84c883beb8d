"""Sentences on what a run decided, and why."""

from quantplan.measurement import Measurement
from quantplan.planning.request import PlanRequest
from quantplan.run.refine import Refinement, testing

NO_STOCK_QUANT = "no stock quant is within the limits"
AS_SOLVED = "the plan as solved"


def not_better(stock_quant: str) -> str:
    return f"the plan is not significantly better than {stock_quant} on the validation text: keeping {stock_quant}"


def worse_at_the_end(stock_quant: str) -> str:
    return f"the plan is worse than {stock_quant} on the evaluation text: keeping {stock_quant}"


def of_refinement(state: Refinement) -> str:
    """Whether the refined plan replaces the plan as solved."""
    if state.test is None:
        return f"{AS_SOLVED}: no other plan was better on the first half of the validation text"
    klds = testing(state.plan.klds)
    change = (
        f"KLD {100 * state.test.difference / (sum(klds) / len(klds)):+.2f} % on the second half of the validation text"
    )
    change += f", p {state.test.p / 2:.2g}"
    if state.withdrawn:
        return f"{AS_SOLVED}: the refined plan ({change}) is worse on the evaluation text"
    if state.counts:
        return f"the refined plan ({change})"
    return f"{AS_SOLVED}: the refined plan is not significantly better ({change})"


def of_round(name: str, number: int, state: Refinement, found_plan: bool) -> str:
    """What one round of refinement brought."""
    if not found_plan:
        return f"{name}, round {number}: the corrected table gives no plan that was not measured yet"
    step = state.steps[-1]
    against = f"KLD {100 * step.relative:+.2f} % against the best so far on the first half of the validation text"
    return f"{name}, round {number}: {against}, {100 * step.moved:.0f} % of the weights changed their type"


def above_target(request: PlanRequest, measured: Measurement) -> str:
    """A warning where the measured KLD is above the one that was allowed, else nothing."""
    if request.most_kld is None or measured.kld.value <= request.most_kld:
        return ""
    return f"; its measured KLD {measured.kld.value:.4g} is above the limit of {request.most_kld:g}, which the prediction kept"
