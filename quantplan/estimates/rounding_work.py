"""Time, memory and disk of second moments, of rounding errors in their metric, and of building files."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low

from quantplan.estimates.pace import Pace
from quantplan.estimates.rounding_pace import RoundingPace, rounding_pace
from quantplan.estimates.work import WorkEstimate
from quantplan.quant_type import QuantType
from quantplan.rounding.layouts import can_compensate, column_group
from quantplan.sensitivity.matrix_inputs import MatrixInput
from quantplan.sensitivity.moment_files import sums_bytes
from quantplan.sensitivity.moment_metric import sample_size
from quantplan.sensitivity.second_moments import all_sums, passes
from quantplan.tensor import Model, Tensor

MOMENTS, ERRORS, ENCODING, QUANTIZING = "second moments", "rounding errors", "compensated rounding", "llama-quantize"
Inputs = tuple[MatrixInput, ...]


def pace_of(tensors: Sequence[Tensor], threads: int) -> RoundingPace:
    """For matrices of the usual width of these."""
    return rounding_pace(median_low(tensor.columns for tensor in tensors), threads)


def of_moments(
    model: Model, tensors: Iterable[Tensor], tokens: int, memory: int, pace: Pace, rounding: RoundingPace
) -> WorkEstimate:
    """Of collecting them over so many tokens; ``memory``: bytes for the sums of a pass.

    A pass stops after the last input that it needs, so that P passes are (P + 1) / 2 whole ones.
    """
    wanted = frozenset(tensor.name for tensor in tensors)
    sums = all_sums(pace.inputs, wanted)
    times = (len(passes(sums, pace.inputs, memory)) + 1) / 2
    seconds = pace.load + times * tokens * pace.per_token
    full = [each for each in pace.inputs if not wanted.isdisjoint(each.tensors)]
    products = sum(each.rows_per_token * (1 if each.routed else each.stack) * each.columns**2 for each in full)
    held = min(sum(each.bytes for each in sums), memory)
    disk = sum(each.stack * sums_bytes(each.columns) for each in full)
    return WorkEstimate(seconds + tokens * products * rounding.sum, model.file_bytes + held, disk, name=MOMENTS)


def of_metric_errors(
    kinds: Iterable[tuple[Tensor, tuple[QuantType, ...]]],
    sample_elements: int | None,
    inputs: Inputs,
    rounding: RoundingPace,
) -> WorkEstimate:
    """Of the rounding errors of samples in the types given with each tensor."""
    by_name = {name: each for each in inputs for name in each.tensors}
    seconds, factored, widest = 0.0, set(), 0
    for tensor, types in kinds:
        if tensor.name not in by_name:
            continue
        shared = by_name[tensor.name]
        matrices, rows = sample_size(tensor, shared.stack, sample_elements)
        for kind in types:
            factored.add((shared, matrices, column_group(kind)))
            seconds += _rounding(tensor, kind, matrices * rows, rounding, full=False)
        widest = max(widest, tensor.columns)
    seconds += sum(matrices * each.columns**3 for each, matrices, _ in factored) * rounding.factorize
    return WorkEstimate(seconds, 4 * 4 * widest**2, name=ERRORS)


def of_round_trips(
    kinds: Iterable[tuple[Tensor, tuple[QuantType, ...]]], sample_elements: int | None, rounding: RoundingPace
) -> WorkEstimate:
    """Of the rounding errors of samples by ggml's encoder."""
    seconds, most = 0.0, 0
    for tensor, types in kinds:
        sampled = min(sample_elements or tensor.elements, tensor.elements)
        seconds += sampled * sum(map(rounding.encoding, types))
        most = max(most, 4 * 4 * sampled)
    return WorkEstimate(seconds, most, name=ERRORS)


def of_quantizing(types: Mapping[str, QuantType], model: Model, rounding: RoundingPace) -> WorkEstimate:
    """Of llama-quantize for a file of these types, other tensors copied."""
    changed = [(model.by_name[name], kind) for name, kind in types.items() if kind != model.by_name[name].type]
    seconds = sum(tensor.elements * rounding.encoding(kind) for tensor, kind in changed)
    # the tool holds a tensor as it is stored, in float32 and encoded
    memory = max((2 * tensor.bytes + 4 * tensor.elements for tensor, _ in changed), default=0)
    return WorkEstimate(seconds, memory, file_bytes(types, model), name=QUANTIZING)


def file_bytes(types: Mapping[str, QuantType], model: Model) -> int:
    """Bytes of all tensors stored so, metadata left out."""
    return sum(tensor.bytes_as(types.get(tensor.name, tensor.type)) for tensor in model.tensors)


def of_encoding(types: Mapping[str, QuantType], model: Model, inputs: Inputs, rounding: RoundingPace) -> WorkEstimate:
    """Of compensated rounding of all tensors that can be; finished ones are kept on disk."""
    by_name = {name: each for each in inputs for name in each.tensors}
    seconds, factored, memory, disk = 0.0, set(), 0, 0
    for name, kind in types.items():
        tensor = model.by_name[name]
        if name not in by_name or not can_compensate(kind) or kind == tensor.type:
            continue
        shared = by_name[name]
        factored.add((shared, column_group(kind)))
        seconds += _rounding(tensor, kind, tensor.rows, rounding, full=True)
        memory = max(memory, 4 * 4 * tensor.columns**2 + 4 * 4 * tensor.elements // shared.stack)
        disk += tensor.bytes_as(kind)
    seconds += sum(each.stack * each.columns**3 for each, _ in factored) * rounding.factorize
    return WorkEstimate(seconds, memory, disk, name=ENCODING)


def _rounding(tensor: Tensor, kind: QuantType, rows: int, rounding: RoundingPace, full: bool) -> float:
    if can_compensate(kind):
        return rows * tensor.columns**2 * rounding.compensating(kind, full)
    return rows * tensor.columns * rounding.encoding(kind)
