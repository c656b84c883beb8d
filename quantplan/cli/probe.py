"""`quantplan probe`: what each tensor costs in KL divergence, measured in the loaded model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.probe_options import ChunksOption, SampleOption

_SHOWN = 12  # the dearest tensors tell the story; hundreds of rows would hide it

if TYPE_CHECKING:
    from quantplan.sensitivity.probe import Probe
    from quantplan.tensor import Model


def probe(
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    imatrix: options.ImatrixOption = None,
    calibration: options.CalibrationOption = None,
    types: options.TypesOption = "all",
    ctx: options.CtxOption = None,
    chunks: ChunksOption = 0,
    sample: SampleOption = "512k",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the damage table here, for solve --damage.")
    ] = None,
    threads: options.ThreadsOption = 0,
    gpu_layers: options.GpuLayersOption = 0,
    jobs: options.JobsOption = 1,
    scheduler: options.SchedulerOption = None,
    rpc: options.RpcOption = None,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Measure what each tensor costs: swap it, rounded, into the loaded model and take the KL divergence.

    One swap prices every type of a tensor. Each finished tensor is kept: the same command goes on after an interruption. The
    damage table joins the scales with the rounding error of every type.

    Example, in a project: quantplan probe --windows 8
    """
    from quantplan.cli.probe_options import (
        calibration_text,
        sensitivity_options,
        warn_of_activation_quantization,
    )
    from quantplan.errors import BadUsage
    from quantplan.imatrix import coverage_notes
    from quantplan.llamacpp.encodable_types import parse_writable
    from quantplan.planning.request import quantizable
    from quantplan.records.formats import SENSITIVITY_TABLES
    from quantplan.sensitivity.estimate import price

    source = options.model(options.local_or_hub(model, hub))
    importance = options.imatrix(imatrix, source)
    if importance is None:
        console.warn("no imatrix: types that need one cannot be priced, and errors are not weighted by use")
    for note in coverage_notes(importance, source) if importance else ():
        console.warn(note)
    text = calibration_text(calibration)
    if text is None:
        raise BadUsage(
            "which text? give --calibration FILE (some hundred kB of the kind of text that the model is for)"
        )
    execution = options.execution(threads, gpu_layers, jobs, scheduler, rpc)
    wanted = sensitivity_options(source, parse_writable(types), ctx, chunks, sample, execution)
    tensors = quantizable(source)
    if dry_run:
        per_tensor = wanted.probe.base_chunks(sys.maxsize)
        console.put(
            f"{len(tensors)} tensors, {per_tensor} windows of {wanted.probe.n_ctx} tokens each, one swap a tensor"
        )
        return
    with console.terminal() as report:
        priced = price(source, tensors, importance, text, wanted, options.cache_folder(), report)
    warn_of_activation_quantization(priced.table)
    if out:
        SENSITIVITY_TABLES.write(priced.table, out)
        console.say(f"damage table written to {out}")
    assert priced.probe is not None
    if as_json:
        console.put_json(_as_json(source, priced.probe))
    else:
        _print(source, priced.probe)


def _as_json(model: Model, found: Probe) -> dict:
    scales = [
        {
            "name": s.tensor,
            "scale": s.value,
            "scale_err": s.stderr,
            "kld": s.kld,
            "error": s.error,
            "windows": s.chunks,
        }
        for s in found.scales.values()
    ]
    return {
        "model": str(model.path),
        "tensors": scales,
        "noise_floor": found.floor,
        "not_found": list(found.not_found),
        "overhead": found.overhead,
        "forward_passes": found.forward_passes,
        "seconds": found.seconds,
    }


def _print(model: Model, found: Probe) -> None:
    from rich.table import Table

    table = Table(
        "tensor", title=f"{model.name}: nats per token per unit of relative squared error", title_justify="left"
    )
    for heading in ("scale", "± s.e.", "KLD of the swap", "windows"):
        table.add_column(heading, justify="right")
    ordered = sorted(found.scales.values(), key=lambda each: -each.value)
    for s in ordered[:_SHOWN]:
        table.add_row(s.tensor, f"{s.value:.5f}", f"{s.stderr:.5f}", f"{s.kld:.3e}", str(s.chunks))
    console.put_table(table)
    if len(ordered) > _SHOWN:
        console.say(f"{len(ordered) - _SHOWN} more tensors, down to {ordered[-1].value:.5f}; --json shows all")
    console.say(f"noise floor of the forward pass: {found.floor:.1e} nats per token")
    if found.not_found:
        console.warn(
            f"{len(found.not_found)} tensors take no part in a forward pass and borrow their scale: "
            + ", ".join(found.not_found[:3])
        )
    if found.overhead is not None:
        console.say(
            f"{found.forward_passes} forward passes in {found.seconds:.0f} s; swapping and scoring took "
            f"{100 * found.overhead:.0f} % on top of the passes"
        )
