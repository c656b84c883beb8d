"""`quantplan solve`: from a budget to a plan."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.pricing_options import SampleOption, WindowsOption

if TYPE_CHECKING:
    from quantplan.damage import DamageTable
    from quantplan.experiments.planning import Request
    from quantplan.experiments.pricing import PricingOptions
    from quantplan.solve.planner import Wishes


def solve(
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            "-b",
            help="File size: 17.9GB, 16.7GiB, 4.25bpw, 40%, =other.gguf or Q4_K_M (as large as that mix).",
        ),
    ],
    model: options.ModelOption = None,
    imatrix: options.ImatrixOption = None,
    calibration: options.CalibrationOption = None,
    types: options.TypesOption = "all",
    pin: Annotated[list[str] | None, typer.Option("--pin", help="SELECTOR=TYPE: these tensors take this type.")] = None,
    minimum: Annotated[
        list[str] | None, typer.Option("--min", help="SELECTOR=TYPE: at least as many bits as TYPE.")
    ] = None,
    per: Annotated[
        str, typer.Option("--per", help="tensor, or layer: one FTYPE mix for each block (LAYER_TYPES).")
    ] = "tensor",
    damage: Annotated[
        str | None, typer.Option("--damage", help="A damage table (FILE), or prior: read no weights.")
    ] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Weights and imatrix only; the plan is uncalibrated.")
    ] = False,
    ctx: options.CtxOption = None,
    windows: WindowsOption = 0,
    sample: SampleOption = "512k",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write the plan.")] = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Choose a type for every tensor: least expected KL divergence within the budget, proven by integer programming.

    What is not in the cache is measured first: the rounding error of every type, and with a calibration text the probe.

    SELECTOR is a role (attn_v), a name (output.weight), a glob (blk.1?.ffn_*) or a regular expression between slashes.

    Example, in a project: quantplan solve --budget 5bpw --min output=Q6_K
    """
    from quantplan.cli.plan_output import default_plan_path, print_plan
    from quantplan.cli.pricing_options import pricing_options
    from quantplan.errors import BadUsage
    from quantplan.experiments import planning
    from quantplan.formats.plan_files import write_plan
    from quantplan.quant_type import parse_types

    if per not in ("tensor", "layer"):
        raise BadUsage(f"--per {per}: tensor or layer")
    source = options.model(model)
    importance = options.imatrix(imatrix, source)
    if importance is None:
        console.warn("no imatrix: types that need one are left out; make one with `quantplan imatrix`")
    command = shlex.join(["quantplan", *sys.argv[1:]])
    request = planning.Request(source, importance, parse_types(types), budget, _wishes(pin, minimum), per, command)
    planning.check(request)
    wanted = pricing_options(source, planning.types_to_price(request), ctx, windows, sample, threads, gpu_layers)
    if dry_run:
        console.put(_intentions(request, damage, no_probe, calibration))
        return
    table = _table(request, wanted, damage, no_probe, calibration)
    plan, everything_fits = planning.plan_for(request, table)
    if everything_fits:
        console.warn(
            f"the budget exceeds the largest file that these types make ({plan.file_bytes:,} bytes): that file is the plan"
        )
    if not plan.calibrated:
        console.warn("uncalibrated plan: scales are a prior, not measured; give --calibration TEXT to probe")
    path = out or default_plan_path(source, _plan_name(request))
    write_plan(plan, path)
    print_plan(plan, source, path, as_json)


def _wishes(pins: list[str] | None, floors: list[str] | None) -> Wishes:
    from quantplan.quant_type import weight_type
    from quantplan.selector import parse_assignment
    from quantplan.solve.planner import Wishes

    def parsed(texts: list[str] | None) -> tuple:
        pairs = [parse_assignment(text) for text in texts or []]
        return tuple((selector, weight_type(kind)) for selector, kind in pairs)

    return Wishes(parsed(pins), parsed(floors))


def _plan_name(request: Request) -> str:
    size = Path(request.budget[1:]).stem if request.budget.startswith("=") else request.budget.lower()
    return f"{size}-layers" if request.per == "layer" else size


def _intentions(request: Request, damage: str | None, no_probe: bool, calibration: Path | None) -> str:
    from quantplan.experiments.planning import parse_budget, quantizable

    how = (
        f"damage table {damage}"
        if damage
        else "weights and prior"
        if no_probe
        else f"probe on {options.calibration(calibration)}"
    )
    return (
        f"would choose among {len(request.types)} types for {len(quantizable(request.model))} tensors "
        f"within {parse_budget(request).bytes:,} bytes; damage from: {how}"
    )


def _table(
    request: Request, wanted: PricingOptions, damage: str | None, no_probe: bool, calibration: Path | None
) -> DamageTable:
    from quantplan.cli.pricing_options import calibration_text, stages
    from quantplan.errors import BadUsage, ModelMismatch
    from quantplan.experiments.planning import quantizable
    from quantplan.experiments.pricing import price, prior_table
    from quantplan.formats.plan_files import read_damage

    model, tensors = request.model, quantizable(request.model)
    if damage == "prior":
        return prior_table(model, tensors, wanted.types, request.imatrix)
    if damage is not None:
        table = read_damage(damage)
        if table.model_digest and table.model_digest != model.digest:
            raise ModelMismatch(
                f"{damage} was made for another model (digest {table.model_digest[:12]}, this is {model.digest[:12]})"
            )
        return table
    text = None if no_probe else calibration_text(calibration)
    if text is None and not no_probe:
        raise BadUsage(
            "no calibration text: give --calibration FILE to probe, or --no-probe to plan from weights and imatrix alone"
        )
    with stages() as tell:
        priced = price(model, tensors, request.imatrix, text, wanted, options.cache_folder(), tell)
    if priced.probe and priced.probe.overhead is not None:
        console.say(f"probed {len(priced.probe.scales)} tensors in {priced.probe.seconds:.0f} s")
    return priced.table
