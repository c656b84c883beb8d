"""What the commands that plan take and do alike: their options, the request that these make, sensitivities and speeds for it."""

import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace

from quantplan import api
from quantplan.cache_sensitivity import CacheSensitivity
from quantplan.cli import console, options
from quantplan.cli.cache_options import AutoCacheOptions
from quantplan.cli.option_groups import CalibrationOptions, ImatrixOptions, ModelOptions, MomentExecutionOptions
from quantplan.cli.plan_options import (
    ConstraintOptions,
    LimitOptions,
    MeasuringOptions,
    TargetOptions,
)
from quantplan.cli.plan_output import model_stem
from quantplan.devices.limits import where
from quantplan.devices.speed.by_device import check_measurable, placed_speeds
from quantplan.devices.speed.measure import SpeedOptions, pending, speed_table
from quantplan.devices.speed.table import SpeedTable
from quantplan.errors import BadUsage
from quantplan.evaluate.cache_sensitivities import CacheMeasureOptions, cache_sensitivity
from quantplan.planning.request import PlanRequest, types_to_estimate
from quantplan.quant_type import QuantType
from quantplan.records.formats import CACHE_SENSITIVITIES
from quantplan.sensitivity.estimate import SensitivityOptions
from quantplan.sensitivity_table import SensitivityTable
from quantplan.solver.worst_domain import WORST_DOMAIN
from quantplan.tensor import Model
from quantplan.text import Domains

_LONG_CHUNK = 2048  # tokens: nobody probes with longer chunks, many serve with longer contexts


@dataclass(frozen=True)
class PlanningOptions:
    """All that decides a plan but its budget."""

    target: TargetOptions
    model: ModelOptions
    imatrix: ImatrixOptions
    calibration: CalibrationOptions
    constraints: ConstraintOptions
    limits: LimitOptions
    measuring: MeasuringOptions
    execution: MomentExecutionOptions

    @property
    def limited(self) -> bool:
        """Whether anything but the types limits the plan; a budget besides."""
        return self.target.max_kld is not None or self.limits.limits_memory or self.limits.min_tps is not None

    def serving(self) -> "PlanningOptions":
        """With a --ctx that can only be meant for --vram moved to --serve-ctx, its name until --ctx meant chunks."""
        ctx = self.measuring.ctx
        if not self.limits.limits_memory or self.limits.serve_ctx is not None or (ctx or 0) <= _LONG_CHUNK:
            return self
        console.say(f"notice: --ctx {ctx} with --vram is now called --serve-ctx {ctx}")
        limits, measuring = replace(self.limits, serve_ctx=ctx), replace(self.measuring, ctx=None)
        return replace(self, limits=limits, measuring=measuring)

    def request(self, budget: str | None, automatic_cache: bool = False, imatrix_there: bool = True) -> PlanRequest:
        """The request that the options make, checked as far as nothing need be measured for it.

        ``automatic_cache``: whether --kv auto is possible; then the request has the smallest cache. ``imatrix_there``: else it
        is made later, and the request has none.
        """
        target, limits = self.target, self.limits
        if not automatic_cache:
            _ = limits.cache_types
        elif limits.automatic and not limits.limits_memory:
            raise BadUsage("--kv auto chooses within a limit on memory: give --vram (or --ram) too")
        if target.max_kld is not None and not 0 < target.max_kld < float("inf"):
            raise BadUsage(f"--max-kld {target.max_kld:g}: must be greater than zero")
        limits.check()
        constraints = self.constraints.constraints()
        source = options.model(self.model.file)
        request = api.plan_request(
            source,
            budget,
            imatrix=options.checked_imatrix(self.imatrix.imatrix, source) if imatrix_there else None,
            types=self.constraints.types,
            constraints=constraints,
            per=self.constraints.per.value,
            command=shlex.join(["quantplan", *sys.argv[1:]]),
            objective=target.objective.value,
            most_kld=target.max_kld,
            devices=limits.devices(source),
            least_tps=limits.min_tps,
        )
        if request.objective == WORST_DOMAIN:
            self._check_domains(source)
        if request.least_tps is not None and request.devices:
            check_measurable(source, where(source, request.devices))  # before anything is measured
        return request

    def _check_domains(self, model: Model) -> None:
        """BadUsage where the sensitivities will not be those of several texts, before they are measured."""
        source = self.measuring.sensitivity
        if source == "probe" and not isinstance(self.calibration.text(model), Domains):
            raise BadUsage(
                f"--objective {WORST_DOMAIN} plans for several kinds of text: give a folder of them, a file for each kind "
                "(--calibration FOLDER)"
            )
        if source in ("weights", "prior"):
            raise BadUsage(
                f"--objective {WORST_DOMAIN} needs a probe on several texts, or its table; --sensitivity {source} knows none"
            )

    def estimation(self, request: PlanRequest) -> SensitivityOptions:
        """How the sensitivities are measured."""
        return self.measuring.estimation(request.model, types_to_estimate(request), self.execution)

    @property
    def source(self) -> str:
        """Where the sensitivities would come from, in words."""
        source = self.measuring.sensitivity
        if source == "probe":
            texts = options.calibration_files(self.calibration.calibration)
            return f"a probe on {options.names_of(texts) or 'a calibration text'}"
        return {"weights": "the weights and a prior", "prior": "a prior"}.get(source, f"the table {source}")

    def sensitivities(self, request: PlanRequest, how: SensitivityOptions) -> SensitivityTable:
        """Of a file, of the prior, or measured."""
        source = self.measuring.sensitivity
        measured = source in ("probe", "weights")
        with options.alone() if measured else nullcontext(), console.terminal() as report:
            table = api.sensitivities(
                request.model,
                source,
                calibration=self.calibration.text(request.model) if source not in ("weights", "prior") else None,
                imatrix=request.imatrix,
                options=how,
                cache=options.cache_folder(),
                report=report,
            )
        if measured:
            warn_of_activation_quantization(table)
        return table

    def cache_sensitivity(self, request: PlanRequest, how: AutoCacheOptions) -> CacheSensitivity:
        """What each pair of types of the KV cache costs: of a file, or measured and kept in the project's reports."""
        if how.kv_sensitivity is not None:
            return CACHE_SENSITIVITIES.read(how.kv_sensitivity)
        text = self.calibration.text(request.model)
        if text is None:
            raise BadUsage(
                "--kv auto measures what cache types cost on the calibration text: give --calibration TEXT, or --kv-sensitivity "
                "FILE with a table that was measured before"
            )
        assert request.devices is not None
        options_of = CacheMeasureOptions(how.kv_ctx, how.kv_chunks, self.execution.parsed())
        with options.alone(), console.progress("measuring cache types") as advance:
            measured = cache_sensitivity(
                request.model, text, request.devices.ctx, options_of, advance, options.cache_folder()
            )
        folder = options.records_folder(None)
        if folder is not None:
            path = folder / f"{model_stem(request.model)}.cache.json"
            CACHE_SENSITIVITIES.write(measured, path)
            console.say(f"written: {path}")
        return measured

    def besides(self, request: PlanRequest, types: tuple[QuantType, ...], how: AutoCacheOptions) -> list[str]:
        """What is measured for some limits, in words."""
        words = []
        if self.limits.automatic and how.kv_sensitivity is None:
            words.append(f"{how.kv_chunks} long chunks with each pair of cache types")
        if request.least_tps is not None:
            speeds = SpeedOptions(self.execution.parsed())
            count = pending(request.model, types, speeds, options.cache_folder())[0]
            words += [f"{count} timings of this machine's kernels"] if count else []
        return words

    def speeds(self, request: PlanRequest, types: tuple[QuantType, ...]) -> SpeedTable | None:
        """This machine's speeds: measured where a limit needs them, else only where all of them are known already.

        With a limit on memory each tensor has the speed of the device that it goes to.
        """
        execution, folder, devices = self.execution, options.cache_folder(), request.devices
        how = SpeedOptions(execution.parsed())
        if request.least_tps is None and (
            devices or execution.gpu_layers or pending(request.model, types, how, folder)[0]
        ):
            return None
        with console.terminal() as report:
            if devices:
                return placed_speeds(request.model, types, where(request.model, devices), how, folder, report)
            return speed_table(request.model, types, how, folder, report)


def warn_of_objective(request: PlanRequest) -> None:
    """Where plans of every size are shown."""
    if request.objective != "sum":
        console.warn(f"--objective {request.objective} counts in solve and run; plans of every size minimize the sum")


def warn_of_activation_quantization(table: SensitivityTable) -> None:
    if table.calibrated and not table.backend:
        console.warn(
            "how this backend quantizes activations is not known to the table: above 5.5 bits expected KLDs are too low"
        )
