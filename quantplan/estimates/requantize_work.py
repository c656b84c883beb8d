"""Time, memory and disk of `quantplan requantize`."""

from pathlib import Path

from quantplan.build.requantize import check_base
from quantplan.estimates.rounding_work import of_encoding, of_quantizing
from quantplan.estimates.table_work import Machine, of_rounding_moments
from quantplan.estimates.work import WorkEstimate, of_measuring
from quantplan.evaluate.measure import MeasureOptions
from quantplan.evaluate.same_tokens import tokenize
from quantplan.llamacpp.quantize import quantizable
from quantplan.sensitivity.tensor_swap import ProbeOptions
from quantplan.tensor import Model
from quantplan.text import Text


def of_requantizing(
    given: Model,
    source: Model,
    calibration: Text,
    evaluation: Text,
    probe: ProbeOptions,
    chunks: int | None,
    cache: Path,
    machine: Machine,
) -> list[WorkEstimate]:
    """Stages; measuring both files on ``chunks`` of the ``evaluation`` text where there is one.

    Raises ModelMismatch for a file of another model, TextTooShort.
    """
    check_base(given, source)
    if machine.pace is None:
        return [WorkEstimate(None, source.file_bytes, given.file_bytes, machine.unknown, "requantize")]
    tensors = quantizable(source)
    names = {tensor.name for tensor in tensors}
    types = {tensor.name: tensor.type for tensor in given.tensors if tensor.name in names}
    available = len(tokenize(source, calibration, probe.n_ctx).chunks)
    stages = [
        of_rounding_moments(source, tensors, calibration, probe, available, cache, machine),
        of_quantizing(types, source, machine.rounding),
        of_encoding(types, source, machine.pace.inputs, machine.rounding),
    ]
    if evaluation:
        how = MeasureOptions(probe.n_ctx, chunks, probe.execution)
        tokens = tokenize(source, evaluation, how.n_ctx, how.chunks)
        stages.append(of_measuring([source, given, given], tokens, how.memory_bytes, machine.pace))
    return stages
