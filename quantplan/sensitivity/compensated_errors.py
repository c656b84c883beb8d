"""Second moments for compensated rounding, and the errors that it leaves; both are kept in the cache."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from quantplan.llamacpp.quantize import quantizable
from quantplan.progress import SILENT, Reporter
from quantplan.quant_type import QuantType
from quantplan.records.cache import Cache, Plain
from quantplan.second_moments import tokens_needed
from quantplan.sensitivity import moment_metric, round_trip
from quantplan.sensitivity.collected_moments import CollectedMoments
from quantplan.sensitivity.moment_metric import MetricErrors, MomentMetric
from quantplan.sensitivity.second_moments import MomentOptions, collect
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model, Tensor
from quantplan.text import Text

MOMENT_TOKENS = 1 << 16  # of second moments: 33k tokens gave a KLD of .0079, 65k .0077 (256 and 512 columns, Q4_K)


def rounding_moments(model: Model, probe: ProbeOptions) -> MomentOptions:
    """Over how much of a calibration text second moments for rounding are collected: what the widest input asks for."""
    widest = max(tensor.columns for tensor in quantizable(model))
    chunks = -(-max(MOMENT_TOKENS, 2 * tokens_needed(widest)) // probe.n_ctx)
    return MomentOptions(probe.n_ctx, chunks, execution=replace(probe.execution, jobs=1, scheduler=None))


def collect_for_rounding(
    model: Model,
    tensors: tuple[Tensor, ...],
    calibration: Text,
    probe: ProbeOptions,
    cache: Path,
    report: Reporter = SILENT,
) -> CollectedMoments:
    """The second moments of the tensors' inputs over as much of the text as their widths ask for; warns of too little text."""
    with report.stage("second moments") as advance:
        moments = collect(model, tensors, calibration, rounding_moments(model, probe), cache, advance)
    for note in moments.notes():
        report.warn(note)
    return moments


def metric_errors_of(
    metric: MomentMetric,
    candidates: Iterable[tuple[Tensor, tuple[QuantType, ...]]],
    sample_elements: int | None,
    cache: Path,
    report: Reporter = SILENT,
) -> dict[str, MetricErrors]:
    """Output errors by tensor, of those whose inputs' second moments are known; only those not in the cache are measured."""
    made_from = (
        moment_metric.VERSION,
        round_trip.VERSION,
        metric.model.digest,
        metric.moments.folder.name,
        sample_elements,
    )
    results: Cache[MetricErrors] = Cache(Plain(MetricErrors), cache, "compensated-errors", *made_from)
    known = [(tensor, types) for tensor, types in candidates if tensor.name in metric]
    todo: dict[
        tuple[str, str, tuple[QuantType, ...]], list[Tensor]
    ] = {}  # those that share an input are taken together
    for tensor, types in known:
        earlier = results.get(tensor.name)
        missing = tuple(kind for kind in types if earlier is None or kind.name not in earlier.stock)
        if missing and (earlier is None or earlier.rows):  # no rows: too little text reached its inputs
            shared = metric.moments.input_of(tensor.name).watched
            todo.setdefault((shared, tensor.type.name, missing), []).append(tensor)
    with report.stage(
        "rounding errors", sum(len(types) * len(tensors) for (*_, types), tensors in todo.items())
    ) as advance:
        for (*_, types), tensors in todo.items():
            for result in metric.errors(tensors, types, sample_elements):
                if earlier := results.get(result.tensor):
                    result = replace(
                        result,
                        stock=earlier.stock | result.stock,
                        compensated=earlier.compensated | result.compensated,
                        sampling=earlier.sampling | result.sampling,
                    )
                results.put(result.tensor, result)
            advance(len(types) * len(tensors))
    return {tensor.name: results[tensor.name] for tensor, _ in known if results[tensor.name].stock}
