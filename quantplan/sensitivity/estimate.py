"""From a model to its sensitivity table: round trip, probe and activation quantization joined, each cached."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantplan import __version__
from quantplan.abilities import context_note
from quantplan.errors import BadUsage, WorkersLost
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import rpc, tools
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.loaded_model import EngineOptions
from quantplan.llamacpp.quantize import quantizable
from quantplan.parallel.rpc import on_servers
from quantplan.parallel.worker_pool import Lost
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType
from quantplan.records.cache import Cache, Plain
from quantplan.records.journal import text_digest
from quantplan.sensitivity import activation_quantization, moment_metric, round_trip
from quantplan.sensitivity import probe as probing
from quantplan.sensitivity.candidates import candidates, check_storable
from quantplan.sensitivity.collapse import untested
from quantplan.sensitivity.compensated_errors import collect_for_rounding, metric_errors_of
from quantplan.sensitivity.domain_scales import domain_interactions, domain_ratios, with_domains
from quantplan.sensitivity.encodings import better_encodings, encodings_note
from quantplan.sensitivity.grids import grid_note, lossless_types
from quantplan.sensitivity.moment_metric import MetricErrors, MomentMetric, of_estimate
from quantplan.sensitivity.rows import PRIOR_INTERACTION, metric_row, prior_row, probed_row
from quantplan.sensitivity.scales import all_scales, interaction
from quantplan.sensitivity_table import SensitivityTable
from quantplan.tensor import Model, Tensor
from quantplan.text import OneText, Text, undivided

DEFAULT_SAMPLE = 1 << 19  # weights measured per tensor: the sampling error stays near 1 %, below that of the probe
SIBLING_PROBES = 8  # as many swaps as a small model has matrices in a block


@dataclass(frozen=True)
class SensitivityOptions:
    """``sample_elements`` None: every weight of every tensor. ``sibling_probes``: tensors that are probed where the table is of
    another model.

    ``compensate``: with a calibration text, collect the second moments of matrix inputs, take errors in their metric, and
    estimate error-compensated rounding next to ggml's.
    """

    types: tuple[QuantType, ...]
    probe: probing.ProbeOptions
    sample_elements: int | None = DEFAULT_SAMPLE
    compensate: bool = True
    sibling_probes: int = SIBLING_PROBES


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
    calibration: Text | None,
    options: SensitivityOptions,
    cache: Path,
    report: Reporter = SILENT,
) -> Sensitivities:
    """The sensitivity table of ``tensors``; without ``calibration`` scales come from the prior and it is not calibrated.

    The probe takes domains one by one; everything else reads them joined.

    Raises what the stages raise (TextTooShort, BadFile, BadUsage), NothingSelected for a tensor that fits no type.
    """
    if model.header_only:
        raise BadUsage(
            f"{model.path} holds a header without weights; use --sensitivity FILE, or --sensitivity prior for a first sketch"
        )
    for tensor in tensors:
        check_storable(tensor, options.types, imatrix)
    if calibration is not None:
        options = replace(options, probe=options.probe.on(calibration))
        _check_before(model, tensors, imatrix, calibration, options, cache)
        if note := context_note(model, options.probe.n_ctx):
            report.warn(note)
    joint = None if calibration is None else undivided(calibration)
    made_from = _made_from(model, imatrix, joint, options)
    if imatrix is not None and (joint is None or options.probe.execution.rpc):
        # nothing can be swapped here: a server that goes away would end this process
        imatrix = imatrix.without(untested(model, tensors, imatrix, cache, report))
        made_from |= {"without_importance": sorted(imatrix.excluded)} if imatrix.excluded else {}
    metric_errors: dict[str, MetricErrors] = {}
    if joint is not None and options.compensate:
        moments = collect_for_rounding(model, tensors, joint, options.probe, cache, report)
        options = replace(options, probe=replace(options.probe, moments=moments.folder))
        metric = MomentMetric(model, moments, of_estimate(options.probe.execution.threads))
        kinds = [(tensor, candidates(tensor, options.types, imatrix)) for tensor in tensors]
        metric_errors = metric_errors_of(metric, kinds, options.sample_elements, cache, report)
        made_from["second_moments"] = moments.made_from
    others = tuple(tensor for tensor in tensors if tensor.name not in metric_errors)
    errors = errors_of(model, others, imatrix, options, cache, report)
    made_from |= _lossless(model, errors, metric_errors, report)
    if calibration is None or joint is None:
        rows = {t.name: prior_row(model, t, errors[t.name]) for t in tensors}
        table = SensitivityTable(model.digest, rows, PRIOR_INTERACTION, made_from=made_from | {"scales": "prior"})
        return Sensitivities(table.described(model))
    probe = run_probe(model, tensors, imatrix, calibration, options, cache, report)
    activations = _activations(model, quantizable(model), joint, options, cache)  # of all: one key in the cache
    scales = all_scales(model, tensors, probe)
    rows = {
        t.name: metric_row(t, metric_errors[t.name], scales[t.name], activations)
        if t.name in metric_errors
        else probed_row(t, errors[t.name], scales[t.name], activations)
        for t in tensors
    }
    if imatrix is not None and not options.probe.execution.rpc:
        how = options.types, options.probe, probe.floor, cache
        changed = better_encodings(model, rows, imatrix, joint, *how)
        if changed:
            report.warn(encodings_note(imatrix, changed))
            made_from["encodings"] = {name: encodings.fields() for name, (_, encodings) in changed.items()}
        rows |= {name: row for name, (row, _) in changed.items()}
    together, ratios = interaction(probe, scales), domain_ratios(probe, scales)
    made_from |= {
        "scales": "probe",
        "noise_floor": probe.floor,
        "windows": sorted({scale.chunks for scale in probe.scales.values()}),
        "borrowed": list(probe.not_found),
    }
    table = SensitivityTable(
        model.digest,
        with_domains(rows, ratios),
        together,
        activations.backend if activations else "",
        True,
        made_from,
        domains=domain_interactions(probe, scales, ratios, together),
    )
    return Sensitivities(table.described(model), probe)


def _lossless(
    model: Model,
    errors: Mapping[str, round_trip.RoundTrip],
    metric_errors: Mapping[str, MetricErrors],
    report: Reporter,
) -> dict[str, object]:
    """What the table says of weights that lie on a grid; whoever watches is told, too."""
    by_type = {name: each.errors for name, each in errors.items()} | {
        name: each.stock for name, each in metric_errors.items()
    }
    found = lossless_types(model, by_type)
    if note := grid_note(found, len(by_type)):
        report.warn(note)
    return {"lossless": found} if found else {}


def _check_before(
    model: Model,
    tensors: tuple[Tensor, ...],
    imatrix: Imatrix | None,
    calibration: Text,
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
    calibration: Text,
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
    model: Model, imatrix: Imatrix | None, calibration: Text, options: SensitivityOptions, cache: Path
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
    if not options.probe.level:
        parts += ("some tensors",)
    return Cache(Plain(), cache, "probe", *parts)


def _imatrix_digest(imatrix: Imatrix | None) -> str | None:
    if imatrix is None or not imatrix.excluded:
        return imatrix.digest if imatrix else None
    return " ".join([imatrix.digest, "without", *sorted(imatrix.excluded)])


def _activations(
    model: Model, tensors: tuple[Tensor, ...], calibration: OneText, options: SensitivityOptions, cache: Path
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


def _made_from(
    model: Model, imatrix: Imatrix | None, calibration: Text | None, options: SensitivityOptions
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
