"""`quantplan solve`: from a budget or a target to a plan."""

from pathlib import Path

from quantplan.cli import console, options
from quantplan.cli.cache_options import AutoCacheOptions
from quantplan.cli.framework import OutputOptions, command, out_option
from quantplan.cli.plan_options import budget_option
from quantplan.cli.plan_output import default_plan_path, plan_name, print_plan
from quantplan.cli.plan_requests import PlanningOptions
from quantplan.devices.memory_formulas import possible_caches
from quantplan.errors import BadUsage
from quantplan.planning import request as planning
from quantplan.planning.cache_choice import plan_with_cache
from quantplan.planning.kept_tables import keep_table
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.records.formats import PLANS


@command
def solve(
    *,
    budget: str | None = budget_option(),
    asked: PlanningOptions,
    cache: AutoCacheOptions,
    output: OutputOptions,
    out: Path | None = out_option("Plan file (default: plans/MODEL-BUDGET.json)."),
) -> None:
    """Choose a type for every tensor: the least expected KLD within the budget, proven by integer programming.

    What is not in the cache is measured first: the rounding error of every type, and with a calibration text the probe.

    With --vram and --kv auto the types of the KV cache are chosen too: the KLD of the unquantized model with each pair
    is measured once on long chunks and joins the objective, and the best total is proven best.

    SELECTOR is a role (attn_v), a name (output.weight), a glob (blk.1?.ffn_*) or a regular expression between slashes.

    Example, in a project: quantplan solve --budget 5bpw --min-type output=Q6_K
    """
    if budget is None and not asked.limited:
        raise BadUsage("how large may the file be? give --budget, --vram, or a target: --max-kld, --min-tps")
    asked = asked.serving()
    request = asked.request(budget, automatic_cache=True)
    how = asked.estimation(request)
    if output.dry_run:
        console.put(_intentions(request, asked.source, asked.limits.automatic))
        return
    table, caches = asked.sensitivities(request, how), None
    if asked.limits.automatic:
        caches = asked.cache_sensitivity(request, cache)
    speeds = asked.speeds(request, how.types)
    plan, everything_fits = (
        plan_with_cache(request, table, caches, speeds) if caches else plan_for(request, table, speeds)
    )
    if everything_fits and budget is not None and request.most_kld is None:
        console.warn(
            f"the budget exceeds the largest file that these types make ({plan.file_bytes:,} bytes): that file is the plan"
        )
    if not plan.calibrated:
        console.warn("not calibrated: sensitivities are a prior, not measured; give --calibration TEXT to probe")
    path = out or default_plan_path(request.model, plan_name(request))
    PLANS.write(plan, path)
    keep_table(table, options.cache_folder())  # for `quantplan explain`
    print_plan(plan, request.model, path, output.as_json)


def _intentions(request: PlanRequest, source: str, with_cache: bool) -> str:
    budget, devices = planning.parse_budget(request), request.devices
    within = [f"{budget.bytes:,} bytes"] if budget else []
    within += [f"an expected KLD of {request.most_kld:g}"] if request.most_kld else []
    within += [f"{devices.vram:,} bytes of VRAM"] if devices and devices.vram else []
    within += [f"{devices.ram:,} bytes of RAM"] if devices and devices.ram else []
    within += [f"{request.least_tps:g} tokens/s"] if request.least_tps else []
    tensors = len(planning.quantizable(request.model))
    caches = f" and {len(possible_caches(request.model))} pairs of KV cache types" if with_cache else ""
    return (
        f"would choose among {len(request.types)} types for {tensors} tensors{caches} within {' and '.join(within)}; "
        f"sensitivities from: {source}"
    )
