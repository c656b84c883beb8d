"""From a model to its sensitivity table: round trip, probe and activation quantization joined, each cached."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantplan import __version__
from quantplan.abilities import context_note
from quantplan.errors import BadUsage, WorkersLost
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import rpc, tools
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.parallel.rpc import on_servers
from quantplan.parallel.worker_pool import Lost
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import text_digest
from quantplan.rounding.compensate import RoundingOptions
from quantplan.sensitivity import activation_quantization, moment_metric, prior, round_trip
from quantplan.sensitivity import probe as probing
from quantplan.sensitivity.candidates import candidates, check_storable
from quantplan.sensitivity.compensated_errors import collect_for_rounding, metric_errors_of
from quantplan.sensitivity.moment_metric import MetricErrors, MomentMetric
from quantplan.sensitivity.scales import TensorScale, all_scales, interaction
from quantplan.sensitivity_table import Interaction, SensitivityRow, SensitivityTable
from quantplan.tensor import Model, Tensor

DEFAULT_SAMPLE = 1 << 19  # weights measured per tensor: the sampling error stays near 1 %, below that of the probe
# the errors of a prior are not independent: another model may cost half or twice as much throughout
_PRIOR_INTERACTION = Interaction(relative_error=prior.RELATIVE_ERROR)


@dataclass(frozen=True)
class SensitivityOptions:
    """``sample_elements`` None: every weight of every tensor.

    ``compensate``: with a calibration text, collect the second moments of matrix inputs, take errors in their metric, and
    estimate error-compensated rounding next to ggml's.
    """

    types: tuple[QuantType, ...]
    probe: probing.ProbeOptions
    sample_elements: int | None = DEFAULT_SAMPLE
    compensate: bool = False


@dataclass(frozen=True)
class Sensitivities:
    """The table and how it came about."""

    table: SensitivityTable
    probe: probing.Probe | None = None


def errors_of(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    options: SensitivityOptions,
    cache: Path,
    report: Reporter,
) -> dict[str, round_trip.RoundTrip]:
    """Round trips of all tensors; only those that the cache does not have are measured."""
    made_from = (round_trip.VERSION, model.digest, _imatrix_digest(imatrix), options.sample_elements)
    results: Cache[round_trip.RoundTrip] = Cache(Plain(round_trip.RoundTrip), cache, "round-trip", *made_from)
    todo = []
    for tensor in tensors:
        known = results.get(tensor.name)
        types = candidates(tensor, options.types, imatrix)
        missing = tuple(kind for kind in types if known is None or kind.name not in known.errors)
        if missing:
            todo.append((tensor, missing))
    work = {tensor.name: tensor.elements * len(types) for tensor, types in todo}
    threads = options.probe.execution.threads
    with report.stage("round trip", sum(work.values())) if todo else SILENT.stage("") as advance:
        for result in round_trip.round_trips(model, todo, imatrix, options.sample_elements, threads):
            if earlier := results.get(result.tensor):
                errors, sampling = earlier.errors | result.errors, earlier.sampling_errors | result.sampling_errors
                result = replace(result, errors=errors, sampling_errors=sampling)
            results.put(result.tensor, result)
            advance(work[result.tensor])
    return {tensor.name: results[tensor.name] for tensor in tensors if tensor.name in results}


def price(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    calibration: str | None,
    options: SensitivityOptions,
    cache: Path,
    report: Reporter = SILENT,
) -> Sensitivities:
    """The sensitivity table of ``tensors``; without ``calibration`` scales come from the prior and it is not calibrated.

    Raises what the stages raise (TextTooShort, BadFile, BadUsage), NothingSelected for a tensor that fits no type.
    """
    if model.header_only:
        raise BadUsage(
            f"{model.path} holds a header without weights; use --sensitivity FILE, or --sensitivity prior for a first sketch"
        )
    for tensor in tensors:
        check_storable(tensor, options.types, imatrix)
    if calibration is not None:
        _check_before(model, tensors, imatrix, calibration, options, cache)
        if note := context_note(model, options.probe.n_ctx):
            report.warn(note)
    made_from = _made_from(model, imatrix, calibration, options)
    metric_errors: dict[str, MetricErrors] = {}
    if calibration is not None and options.compensate:
        moments = collect_for_rounding(model, tensors, calibration, options.probe, cache, report)
        options = replace(options, probe=replace(options.probe, moments=moments.folder))
        metric = MomentMetric(model, moments, RoundingOptions(threads=options.probe.execution.threads))
        kinds = [(tensor, candidates(tensor, options.types, imatrix)) for tensor in tensors]
        metric_errors = metric_errors_of(metric, kinds, options.sample_elements, cache, report)
        made_from["second_moments"] = moments.made_from
    others = tuple(tensor for tensor in tensors if tensor.name not in metric_errors)
    errors = errors_of(model, others, imatrix, options, cache, report)
    if calibration is None:
        rows = {t.name: _prior_row(model, t, errors[t.name]) for t in tensors}
        return Sensitivities(
            SensitivityTable(model.digest, rows, _PRIOR_INTERACTION, made_from=made_from | {"scales": "prior"})
        )
    probe = run_probe(model, tensors, imatrix, calibration, options, cache, report)
    activations = _activations(model, tensors, calibration, options, cache)
    scales = all_scales(model, tensors, probe)
    rows = {
        t.name: _metric_row(t, metric_errors[t.name], scales[t.name], activations)
        if t.name in metric_errors
        else _row(t, errors[t.name], scales[t.name], activations)
        for t in tensors
    }
    made_from |= {
        "scales": "probe",
        "noise_floor": probe.floor,
        "windows": sorted({scale.chunks for scale in probe.scales.values()}),
        "borrowed": list(probe.not_found),
    }
    table = SensitivityTable(
        model.digest, rows, interaction(probe, scales), activations.backend if activations else "", True, made_from
    )
    return Sensitivities(table, probe)


def _check_before(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    calibration: str,
    options: SensitivityOptions,
    cache: Path,
) -> None:
    """A text that is too short and a server that is not there are found before the round trip, which may take an hour."""
    results, servers = probe_results(model, imatrix, calibration, options, cache), options.probe.execution.rpc
    if servers and not probing.complete(results, tensors, options.probe):
        rpc.check(servers)
    if "#available" not in results:
        with Engine(model, EngineOptions(options.probe.n_ctx, vocabulary_only=True)) as engine:
            engine.chunks(calibration)


def run_probe(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    calibration: str,
    options: SensitivityOptions,
    cache: Path,
    report: Reporter,
) -> probing.Probe:
    """The probe of all tensors, resumed from the cache. Raises what ``probe`` raises."""
    results, servers = probe_results(model, imatrix, calibration, options, cache), options.probe.execution.rpc
    given = (model, tensors, imatrix, calibration, options.probe, results)
    if not servers or probing.complete(results, tensors, options.probe):
        return probing.probe(*given, report)
    try:
        return on_servers(servers, probing.probe, *given, report=report)
    except Lost as lost:  # the other process has written the cache
        results = probe_results(model, imatrix, calibration, options, cache)
        raise WorkersLost(probing.missing(lost, results, tensors)) from None


def probe_results(
    model: Model, imatrix: Imatrix | None, calibration: str, options: SensitivityOptions, cache: Path
) -> Cache[Any]:
    # threads and the number of chunks are left out: they change speed and precision, not what a chunk's KLD is
    backend = options.probe.execution.backend
    parts: tuple[object, ...] = (
        probing.VERSION,
        model.digest,
        _imatrix_digest(imatrix),
        text_digest(calibration),
        options.probe.n_ctx,
        backend,
    )
    if options.probe.moments:
        parts += (moment_metric.VERSION, options.probe.moments.name)
    return Cache(Plain(), cache, "probe", *parts)


def _imatrix_digest(imatrix: Imatrix | None) -> str | None:
    return imatrix.digest if imatrix else None


def _activations(
    model: Model, tensors: tuple[Tensor, ...], calibration: str, options: SensitivityOptions, cache: Path
) -> activation_quantization.ActivationQuantization | None:
    """That of the CPU's kernels, here or behind RPC; None for other backends, whose kernels cannot be asked."""
    n_ctx, execution = options.probe.n_ctx, options.probe.execution
    made_from = (activation_quantization.VERSION, model.digest, text_digest(calibration), n_ctx)
    given = (model, tensors, calibration, n_ctx, execution)
    if execution.rpc:
        results: Cache[Any] = Cache(Plain(), cache, "kernel", *made_from, execution.backend)
        if activation_quantization.known(results):
            return activation_quantization.on_servers(*given, results)
        try:
            return on_servers(execution.rpc, activation_quantization.on_servers, *given, results)
        except Lost as lost:
            raise WorkersLost(
                f"{lost.reason}. The probe is kept; activation quantization is missing: run the same command again"
            ) from None
    if execution.gpu_layers:
        return None
    return activation_quantization.activation_quantization(*given, Cache(Plain(), cache, "kernel", *made_from))


def _row(
    tensor: Tensor,
    errors: round_trip.RoundTrip,
    scale: TensorScale,
    activations: activation_quantization.ActivationQuantization | None,
) -> SensitivityRow:
    weights = {name: scale.value * error for name, error in errors.errors.items()}
    added = {name: scale.value * activations.of(tensor.name, name) for name in weights} if activations else {}
    relative = math.hypot(scale.relative_error, _sampling(errors))
    return SensitivityRow(tensor.name, weights, added, relative, scale.source)


def _metric_row(
    tensor: Tensor,
    errors: MetricErrors,
    scale: TensorScale,
    activations: activation_quantization.ActivationQuantization | None,
) -> SensitivityRow:
    better = {name: error for name, error in errors.compensated.items() if error < errors.stock[name]}
    weights = {name: scale.value * error for name, error in (errors.stock | better).items()}
    stock = {name: scale.value * errors.stock[name] for name in better}
    added = {name: scale.value * activations.of(tensor.name, name) for name in weights} if activations else {}
    relative = math.hypot(scale.relative_error, moment_metric.sampling_error(errors))
    return SensitivityRow(tensor.name, weights, added, relative, scale.source, stock)


def _sampling(errors: round_trip.RoundTrip) -> float:
    """The typical relative error that sampled rows leave."""
    relative = [errors.sampling_errors[name] / value for name, value in errors.errors.items() if value > 0]
    return float(np.median(relative)) if relative else 0.0


def _prior_row(model: Model, tensor: Tensor, errors: round_trip.RoundTrip) -> SensitivityRow:
    scale = prior.scale(model, tensor)
    weights = {name: scale * error for name, error in errors.errors.items()}
    return SensitivityRow(tensor.name, weights, {}, prior.RELATIVE_ERROR, "prior")


def prior_table(
    model: Model, tensors: tuple[Tensor, ...], types: tuple[QuantType, ...], imatrix: Imatrix | None
) -> SensitivityTable:
    """A table from shapes alone: typical error of each type times the prior scale. Reads no weights."""
    rows = {}
    for tensor in tensors:
        scale = prior.scale(model, tensor)
        kinds = candidates(tensor, types, imatrix)
        rows[tensor.name] = SensitivityRow(
            tensor.name, {kind.name: scale * prior.error(kind) for kind in kinds}, {}, prior.RELATIVE_ERROR, "prior"
        )
    made_from: dict[str, object] = {"scales": "prior", "errors": "prior", "quantplan": __version__}
    return SensitivityTable(model.digest, rows, _PRIOR_INTERACTION, made_from=made_from)


def _made_from(
    model: Model, imatrix: Imatrix | None, calibration: str | None, options: SensitivityOptions
) -> dict[str, object]:
    return {
        "quantplan": __version__,
        "llama_cpp": tools.build(),
        "model": model.path.name,
        "imatrix": _imatrix_digest(imatrix),
        "calibration": text_digest(calibration) if calibration else None,
        "ctx": options.probe.n_ctx,
        "sample_elements": options.sample_elements,
    }
