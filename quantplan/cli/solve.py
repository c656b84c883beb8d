"""`quantplan solve`: from a budget or a target to a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from quantplan.cli import console, options
from quantplan.cli import plan_requests as planned
from quantplan.cli.framework import OutputOptions, command, out_option
from quantplan.cli.options import CalibrationOptions, ExecutionOptions, ImatrixOptions, ModelOptions
from quantplan.cli.plan_options import BudgetOption, ConstraintOptions, LimitOptions, MeasuringOptions, TargetOptions
from quantplan.cli.plan_output import default_plan_path, plan_name, print_plan
from quantplan.errors import BadUsage
from quantplan.planning import request as planning
from quantplan.planning.kept_tables import keep_table
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.records.formats import PLANS


@command
def solve(
    *,
    budget: BudgetOption = None,
    target: TargetOptions,
    model: ModelOptions,
    imatrix: ImatrixOptions,
    calibration: CalibrationOptions,
    constraints: ConstraintOptions,
    limits: LimitOptions,
    measuring: MeasuringOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    out: Annotated[Path | None, out_option("Plan file (default: plans/MODEL-BUDGET.json).")] = None,
) -> None:
    """Choose a type for every tensor: the least expected KLD within the budget, proven by integer programming.

    What is not in the cache is measured first: the rounding error of every type, and with a calibration text the probe.

    SELECTOR is a role (attn_v), a name (output.weight), a glob (blk.1?.ffn_*) or a regular expression between slashes.

    Example, in a project: quantplan solve --budget 5bpw --min-type output=Q6_K
    """
    if budget is None and target.max_kld is None and not limits.limits_memory and limits.min_tps is None:
        raise BadUsage("how large may the file be? give --budget, --vram, or a target: --max-kld, --min-tps")
    limits, probing = planned.serving(limits, measuring)
    request = planned.plan_request(model, imatrix, target, constraints, limits, budget)
    how = probing.estimation(request.model, planning.types_to_estimate(request), execution)
    if output.dry_run:
        console.put(_intentions(request, planned.sensitivity_source(measuring.sensitivity, calibration)))
        return
    table = planned.sensitivity_table(request, how, measuring.sensitivity, calibration)
    plan, everything_fits = plan_for(request, table, planned.speeds(request, how.types, execution))
    if everything_fits and budget is not None and target.max_kld is None:
        console.warn(
            f"the budget exceeds the largest file that these types make ({plan.file_bytes:,} bytes): that file is the plan"
        )
    if not plan.calibrated:
        console.warn("not calibrated: sensitivities are a prior, not measured; give --calibration TEXT to probe")
    path = out or default_plan_path(request.model, plan_name(request))
    PLANS.write(plan, path)
    keep_table(table, options.cache_folder())  # for `quantplan explain`
    print_plan(plan, request.model, path, output.as_json)


def _intentions(request: PlanRequest, source: str) -> str:
    budget, devices = planning.parse_budget(request), request.devices
    within = [f"{budget.bytes:,} bytes"] if budget else []
    within += [f"an expected KLD of {request.most_kld:g}"] if request.most_kld else []
    within += [f"{devices.vram:,} bytes of VRAM"] if devices and devices.vram else []
    within += [f"{devices.ram:,} bytes of RAM"] if devices and devices.ram else []
    within += [f"{request.least_tps:g} tokens/s"] if request.least_tps else []
    tensors = len(planning.quantizable(request.model))
    return (
        f"would choose among {len(request.types)} types for {tensors} tensors within {' and '.join(within)}; "
        f"sensitivities from: {source}"
    )
