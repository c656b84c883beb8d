"""The request that the options of a planning command make, and what it needs besides: sensitivities and speeds."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

from quantplan import api
from quantplan.cli import console, options
from quantplan.cli.options import (
    CalibrationOptions,
    ExecutionOptions,
    ImatrixOptions,
    ModelOptions,
)
from quantplan.cli.plan_options import ConstraintOptions, LimitOptions, ProbingOptions, TargetOptions
from quantplan.devices.speed.measure import SpeedOptions, pending, speed_table
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage
from quantplan.imatrix import coverage_notes
from quantplan.planning.request import PlanRequest
from quantplan.quant_type import QuantType
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity_table import SensitivityTable

_LONG_CHUNK = 2048  # tokens: nobody probes with longer chunks, many serve with longer contexts
_SOURCES = ("probe", "weights", "prior")


def serving(limits: LimitOptions, measuring: ProbingOptions) -> tuple[LimitOptions, ProbingOptions]:
    """The groups, with a --ctx that can only be meant for --vram moved to --serve-ctx, its name until --ctx meant chunks."""
    if not (limits.limits_memory and limits.serve_ctx is None and (measuring.ctx or 0) > _LONG_CHUNK):
        return limits, measuring
    console.say(f"notice: --ctx {measuring.ctx} with --vram is now called --serve-ctx {measuring.ctx}")
    return replace(limits, serve_ctx=measuring.ctx), replace(measuring, ctx=None)


def plan_request(
    model: ModelOptions,
    imatrix: ImatrixOptions,
    target: TargetOptions,
    constraints: ConstraintOptions,
    limits: LimitOptions,
    budget: str | None,
) -> PlanRequest:
    """The request that the options make, checked as far as nothing need be measured for it."""
    if target.max_kld is not None and not 0 < target.max_kld < float("inf"):
        raise BadUsage(f"--max-kld {target.max_kld:g}: must be greater than zero")
    limits.check()
    parsed = constraints.constraints()
    source = options.model(model.file)
    importance = options.imatrix(imatrix.imatrix, source)
    if importance is None:
        console.warn("no imatrix: types that need one are left out; make one with `quantplan imatrix`")
    for note in coverage_notes(importance, source) if importance else ():
        console.warn(note)
    return api.plan_request(
        source,
        budget,
        imatrix=importance,
        types=constraints.types,
        constraints=parsed,
        per=constraints.per.value,
        command=shlex.join(["quantplan", *sys.argv[1:]]),
        objective=target.objective.value,
        most_kld=target.max_kld,
        devices=limits.devices(source),
        least_tps=limits.min_tps,
    )


def sensitivity_table(
    request: PlanRequest, how: SensitivityOptions, source: str, calibration: CalibrationOptions
) -> SensitivityTable:
    """The sensitivity table for a request: of a file, of the prior, or measured."""
    text = calibration.text if source == "probe" else None
    with console.terminal() as report:
        table = api.sensitivities(
            request.model,
            source,
            calibration=text,
            imatrix=request.imatrix,
            options=how,
            cache=options.cache_folder(),
            report=report,
        )
    if source in ("probe", "weights"):
        warn_of_activation_quantization(table)
    return table


def warn_of_activation_quantization(table: SensitivityTable) -> None:
    if table.calibrated and not table.backend:
        console.warn(
            "how this backend quantizes activations is not known to the table: above 5.5 bits expected KLDs are too low"
        )


def sensitivity_source(source: str, calibration: CalibrationOptions) -> str:
    """Where the sensitivities would come from, in words."""
    if source == "probe":
        return (
            f"a probe on {options.names_of(options.calibration_files(calibration.calibration)) or 'a calibration text'}"
        )
    known = {"weights": "the weights and a prior", "prior": "a prior"}
    return known.get(source, f"the table {source}")


def speeds(request: PlanRequest, types: tuple[QuantType, ...], execution: ExecutionOptions) -> SpeedTable | None:
    """This machine's speeds: measured where a limit needs them, else only where all of them are known already."""
    how, folder = SpeedOptions(execution.parsed()), options.cache_folder()
    if request.least_tps is None and (execution.gpu_layers or pending(request.model, types, how, folder)[0]):
        return None
    with console.terminal() as report:
        return speed_table(request.model, types, how, folder, report)
