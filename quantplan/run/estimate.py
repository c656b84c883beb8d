"""What a run will take before it begins, by what the cache holds of it already."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantplan.estimates.pace import Pace
from quantplan.estimates.rounding_work import of_encoding, of_quantizing, of_round_trips
from quantplan.estimates.table_work import Machine, of_rounding_moments, of_table
from quantplan.estimates.work import WorkEstimate, of_measuring
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.same_tokens import tokenize
from quantplan.planning.request import quantizable
from quantplan.quant_type import QuantType, fitted
from quantplan.run import refine
from quantplan.run.targets import RunOptions, RunStatus, RunTarget, Texts, disk_needed
from quantplan.sensitivity.candidates import candidates
from quantplan.tensor import Model
from quantplan.text import Text, undivided

# plans near the first one share its encoded tensors, but for the weights that may move; one without a family shares few
_NEARBY = refine.SAMPLED + refine.ROUNDS


@dataclass(frozen=True)
class _Counts:
    """Files of one target that are left: to build and measure on the validation text, those of them with compensated rounding
    (in whole files), and to measure on the evaluation text.
    """

    validation: int
    encoded: float
    evaluation: int


def of_run(
    targets: Sequence[RunTarget],
    texts: Texts,
    options: RunOptions,
    states: Sequence[RunStatus],
    cache: Path,
    machine: Machine,
    *,
    imatrix: bool,
    rounding_text: Text,
) -> list[WorkEstimate]:
    """Stages in their order. ``imatrix``: whether it is there. Where the machine was not timed only memory and disk are known.

    Raises TextTooShort.
    """
    model = targets[0].request.model
    if machine.pace is None:
        return [WorkEstimate(None, model.file_bytes, disk_needed(targets)[0], machine.unknown, "run")]
    n_ctx = options.measuring.n_ctx
    stages = [] if imatrix else [_imatrix(model, texts.calibration, n_ctx, machine.pace)]
    if not states[0].has_table:
        stages += _table(targets[0], texts.calibration, rounding_text, options, cache, machine)
    counts = [_counts(state, options) for state in states]
    stages += _building(targets, counts, machine, machine.pace)
    stages.append(_measuring(model, texts, options, counts, machine.pace))
    evaluated = sum(count.evaluation for count in counts)
    if evaluated:
        stages.append(_measured("evaluation", model, texts.evaluation, options.measuring, evaluated, 1, machine.pace))
    return [stage for stage in stages if stage.seconds]


def _imatrix(model: Model, text: Text, n_ctx: int, pace: Pace) -> WorkEstimate:
    tokens = tokenize(model, undivided(text), n_ctx).chunks.size
    return WorkEstimate(pace.load + tokens * pace.per_token, model.file_bytes, name="imatrix")


def _table(
    target: RunTarget, calibration: Text, rounding_text: Text, options: RunOptions, cache: Path, machine: Machine
) -> list[WorkEstimate]:
    model, how = target.request.model, options.pricing
    tensors, imatrix = quantizable(model), target.request.imatrix
    if options.source == "probe":
        return of_table(model, tensors, imatrix, calibration, how, cache, machine)
    if options.source == "weights":
        kinds = [(tensor, candidates(tensor, how.types, imatrix)) for tensor in tensors]
        return [of_round_trips(kinds, how.sample_elements, machine.rounding)]
    if options.source == "prior" or not how.compensate:
        return []
    available = len(tokenize(model, rounding_text, how.probe.n_ctx).chunks)
    return [of_rounding_moments(model, tensors, rounding_text, how.probe, available, cache, machine)]


def _counts(state: RunStatus, options: RunOptions) -> _Counts:
    compensated = options.pricing.compensate and options.source not in ("weights", "prior")
    stock = 1 + len(options.baselines) + compensated
    further = (1 + _NEARBY) * options.refine  # one plan without a family of types, and those near by
    plans = max(1 + further - state.measured, 0)
    whole = (1 + (1 + _NEARBY * refine.REGION) * options.refine) * plans / (1 + further)
    evaluation = 0 if state.evaluated else 2 + options.refine + len(options.baselines)
    return _Counts(plans + stock * (not state.measured), whole * compensated, evaluation)


def _building(
    targets: Sequence[RunTarget], counts: Sequence[_Counts], machine: Machine, pace: Pace
) -> list[WorkEstimate]:
    """llama-quantize and compensated rounding of all files; the types are only known when they are solved for."""
    quantized, encoded = [], []
    for target, count in zip(targets, counts, strict=True):
        model, types = target.request.model, _usual_types(target)
        quantized.append(of_quantizing(types, model, machine.rounding).times(count.validation))
        encoded.append(of_encoding(types, model, pace.inputs, machine.rounding).times(count.encoded))
    disk = disk_needed(targets)[0]
    return [
        replace(quantized[0], seconds=_seconds(quantized), disk_bytes=disk),
        replace(encoded[0], seconds=_seconds(encoded), disk_bytes=sum(work.disk_bytes for work in encoded)),
    ]


def _usual_types(target: RunTarget) -> dict[str, QuantType]:
    """One type for all matrices: the largest of those asked for that a file of the target's size can have."""
    model, tensors = target.request.model, quantizable(target.request.model)
    bits = 8 * (target.budget_bytes or model.file_bytes) / model.elements
    by_bits = sorted(target.request.types, key=lambda kind: kind.bits)
    usual = [kind for kind in by_bits if kind.bits <= bits and kind.family != "float"] or by_bits[:1]
    return {tensor.name: fitted(usual[-1], tensor.columns) for tensor in tensors}


def _measuring(model: Model, texts: Texts, options: RunOptions, counts: Sequence[_Counts], pace: Pace) -> WorkEstimate:
    """On the validation text, the base once a round, and of compensated rounding on a text of another domain."""
    files = sum(count.validation for count in counts)
    bases = (1 + refine.ROUNDS * options.refine) * bool(files)
    work = _measured("validation", model, texts.validation, options.refining, files, bases, pace)
    if not (texts.other_domain and files):
        return work
    both = 2 * len(counts)
    other = _measured("validation", model, texts.other_domain, options.refining, both, 1, pace)
    return replace(work, seconds=_seconds([work, other]))


def _measured(
    name: str, model: Model, text: Text, how: MeasureOptions, files: int, bases: int, pace: Pace
) -> WorkEstimate:
    tokens = tokenize(model, text, how.n_ctx, how.chunks)
    work = of_measuring([model], tokens, how.memory_bytes, pace)
    return replace(work.times(files + bases), name=name)


def _seconds(works: Sequence[WorkEstimate]) -> float:
    return sum(work.seconds or 0.0 for work in works)
