"""`quantplan solve`: from a budget or a target to a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli import constraint_options as asked
from quantplan.cli.probe_options import ChunksOption, SampleOption

if TYPE_CHECKING:
    from quantplan.planning.request import PlanRequest


def solve(
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            "-b",
            help="File size: 17.9GB, 16.7GiB, 4.25bpw, 40%, =other.gguf or Q4_K_M (as large as that mix).",
        ),
    ] = None,
    max_kld: Annotated[
        float | None, typer.Option("--max-kld", help="The smallest file of at most this expected KLD (nats/token).")
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="Minimise the sum of damages, their tail (root of squares), or the max.")
    ] = "sum",
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    calibration: options.CalibrationOption = None,
    types: options.TypesOption = "all",
    pin: asked.PinOption = None,
    minimum: asked.FloorOption = None,
    maximum: asked.CeilingOption = None,
    only: asked.OnlyOption = None,
    tie: asked.TieOption = None,
    max_types: asked.MostTypesOption = None,
    allow_1_bit: asked.OneBitOption = False,
    per: asked.PerOption = "tensor",
    monotone: asked.MonotoneOption = False,
    valley: asked.ValleyOption = False,
    vram: asked.VramOption = None,
    ram: asked.RamOption = None,
    ctx: asked.ContextOption = None,
    kv: asked.KvOption = None,
    on_cpu: asked.OnCpuOption = None,
    min_tps: asked.MinTpsOption = None,
    damage: asked.SensitivityOption = None,
    no_probe: asked.NoProbeOption = False,
    chunk: options.ChunkOption = None,
    chunks: ChunksOption = 0,
    sample: SampleOption = "512k",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the plan.")] = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    jobs: options.JobsOption = 1,
    scheduler: options.SchedulerOption = None,
    rpc: options.RpcOption = None,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Choose a type for every tensor: least expected KL divergence within the budget, proven by integer programming.

    What is not in the cache is measured first: the rounding error of every type, and with a calibration text the probe.

    SELECTOR is a role (attn_v), a name (output.weight), a glob (blk.1?.ffn_*) or a regular expression between slashes.

    Example, in a project: quantplan solve --budget 5bpw --min output=Q6_K
    """
    from quantplan.cli.plan_output import default_plan_path, plan_name, print_plan
    from quantplan.cli.probe_options import sensitivity_options
    from quantplan.errors import BadUsage
    from quantplan.planning import request as planning
    from quantplan.records.formats import PLANS

    for option, value in (("--max-kld", max_kld), ("--min-tps", min_tps)):
        if value is not None and not 0 < value < float("inf"):
            raise BadUsage(f"{option} {value:g}: a number above 0")
    if budget is None and max_kld is None and vram is None and ram is None and min_tps is None:
        raise BadUsage("how large may the file be? give --budget, --vram, or a target: --max-kld, --min-tps")
    wanted = asked.constraints(pin, minimum, maximum, only, tie, max_types, monotone, valley, allow_1_bit)
    machine = asked.devices(vram, ram, ctx, kv, on_cpu)
    request = asked.request(
        options.local_or_hub(model, hub), imatrix, types, budget, wanted, per, objective, max_kld, machine, min_tps
    )
    source = request.model
    execution = options.execution(threads, gpu_layers, jobs, scheduler, rpc)
    priced = planning.types_to_estimate(request)
    prices = sensitivity_options(source, priced, chunk, chunks, sample, execution)
    if dry_run:
        console.put(_intentions(request, asked.sensitivity_source(damage, no_probe, calibration)))
        return
    table = asked.sensitivity_table(request, prices, damage, no_probe, calibration)
    speeds = asked.speeds(request, prices.types, execution)
    plan, everything_fits = planning.plan_for(request, table, speeds)
    if everything_fits and budget is not None and max_kld is None:
        console.warn(
            f"the budget exceeds the largest file that these types make ({plan.file_bytes:,} bytes): that file is the plan"
        )
    if not plan.calibrated:
        console.warn("uncalibrated plan: scales are a prior, not measured; give --calibration TEXT to probe")
    path = out or default_plan_path(source, plan_name(request))
    PLANS.write(plan, path)
    planning.keep_table(table, options.cache_folder())  # for `quantplan explain`
    print_plan(plan, source, path, as_json)


def _intentions(request: PlanRequest, source: str) -> str:
    from quantplan.planning.request import parse_budget, quantizable

    budget, devices = parse_budget(request), request.devices
    within = [f"{budget.bytes:,} bytes"] if budget else []
    within += [f"an expected KLD of {request.most_kld:g}"] if request.most_kld else []
    within += [f"{devices.vram:,} bytes of VRAM"] if devices and devices.vram else []
    within += [f"{devices.ram:,} bytes of RAM"] if devices and devices.ram else []
    within += [f"{request.least_tps:g} tokens/s"] if request.least_tps else []
    return (
        f"would choose among {len(request.types)} types for {len(quantizable(request.model))} tensors within "
        f"{' and '.join(within)}; damage from: {source}"
    )
